package recovery

import (
	"errors"
	"fmt"
	"testing"

	"cohort/consensus/state"
	"cohort/internal/binlog/capture"
	"cohort/internal/committer"
	"cohort/internal/mysqld"
	"cohort/internal/pause"
	"cohort/internal/wire"
	"cohort/router"
)

// §3: run by mysqld, never proposed; the process was gone.
func TestDirectNeverProposedIsProposedLate(t *testing.T) {
	for _, dies := range []string{"process", "both"} {
		t.Run(dies, func(t *testing.T) {
			// With another primary elected meanwhile, and without.
			g := settling(t, map[string]string{"process": "secondary", "both": "primary"}[dies])
			p, via := g.primary(), g.all[2]
			g.stop(p)
			g.replaced(p)
			s := g.sessionOn(p, via)
			var gtids []string
			for _, x := range []string{"CREATE TABLE d.late (id INT PRIMARY KEY)", "INSERT INTO d.late VALUES (1)", "INSERT INTO d.late SELECT 2",
				"CREATE USER late IDENTIFIED BY 'x'", "ALTER TABLE d.late ADD COLUMN c INT"} {
				ok, err := s.Exec(g.ctx(), x)
				if err != nil {
					t.Fatalf("%s: %v", x, err)
				}
				gtids = append(gtids, ok.Trackers.GTID())
			}
			if dies == "both" {
				p.db.Kill(t)
				p.db.Restart(t)
			}
			g.start(p)
			last := uint64(0)
			for _, x := range gtids {
				if o := g.outcome(via.router.ExpectDirect(x)); !o.Committed || o.N <= last {
					t.Errorf("%s: %+v after %d", x, o, last)
				} else {
					last = o.N
				}
			}
			g.online(p)
			g.write(via, "INSERT INTO d.late VALUES (3,3)")
			g.together()
			g.equal()
			for _, m := range g.servers() {
				if v := g.value(m, "SELECT GROUP_CONCAT(id ORDER BY id) FROM d.late"); v != "1,2,3" {
					t.Errorf("member %d: %s", m.id, v)
				}
				if v := g.value(m, "SELECT COUNT(*) FROM mysql.user WHERE user='late'"); v != "1" {
					t.Errorf("member %d: the account is missing", m.id)
				}
			}
		})
	}
}

// §3: run and captured, but not ordered when mysqld died. The session that ran
// it still waits in the same process.
func TestDirectUnorderedAtACrashOfMysqld(t *testing.T) {
	g := withTable(t, 2, 1)
	p := g.primary()
	g.loseQuorum()
	ok, err := g.sessionOn(p, p).Exec(g.ctx(), "CREATE TABLE d.late (id INT PRIMARY KEY)")
	if err != nil {
		t.Fatal(err)
	}
	tk := p.router.ExpectDirect(ok.Trackers.GTID())
	before := g.incarnation(p)
	p.db.Kill(t)
	p.db.Restart(t)
	g.regainQuorum()
	if o := g.outcome(tk); !o.Committed {
		t.Errorf("%+v", o)
	}
	g.nextLife(p, before)
	g.write(p, "INSERT INTO d.late VALUES (1)")
	g.equal()
}

// §3: ordered, but the empty transaction that stands for it on its origin was
// not written. The origin must not get it from its feed.
func TestDirectOrderedWithoutItsEmptyTransaction(t *testing.T) {
	for _, x := range [][2]string{{"mysqld", "primary"}, {"process", "primary"}, {"process", "secondary"}} {
		dies, by := x[0], x[1]
		t.Run(dies+" "+by, func(t *testing.T) {
			g := settling(t, by)
			p := g.primary()
			g.holdVerdicts()
			n := p.node.LastN()
			s := g.session(p)
			var last string
			for i, x := range []string{"CREATE TABLE d.late (id INT PRIMARY KEY)", "INSERT INTO d.late VALUES (1)"} {
				ok, err := s.Exec(g.ctx(), x)
				if err != nil {
					t.Fatal(err)
				}
				last = ok.Trackers.GTID()
				g.ordered(n + uint64(i) + 1)
			}
			if set, err := mysqld.GroupExecuted(t.Context(), g.root(p), groupName); err != nil || set.Has(n+1) {
				t.Fatalf("its number is executed already: %+v %v", set, err)
			}
			if dies == "mysqld" {
				tk := p.router.ExpectDirect(last)
				g.crashMysqld()
				if o := g.outcome(tk); !o.Committed || o.N != n+2 {
					t.Errorf("%+v", o)
				}
			} else {
				g.restart()
			}
			g.write(p, "INSERT INTO d.late VALUES (2)")
			g.together()
			g.equal()
			if e := p.member.LastError(); dies == "process" && e != nil {
				t.Errorf("the start-up did not succeed at once: %v", e)
			}
		})
	}
}

// §3: the place from which a start-up looks for statements never passes one
// that is not settled, however long that takes.
func TestCheckpointWaitsForOpenDirects(t *testing.T) {
	g := withTable(t, 2, 1)
	p := g.primary()
	place := func() checkpoint {
		c, err := loadCheckpoint(p.dir)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := place()
	g.write(p, "INSERT INTO d.t VALUES (1,0)")
	until(t, "the checkpoint follows the binary log", func() bool { return place() != first })
	start, err := binlogEnd(t.Context(), g.root(p), 90000)
	if err != nil {
		t.Fatal(err)
	}
	g.holdVerdicts()
	n := p.node.LastN()
	if _, err := g.session(p).Exec(g.ctx(), "INSERT INTO d.t VALUES (2,0)"); err != nil {
		t.Fatal(err)
	}
	g.ordered(n + 1)
	if _, _, err := g.session(p).prepare(g.ctx(), "INSERT INTO d.t VALUES (3,0)"); err != nil {
		t.Fatal(err)
	}
	g.ordered(n + 2)
	// That it stays can only be seen by letting the time pass in which it would
	// move: it is saved every pollIdle.
	if err := pause.For(t.Context(), 5*pollIdle/2); err != nil {
		t.Fatal(err)
	}
	if c := place(); start.Before(capture.StartAt{File: c.File, Pos: c.Pos}) {
		t.Errorf("%+v is behind an open statement, which began at %+v", c, start)
	}
	g.crashMysqld()
	g.equal()
	g.rows("0,1,2,3")
}

// §3: statements of someone else on the primary, of which no proxy knows, are
// ordered as well, in the order of the binary log.
func TestStatementsOnTheSocketAreOrdered(t *testing.T) {
	g := withTable(t, 2, 1)
	p := g.primary()
	p.db.SQL(t, "CREATE TABLE d.x (id INT PRIMARY KEY)", "BEGIN", "INSERT INTO d.x VALUES (1)", "INSERT INTO d.t VALUES (1,0)", "COMMIT",
		"LOCK TABLES d.x WRITE", "INSERT INTO d.x VALUES (2)", "UNLOCK TABLES", "DROP TABLE d.x")
	g.write(g.all[2], "INSERT INTO d.t VALUES (2,0)")
	g.equal()
	g.rows("0,1,2")
}

// Late statements whose snapshot lacks what others have applied meanwhile. The
// primary was reported OFFLINE, so it did not hold up the certification
// horizon.
func TestLateDirectBelowTheHorizon(t *testing.T) {
	g := withTable(t, 2, 1)
	p, second, via := g.primary(), g.all[1], g.all[2]
	life := g.incarnation(p)
	_, _, n := g.orderedNotExecuted(1)
	g.stop(p)
	ok, err := g.sessionOn(p, via).Exec(g.ctx(), "INSERT INTO d.t VALUES (2,0)")
	if err != nil {
		t.Fatal(err)
	}
	// What a life that loses its mysqld reports at its end.
	if err := via.node.SetMemberState(g.ctx(), p.id, life, state.StateOffline); err != nil {
		t.Fatal(err)
	}
	until(t, "the others report what they applied", func() bool {
		v, _ := via.node.View().Member(second.id)
		return v.Applied >= n
	})
	g.start(p)
	if o := g.outcome(via.router.ExpectDirect(ok.Trackers.GTID())); !o.Committed {
		t.Errorf("%+v", o)
	}
	g.online(p)
	g.equal()
	g.rows("0,1,2")
}

// A statement that mysqld ran and the group refused leaves a member that must
// not go on.
func TestRefusedDirectEndsThePrimary(t *testing.T) {
	g := withTable(t, 1, 2)
	p := g.primary()
	life := g.incarnation(p)
	if err := g.all[1].node.SetMemberState(g.ctx(), p.id, life, state.StateError); err != nil {
		t.Fatal(err)
	}
	until(t, "the life ends", func() bool { return errors.Is(p.member.LastError(), ErrDiverged) })
}

// The group keeps no prepared transactions of clients. One is rolled back, and
// if its session commits it first, it is ordered like any direct statement: it
// never ends as a row that one member has.
func TestForeignXAIsRolledBackOrOrdered(t *testing.T) {
	g := withTable(t, 2, 1)
	p := g.primary()
	s := g.session(p)
	run := func(want uint16, stmts ...string) {
		t.Helper()
		for _, x := range stmts {
			if _, err := s.Exec(g.ctx(), x); err != nil && wire.ErrorCode(err) != want {
				t.Fatalf("%s: %v", x, err)
			}
		}
	}
	for i := range 10 {
		id := fmt.Sprintf("'mine%d'", i)
		run(1397, "XA START "+id, fmt.Sprintf("INSERT INTO d.t VALUES (%d,0)", i+1), "XA END "+id, "XA PREPARE "+id, "XA COMMIT "+id)
	}
	run(0, "XA START 'left'", "INSERT INTO d.t VALUES (100,0)", "XA END 'left'", "XA PREPARE 'left'")
	until(t, "what was left prepared is gone", func() bool { return g.value(p, "SELECT COUNT(*) FROM performance_schema.data_locks") == "0" })
	g.equal()
	if !p.member.Ready() {
		t.Errorf("the primary is not ONLINE any more: %v", p.member.LastError())
	}
}

// A commit by hand of one of cohort's own transactions that the group did not
// order is never ignored, at no later start either.
func TestXACommitByHandIsAnError(t *testing.T) {
	g := withTable(t, 2, 1)
	p := g.primary()
	xid := committer.Quote(router.NewXID("aaaaaaaa", g.incarnation(p), 1))
	g.stop(p)
	s := g.sessionOn(p, p)
	for _, x := range []string{"SET GLOBAL super_read_only=OFF", "XA START " + xid, "INSERT INTO d.t VALUES (1,0)", "XA END " + xid, "XA PREPARE " + xid, "XA COMMIT " + xid} {
		if _, err := s.Exec(g.ctx(), x); err != nil {
			t.Fatalf("%s: %v", x, err)
		}
	}
	g.start(p)
	until(t, "the member gives up", func() bool { return p.member.gaveUp.Load() })
	if g.state(p) != state.StateError || g.value(p, "SELECT @@super_read_only") != "1" || p.member.Ready() {
		t.Errorf("state %s, ready %v, %v", g.state(p), p.member.Ready(), p.member.LastError())
	}
}
