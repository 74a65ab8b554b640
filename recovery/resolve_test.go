package recovery

import (
	"context"
	"fmt"
	"testing"
	"time"

	"cohort/internal/wire"
)

// holder is somebody on the socket of a member's mysqld.
type holder struct {
	*wire.Client
	t    *testing.T
	m    *testMember
	done chan error // of a statement that goes on
}

func (g *testGroup) holder(t *testing.T, m *testMember, stmts ...string) *holder {
	t.Helper()
	c, err := wire.Dial(g.ctx(), wire.Config{Network: "unix", Addr: m.socket, User: "root"})
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{c, t, m, make(chan error, 1)}
	t.Cleanup(func() { c.Close() })
	for _, x := range stmts {
		if _, err := c.Query(g.ctx(), x); err != nil {
			t.Fatalf("%s: %v", x, err)
		}
	}
	return h
}

func (h *holder) alive(g *testGroup) bool {
	return g.value(h.m, fmt.Sprintf("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID=%d", h.ThreadID())) == "1"
}

// Whatever somebody locks on a secondary gives way to what the group has ordered.
// (super_read_only refuses FOR UPDATE and LOCK TABLES … WRITE by itself.)
func TestLocksOnASecondaryGiveWay(t *testing.T) {
	g := rolesGroup(t, 2, 1)
	g.equal() // what the test locks is there
	p, m := g.all[0], g.all[1]
	const update, alter = "UPDATE d.t SET v=v+1 WHERE id=0", "ALTER TABLE d.t COMMENT='%d'"
	for i, tc := range []struct {
		name string
		hold []string
		runs string // goes on until it is killed
		ddl  bool
	}{
		{name: "row for share", hold: []string{"BEGIN", "SELECT * FROM d.t WHERE id=0 FOR SHARE"}},
		{name: "row for share, autocommit off", hold: []string{"SET autocommit=0", "SELECT * FROM d.t WHERE id=0 FOR SHARE"}},
		{name: "lock tables read", hold: []string{"LOCK TABLES d.t READ"}},
		{name: "flush tables with read lock of one", hold: []string{"FLUSH TABLES d.t WITH READ LOCK"}},
		{name: "open transaction, DDL", hold: []string{"BEGIN", "SELECT * FROM d.t"}, ddl: true},
		{name: "long SELECT, DDL", runs: "SELECT SLEEP(1000) FROM d.t", ddl: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := g.holder(t, m, tc.hold...)
			if tc.runs != "" {
				go func() { _, err := h.Query(g.ctx(), tc.runs); h.done <- err }()
				until(t, "it runs", func() bool {
					return g.value(m, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE='User sleep'") == "1"
				})
			}
			if tc.ddl {
				g.ddl(fmt.Sprintf(alter, i))
			} else {
				g.write(p, update)
			}
			want := p.node.LastN()
			until(t, "the secondary applies", func() bool { return m.router.Tracker(m.id).Low() >= want })
			until(t, "the session is gone", func() bool { return !h.alive(g) })
		})
	}
	g.equal()
}

// A session that holds nothing that is waited for is left alone, whatever else
// happens, and so is a backup.
func TestWhoIsNotInTheWayStays(t *testing.T) {
	g := rolesGroup(t, 2, 1)
	p, m := g.all[0], g.all[1]
	g.equal() // or the reader could be in the way of what comes before
	reader := g.holder(t, m, "BEGIN", "SELECT * FROM d.t FOR SHARE")
	sleeper := g.holder(t, m, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
	for name, lock := range map[string]struct{ take, then, state, free string }{
		"global read lock": {"FLUSH TABLES WITH READ LOCK", "CREATE TABLE d.a (id INT PRIMARY KEY)", "GLOBAL", "UNLOCK TABLES"},
		"backup lock":      {"LOCK INSTANCE FOR BACKUP", "CREATE TABLE d.b (id INT PRIMARY KEY)", "BACKUP LOCK", "UNLOCK INSTANCE"},
	} {
		backup := g.holder(t, m, lock.take)
		g.ddl(lock.then)
		until(t, "the applier waits for the "+name, func() bool {
			return g.value(m, "SELECT COUNT(*) FROM performance_schema.metadata_locks WHERE LOCK_STATUS='PENDING' AND OBJECT_TYPE='"+lock.state+"'") == "1"
		})
		time.Sleep(2 * lockPatience)
		if !backup.alive(g) {
			t.Errorf("the holder of a %s was killed", name)
		}
		if _, err := backup.Exec(g.ctx(), lock.free); err != nil {
			t.Errorf("%s: %v", lock.free, err)
		}
		until(t, "it applies", func() bool { return m.router.Tracker(m.id).Low() >= p.node.LastN() })
	}
	for name, h := range map[string]*holder{"one that has read rows": reader, "one with a snapshot": sleeper} {
		if !h.alive(g) {
			t.Errorf("%s was killed, and was in nobody's way", name)
		}
	}
}

// A global read lock stops the whole group once its holder's server is the primary.
func TestGlobalReadLockEndsWithPromotion(t *testing.T) {
	for name, behind := range map[string]bool{"behind": true, "with everything applied": false} {
		t.Run(name, func(t *testing.T) {
			g := rolesGroup(t, 2, 1)
			g.equal()
			p, m := g.all[0], g.all[1]
			h := g.holder(t, m, "FLUSH TABLES WITH READ LOCK")
			if behind {
				g.write(p, "INSERT INTO d.t VALUES (1,0)")
			}
			if err := m.member.SwitchPrimary(g.ctx(), m.uuid); err != nil {
				t.Fatal(err)
			}
			until(t, "the session is gone", func() bool { return !h.alive(g) })
			g.write(m, "INSERT INTO d.t VALUES (2,0)")
			g.online(p)
			g.equal()
		})
	}
}

// What a former primary ran and proposes late is applied on the primary, whatever
// its clients have locked there.
func TestLateDirectMeetsALock(t *testing.T) {
	g := rolesGroup(t, 2, 1)
	old, to, via := g.all[0], g.all[1], g.all[2]
	s := g.session(via)
	g.stop(old)
	ok, err := s.Exec(g.ctx(), "INSERT INTO d.t VALUES (1,0)")
	if err != nil {
		t.Fatal(err)
	}
	tk := via.router.ExpectDirect(ok.Trackers.GTID())
	g.appoint(via, to)
	// Not prepared: what the group would decide on goes first, if it comes first.
	h := g.holder(t, to, "BEGIN", "INSERT INTO d.t VALUES (1,7)")
	g.start(old)
	ctx, cancel := context.WithTimeout(g.ctx(), deadline)
	defer cancel()
	if o, err := tk.Wait(ctx); err != nil || !o.Committed {
		t.Errorf("outcome %+v, %v", o, err)
	}
	until(t, "the session is gone", func() bool { return !h.alive(g) })
	g.online(old)
	g.equal()
	g.rows("0,1")
}
