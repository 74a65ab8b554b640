package recovery

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"cohort/consensus/state"
	"cohort/internal/skip"
	"cohort/router"
)

func TestVitals(t *testing.T) {
	well := beat{answered: true}
	ro := beat{answered: true, readOnly: true}
	full := func(threads ...uint64) beat { return beat{answered: true, stuck: threads} }
	for name, c := range map[string]struct {
		beats    []beat
		writable bool
		want     error
	}{
		"well":                          {beats: []beat{well, well, well, well}, writable: true},
		"hung":                          {beats: []beat{well, {}, {}, {}, {}}, want: errHung},
		"slow":                          {beats: []beat{{}, {}, {}, well, {}, {}, {}}},
		"read-only primary":             {beats: []beat{ro, ro, ro}, writable: true, want: errReadOnly},
		"read-only for a moment":        {beats: []beat{ro, ro, well, ro}, writable: true},
		"read-only secondary":           {beats: []beat{ro, ro, ro, ro}},
		"disk full":                     {beats: []beat{full(1), full(1, 2), full(2, 1)}, want: errDiskFull},
		"others each time":              {beats: []beat{full(1), full(2), full(3), full(4)}},
		"space again":                   {beats: []beat{full(1), full(1), well, full(1)}},
		"stuck since the second look":   {beats: []beat{full(1), full(2), full(2), full(2)}, want: errDiskFull},
		"full and slow":                 {beats: []beat{full(1), {}, full(1), full(1)}, want: errDiskFull},
		"a hang is not mended by hopes": {beats: []beat{{}, {}, well, {}, {}, {}, {}}, want: errHung},
	} {
		var v vitals
		var got error
		for i, b := range c.beats {
			if got = v.take(b, c.writable); got != nil && i != len(c.beats)-1 {
				t.Errorf("%s: too soon: %v", name, got)
			}
		}
		if !errors.Is(got, c.want) || c.want == nil && got != nil {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// signal sends a member's mysqld a signal.
func (g *testGroup) signal(m *testMember, s syscall.Signal) {
	g.t.Helper()
	if err := syscall.Kill(m.db.Pid, s); err != nil {
		g.t.Fatal(err)
	}
}

// The primary's mysqld stands still while its proxy lives: its member reports it,
// and another one takes over without waiting for any connection to break.
func TestPrimaryHangs(t *testing.T) {
	g := newGroup(t, 2, 1)
	g.ddl("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
	a, b := g.all[0], g.all[1]
	g.write(b, "INSERT INTO d.t VALUES (1)")
	before := g.incarnation(a)
	g.signal(a, syscall.SIGSTOP)
	t.Cleanup(func() { _ = syscall.Kill(a.db.Pid, syscall.SIGCONT) })
	until(t, "failover", func() bool { return b.node.View().Primary == b.id })
	until(t, "its own view", func() bool { return g.state(a) == state.StateOffline })
	g.write(b, "INSERT INTO d.t VALUES (2)")
	g.signal(a, syscall.SIGCONT)
	until(t, "it is back", func() bool { return g.incarnation(a) > before && g.state(a) == state.StateOnline && a.member.Ready() })
	g.write(a, "INSERT INTO d.t VALUES (3)")
	g.equal()
}

// A primary whose mysqld turns read-only is replaced.
func TestPrimaryTurnsReadOnly(t *testing.T) {
	g := newGroup(t, 2, 1)
	g.ddl("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
	a, b := g.all[0], g.all[1]
	a.db.SQL(t, "SET GLOBAL super_read_only=ON")
	until(t, "failover", func() bool { return b.node.View().Primary == b.id })
	g.write(a, "INSERT INTO d.t VALUES (1)")
	g.online(a)
	g.equal()
}

// A primary whose mysqld waits for space, without an error to anybody, is
// replaced.
func TestPrimaryDiskFull(t *testing.T) {
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=16m,mode=0777"); err != nil {
		skip.For(t, "needs to mount a small disk: ", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) })
	g := newGroup(t, 2, 1)
	a, b := g.all[0], g.all[1]
	// From here on its binary log is on the small disk.
	g.stop(a)
	a.db.Stop(t)
	a.db.Restart(t, "log_bin="+filepath.Join(small, "bin"))
	g.start(a)
	g.online(a)
	if g.primary() != a {
		if err := b.member.SwitchPrimary(g.ctx(), a.uuid); err != nil {
			t.Fatal(err)
		}
	}
	g.ddl("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, b LONGBLOB)")
	fill := filepath.Join(small, "fill")
	if err := os.WriteFile(fill, make([]byte, 15<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s := g.session(a)
	go func() { _, _ = s.commit(t.Context(), "INSERT INTO d.t VALUES (1, REPEAT('x', 3000000))") }()
	until(t, "failover", func() bool { return b.node.View().Primary == b.id })
	g.write(b, "INSERT INTO d.t VALUES (2, 'y')")
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	// mysqld may take a minute to notice: nobody waits for it.
}

// A primary that is cut off goes on being the open one in its own view. When its
// mysqld begins anew, and is fenced, it is given to no session until the group has
// taken it in again.
func TestCutOffPrimaryIsFenced(t *testing.T) {
	g := newGroup(t, 1, 2)
	g.ddl("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
	p := g.all[0]
	b, err := p.router.Primary(g.ctx())
	if err != nil || p.router.Moved(b) {
		t.Fatal(b, err)
	}
	g.loseQuorum()
	p.db.Kill(t)
	p.db.Restart(t)
	until(t, "its sessions have to move", func() bool { return p.router.Moved(b) })
	until(t, "it is fenced", func() bool { return g.value(p, "SELECT @@super_read_only") == "1" })
	ctx, cancel := context.WithTimeout(g.ctx(), 3*beatEvery)
	defer cancel()
	if b, err := p.router.Primary(ctx); !errors.Is(err, router.ErrNoPrimary) {
		t.Errorf("given to sessions: %+v, %v", b, err)
	}
	g.regainQuorum()
	g.write(p, "INSERT INTO d.t VALUES (1)")
	g.equal()
}
