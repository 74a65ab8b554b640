package recovery

import (
	"context"
	"errors"
	"testing"

	"cohort/consensus"
	"cohort/consensus/state"
)

func rolesGroup(t *testing.T, servers, voters int) *testGroup {
	t.Helper()
	return withTable(t, servers, voters, "replica_parallel_workers=4")
}

// appoint makes to the primary by an entry of via's log and waits until it is
// open.
func (g *testGroup) appoint(via, to *testMember) {
	g.t.Helper()
	until(g.t, "the new primary is open", func() bool {
		// Again if something else was faster.
		if v := via.node.View(); v.Primary != to.id {
			if _, err := via.node.AppointPrimary(g.ctx(), to.id, v.Epoch); err != nil && !errors.Is(err, consensus.ErrNotAppointed) {
				g.t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(g.t.Context(), pollBehind)
		defer cancel()
		b, err := via.router.Primary(ctx)
		return err == nil && b.MemberUUID == to.uuid
	})
}

// change makes another member the primary, and waits until the former one serves
// as a secondary.
func (g *testGroup) change() {
	g.t.Helper()
	old := g.primary()
	before := g.incarnation(old)
	to := g.servers()[int(old.id)%len(g.servers())]
	// Any member may be asked.
	by := g.servers()[int(before)%len(g.servers())]
	if err := by.member.SwitchPrimary(g.ctx(), to.uuid); err != nil {
		g.t.Fatal(err)
	}
	if p := g.primary(); p != to {
		g.t.Fatalf("member %d is the primary, want %d", p.id, to.id)
	}
	until(g.t, "the former primary's next life", func() bool { return g.incarnation(old) > before })
	g.online(old)
	for m, want := range map[*testMember]string{old: "1", to: "0"} {
		if v := g.value(m, "SELECT @@super_read_only"); v != want {
			g.t.Errorf("member %d: super_read_only=%s", m.id, v)
		}
	}
}

// Contract: back and forth under load, nothing acknowledged is lost, nothing
// aborted is there.
func TestSwitchPrimaryUnderLoad(t *testing.T) {
	g := rolesGroup(t, 3, 0)
	g.crashLoop([]*testMember{g.all[0], g.all[1], g.all[2], g.all[1]}, false, 10, func(int) { g.change() })
}

// The primary's mysqld dies; its process lives and has it back later.
func TestAppointAfterMysqldDied(t *testing.T) {
	g := rolesGroup(t, 3, 0)
	g.crashLoop([]*testMember{g.all[0], g.all[1], g.all[2], g.all[2]}, false, crashRounds, func(int) {
		old := g.primary()
		before := g.incarnation(old)
		old.db.Kill(t)
		g.replaced(old)
		old.db.Restart(t)
		until(t, "its next life", func() bool { return g.incarnation(old) > before })
		g.online(old)
	})
}

// The primary's process dies, and at times its mysqld too.
func TestAppointAfterProcessDied(t *testing.T) {
	g := rolesGroup(t, 2, 1)
	// The clients are those of the third member, which lives.
	g.crashLoop([]*testMember{g.all[2], g.all[2], g.all[2]}, false, crashRounds, func(r int) {
		old := g.primary()
		to := g.servers()[int(old.id)%2]
		g.stop(old)
		g.appoint(to, to)
		want := g.all[2].node.LastN() + 20
		if r%2 == 1 {
			old.db.Kill(t)
			old.db.Restart(t)
		} else {
			until(t, "writes on the new primary while the old mysqld lives", func() bool { return g.all[2].node.LastN() > want })
		}
		g.start(old)
		g.online(old)
	})
}

// What the former primary prepared and never proposed is aborted by the
// appointment, for whoever waits, and rolled back there when it returns.
func TestInFlightTransactionOfFormerPrimary(t *testing.T) {
	g := rolesGroup(t, 2, 1)
	old, to, via := g.all[0], g.all[1], g.all[2]
	s := g.session(via)
	// The xid comes first: another primary may be there before PREPARE.
	_, tk, err := s.prepareAfter(g.ctx(), func() { g.stop(old) }, "INSERT INTO d.t VALUES (1,0)")
	if err != nil {
		t.Fatal(err)
	}
	g.appoint(via, to)
	if o := g.outcome(tk); o.Committed || o.Errno != 3101 {
		t.Errorf("outcome %+v", o)
	}
	g.write(via, "INSERT INTO d.t VALUES (1,5)")
	g.start(old)
	g.online(old)
	g.equal()
	g.rows("0,1")
}

// An xid that names the new primary's life and is prepared on the former primary's
// mysqld, since its session had not noticed: nobody would ever propose it.
func TestPreparedOnFormerPrimaryForTheNewOne(t *testing.T) {
	g := rolesGroup(t, 2, 1)
	old, to, via := g.all[0], g.all[1], g.all[2]
	s := g.session(via)
	g.stop(old)
	g.appoint(via, to)
	_, tk, err := s.prepare(g.ctx(), "INSERT INTO d.t VALUES (1,0)")
	if err != nil {
		t.Fatal(err)
	}
	g.start(old)
	if o := g.outcome(tk); o.Committed || o.Errno != 3101 {
		t.Errorf("outcome %+v", o)
	}
	g.online(old)
	g.equal()
	g.rows("0")
}

// Ordered by the former primary, which died before it carried out the verdict:
// the session hears that it is committed, once the new primary shows it.
func TestOrderedByFormerPrimary(t *testing.T) {
	g := rolesGroup(t, 2, 1)
	old, to, via := g.all[0], g.all[1], g.all[2]
	xid, _, n := g.orderedNotExecuted(1)
	tk := via.router.Expect(xid)
	g.stop(old)
	g.appoint(via, to)
	if o := g.outcome(tk); !o.Committed || o.N != n {
		t.Errorf("outcome %+v", o)
	}
	if v := g.value(to, "SELECT COUNT(*) FROM d.t WHERE id=1"); v != "1" {
		t.Errorf("answered, and the new primary shows %s rows", v)
	}
	g.write(via, "INSERT INTO d.t VALUES (2,0)")
	g.start(old)
	g.online(old)
	g.equal()
	g.rows("0,1,2")
}

// A statement that the former primary ran and did not get ordered is proposed
// when it returns, and reaches the new primary too.
func TestLateDirectOfFormerPrimary(t *testing.T) {
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
	// In another table: rows that are read long afterwards count as all of theirs.
	g.ddl("CREATE TABLE d.u (id INT PRIMARY KEY)")
	g.write(via, "INSERT INTO d.u VALUES (1)")
	life := g.incarnation(to)
	g.start(old)
	if o := g.outcome(tk); !o.Committed {
		t.Errorf("outcome %+v", o)
	}
	if v := g.value(to, "SELECT COUNT(*) FROM d.t WHERE id=1"); v != "1" {
		t.Errorf("answered, and the primary shows %s rows", v)
	}
	g.online(old)
	g.write(via, "INSERT INTO d.t VALUES (3,0)")
	g.equal()
	g.rows("0,1,3")
	if now := g.incarnation(to); now != life {
		t.Errorf("it cost the new primary its life: %v", to.member.LastError())
	}
}

// One that conflicts with what was ordered since makes the member's data others
// than the group's.
func TestConflictingLateDirectOfFormerPrimary(t *testing.T) {
	g := rolesGroup(t, 2, 1)
	old, to, via := g.all[0], g.all[1], g.all[2]
	s := g.session(via)
	g.stop(old)
	if _, err := s.Exec(g.ctx(), "UPDATE d.t SET v=1 WHERE id=0"); err != nil {
		t.Fatal(err)
	}
	g.appoint(via, to)
	g.write(via, "UPDATE d.t SET v=2 WHERE id=0")
	g.start(old)
	until(t, "it gives up", func() bool { return old.member.gaveUp.Load() })
	if e := old.member.LastError(); !errors.Is(e, ErrDiverged) || g.state(old) != state.StateError {
		t.Errorf("%v, %s", e, g.state(old))
	}
	if v := g.value(to, "SELECT v FROM d.t WHERE id=0"); v != "2" {
		t.Errorf("v=%s on the primary", v)
	}
}

// A member that was taken for dead joins anew.
func TestExpelledMemberJoinsAgain(t *testing.T) {
	g := rolesGroup(t, 2, 1)
	m := g.all[1]
	before := g.incarnation(m)
	if err := g.all[2].node.SetMemberState(g.ctx(), m.id, before, state.StateOffline); err != nil {
		t.Fatal(err)
	}
	until(t, "its next life", func() bool { return g.incarnation(m) > before })
	g.online(m)
	g.write(g.all[2], "INSERT INTO d.t VALUES (1,0)")
	g.equal()
}

func TestSwitchPrimaryRefuses(t *testing.T) {
	g := rolesGroup(t, 2, 1)
	m := g.all[1]
	if err := m.member.SwitchPrimary(g.ctx(), "nobody"); !errors.Is(err, ErrTarget) {
		t.Errorf("an unknown member: %v", err)
	}
	epoch := m.node.View().Epoch
	if err := m.member.SwitchPrimary(g.ctx(), g.all[0].uuid); err != nil || m.node.View().Epoch != epoch {
		t.Errorf("the primary itself: %v", err)
	}
	g.stop(m)
	p := g.all[0]
	if err := p.node.SetMemberState(g.ctx(), m.id, g.incarnationBy(p, m), state.StateOffline); err != nil {
		t.Fatal(err)
	}
	if err := p.member.SwitchPrimary(g.ctx(), m.uuid); !errors.Is(err, ErrTarget) {
		t.Errorf("a member that is OFFLINE: %v", err)
	}
}

// incarnationBy is the life of m that another member knows of.
func (g *testGroup) incarnationBy(by, m *testMember) uint64 {
	v, _ := by.node.View().Member(m.id)
	return v.Incarnation
}
