package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
)

func TestCompaction(t *testing.T) {
	var fatal atomic.Pointer[error]
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.RetainLogBytes, cfg.CheckpointInterval = 8<<20, 20*time.Millisecond
		cfg.CompressionThreshold = -1
		if cfg.ReplicaID == 3 {
			cfg.OnFatal = func(err error) { fatal.Store(&err) }
		}
	})
	c.found()
	submit(t, c, c.members[0], "a", 10)
	c.settle()
	c.close(c.members[2])
	m := c.members[0]
	body := make([]byte, 900000)
	for i := range 60 {
		xid := fmt.Sprint("b", i)
		if err := m.node.Submit(c.ctx(), proposal(xid, 10, uint64(i)+1000, body)); err != nil {
			t.Fatal(err)
		}
		m.rec.verdict(t, xid)
	}
	for _, o := range c.members[:2] {
		o.wait(t, "compaction", func() bool {
			r, err := o.node.host.Load().nh.GetLogReader(shardID)
			if err != nil {
				t.Fatal(err)
			}
			first, _ := r.GetRange()
			return first > 20
		})
	}
	c.open(c.members[2])
	c.members[2].wait(t, "the refusal", func() bool { return fatal.Load() != nil })
	if err := *fatal.Load(); !errors.Is(err, ErrRowsMissing) || !errors.Is(c.members[2].node.Err(), ErrFailed) {
		t.Fatal(err)
	}
}

func TestStoreFailureStopsTheMember(t *testing.T) {
	var fatal atomic.Pointer[error]
	bad := &failingStore{}
	c := newCluster(t, 3, func(cfg *Config) {
		if cfg.ReplicaID == 2 {
			bad.GroupBinlog = cfg.Store
			cfg.Store = bad
			cfg.OnFatal = func(err error) { fatal.Store(&err) }
		}
	})
	c.found()
	submit(t, c, c.members[0], "a", 10)
	c.settle()
	bad.fail.Store(true)
	submit(t, c, c.members[0], "b", 10) // the others go on
	m := c.members[1]
	m.wait(t, "the failure", func() bool { return fatal.Load() != nil })
	if err := *fatal.Load(); !errors.Is(err, errDisk) || !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if _, err := m.node.ReadIndex(c.ctx()); !errors.Is(err, ErrFailed) {
		t.Fatalf("a read after the failure: %v", err)
	}
	if err := m.node.Submit(c.ctx(), proposal("x", 0, 1, nil)); !errors.Is(err, ErrFailed) {
		t.Fatalf("a proposal after the failure: %v", err)
	}
	// After a restart with a sound store it catches up.
	c.crash(m)
	bad.fail.Store(false)
	c.open(m)
	c.same()
}

var errDisk = errors.New("disk is gone")

type failingStore struct {
	GroupBinlog
	fail atomic.Bool
}

func (s *failingStore) Append(n, dep uint64, meta binlog.Meta, body io.Reader, size int64) error {
	if s.fail.Load() {
		return errDisk
	}
	return s.GroupBinlog.Append(n, dep, meta, body, size)
}

func TestRealStore(t *testing.T) {
	c := newCluster(t, 3, nil)
	for _, m := range c.members {
		c.close(m)
	}
	open := func(m *testMember) *groupbinlog.Store {
		s, err := groupbinlog.Open(m.dir+"-binlog", groupbinlog.Options{GroupUUID: testGroup, Logger: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		m.store = s
		return s
	}
	for _, m := range c.members {
		open(m)
		c.open(m)
	}
	c.found()
	m := c.members[0]
	event, err := binlog.AppendQuery(nil, 1, 0, &binlog.Query{Schema: []byte("s"), SQL: []byte("BEGIN")})
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat(event, 100)
	for i := range 100 {
		if err := m.node.Submit(c.ctx(), proposal(fmt.Sprint("x", i), 0, uint64(i), body)); err != nil {
			t.Fatal(err)
		}
	}
	m.rec.verdict(t, "x99")
	c.crash(c.members[1])
	c.members[1].store.(*groupbinlog.Store).Close()
	submitBody := bytes.Repeat(event, 30000)
	if err := m.node.Submit(c.ctx(), proposal("big", 0, 1000, submitBody)); err != nil {
		t.Fatal(err)
	}
	m.rec.verdict(t, "big")
	open(c.members[1])
	c.open(c.members[1])
	c.same()
	var files []string
	for _, m := range c.members {
		s := m.store.(*groupbinlog.Store)
		if s.LastN() != 101 {
			t.Fatalf("member %d has %d", m.id, s.LastN())
		}
		r, err := s.NewReader(0)
		if err != nil {
			t.Fatal(err)
		}
		var all bytes.Buffer
		for range 101 {
			x, err := r.Next(c.ctx())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(&all, x.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
		files = append(files, all.String())
	}
	if files[0] != files[1] || files[0] != files[2] || len(files[0]) < len(submitBody) {
		t.Fatal("group binlogs differ")
	}
	for _, m := range c.members {
		c.close(m)
		if err := m.store.(*groupbinlog.Store).Close(); err != nil {
			t.Fatal(err)
		}
	}
}
