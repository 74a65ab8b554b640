package consensus

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cohort/consensus/state"
	"cohort/internal/binlog/groupbinlog"
)

func TestCheckpointFile(t *testing.T) {
	dir := t.TempDir()
	st, pos, err := loadCheckpoint(dir)
	if err != nil || st.Index() != 0 || pos != (groupbinlog.Position{}) {
		t.Fatalf("%v %v", pos, err)
	}
	s := &memStore{}
	m := &machine{cfg: Config{Dir: dir, Store: s}, fatal: func(error) {}, applied: func(uint64, int) {}, live: &liveness{}}
	if err := m.load(); err != nil {
		t.Fatal(err)
	}
	b := state.Bootstrap{GroupName: "g", Lineage: 1, Rules: 1, Replicas: 9, Primary: 1}
	if _, err := m.st.Apply(7, state.Entry(b.AppendItem(nil)), (*effects)(m)); err != nil {
		t.Fatal(err)
	}
	if err := m.Sync(); err != nil {
		t.Fatal(err)
	}
	st, _, err = loadCheckpoint(dir)
	if err != nil || st.Index() != 7 || !st.View().Founded {
		t.Fatalf("%+v %v", st, err)
	}
	// Any bit that changes is noticed.
	path := filepath.Join(dir, checkpointName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x10
		if _, _, err := decodeCheckpoint(bad); err == nil {
			t.Fatalf("a change of byte %d went unnoticed", i)
		}
		if _, _, err := decodeCheckpoint(good[:i]); err == nil {
			t.Fatalf("%d bytes of %d were enough", i, len(good))
		}
	}
	if err := os.WriteFile(path, good[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.load(); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add(encodeCheckpoint(state.New(), groupbinlog.Position{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if st, pos, err := decodeCheckpoint(b); err == nil && st.LastN() != pos.LastN {
			t.Fatal("state and position differ")
		}
	})
}

func TestSpoolMustHoldWhatTheCheckpointNames(t *testing.T) {
	dir := t.TempDir()
	id := state.StreamID{Member: 1, Incarnation: 2, Stream: 3}
	s, err := openSpool(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.write(id, 0, []byte("12345")); err != nil {
		t.Fatal(err)
	}
	s.close()
	if _, err := openSpool(dir, map[state.StreamID]int64{id: 6}); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	if s, err = openSpool(dir, map[state.StreamID]int64{id: 5}); err != nil {
		t.Fatal(err)
	}
	// A dropped one stays until the next checkpoint.
	s.drop(id)
	if _, err := os.Stat(s.path(id)); err != nil {
		t.Fatal(err)
	}
	if err := removeFiles(s.takeDropped()); err != nil {
		t.Fatal(err)
	}
	if _, err := openSpool(dir, map[state.StreamID]int64{id: 5}); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	// What nothing names is removed.
	if err := os.WriteFile(filepath.Join(dir, "9-9-9"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSpool(dir, nil); err != nil {
		t.Fatal(err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Fatalf("%v left", list)
	}
}

// A member whose host was renamed keeps its log.
func TestRenamedHost(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.found()
	m := c.members[0]
	submit(t, c, m, "a", 20)
	c.close(m)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	raft := filepath.Join(m.dir, "raft")
	if err := renameInFlag(filepath.Join(raft, flagFile), "former"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(raft, host), filepath.Join(raft, "former")); err != nil {
		t.Fatal(err)
	}
	c.open(m)
	if n, err := m.node.ReadIndex(c.ctx()); err != nil || n != 20 {
		t.Fatalf("%d, %v", n, err)
	}
	c.join(m)
	submit(t, c, m, "b", 5)
	c.close(m)
	// Logs of two hosts: which one is true nobody knows.
	if err := os.Rename(filepath.Join(raft, host), filepath.Join(raft, "x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(raft, "y"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := adoptHostname(raft); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

// A directory of which a part is gone is refused, not begun anew.
func TestLostParts(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.found()
	m := c.members[0]
	submit(t, c, m, "a", 5)
	c.close(m)
	cfg := Config{Dir: m.dir, GroupName: testGroup, ReplicaID: 1, LocalAddress: c.addrs[1],
		InitialMembers: c.addrs, Store: m.store}
	for _, part := range []string{checkpointName, "raft"} {
		path := filepath.Join(m.dir, part)
		if err := os.Rename(path, path+".gone"); err != nil {
			t.Fatal(err)
		}
		if n, err := New(cfg); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("without %s: %v %v", part, n, err)
		}
		if err := os.Rename(path+".gone", path); err != nil {
			t.Fatal(err)
		}
	}
	lost := cfg
	lost.Dir = t.TempDir()
	if _, err := New(lost); !errors.Is(err, ErrCorrupt) || m.store.LastN() != 5 {
		t.Fatalf("%v, %d transactions left", err, m.store.LastN())
	}
	cfg.Store = &memStore{} // lost its rows
	if _, err := New(cfg); err == nil {
		t.Fatal("started without its group binlog")
	}
	c.open(m)
	if n, err := m.node.ReadIndex(c.ctx()); err != nil || n != 5 {
		t.Fatalf("%d, %v", n, err)
	}
}

func TestConfig(t *testing.T) {
	good := Config{Dir: "d", GroupName: testGroup, ReplicaID: 1, LocalAddress: "a:1",
		InitialMembers: map[uint64]string{1: "a:1"}, Store: &memStore{}}
	c, err := good.withDefaults()
	if err != nil || c.RTT != DefaultRTT || c.FragmentSize != DefaultFragmentSize {
		t.Fatalf("%+v %v", c, err)
	}
	for _, spoil := range []func(*Config){
		func(c *Config) { c.Dir = "" }, func(c *Config) { c.GroupName = "" }, func(c *Config) { c.Store = nil },
		func(c *Config) { c.ReplicaID = 2 }, func(c *Config) { c.LocalAddress = "b:1" },
		func(c *Config) { c.RTT = 1 }, func(c *Config) { c.FragmentSize = 1 },
	} {
		c := good
		spoil(&c)
		if _, err := c.withDefaults(); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
	if deploymentID("a") == deploymentID("b") {
		t.Fatal("deployment ids")
	}
}

func TestCompactorCountsBytes(t *testing.T) {
	var c compactor
	for i := range uint64(100) {
		c.note(i+1, 1<<20)
		if n := c.next(32 << 20); n > 0 && i+1-n < 31 {
			t.Fatalf("at %d the log may go up to %d", i+1, n)
		}
	}
	if len(c.marks) > 20 {
		t.Fatalf("%d marks", len(c.marks))
	}
}
