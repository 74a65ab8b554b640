package recovery

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"cohort/consensus/state"
)

// leaves takes a member out of the group, and waits until the others know.
func (g *testGroup) leaves(m, via *testMember) {
	g.t.Helper()
	if err := m.member.Stop(g.ctx()); err != nil {
		g.t.Fatal(err)
	}
	until(g.t, "it is known to be out", func() bool {
		v, _ := via.node.View().Member(m.id)
		return v.State == state.StateOffline
	})
}

// A member whose mysqld is dead can be told to leave. Its mysqld stays read-only
// when it comes back, and START brings the member back.
func TestStopWithADeadMysqld(t *testing.T) {
	for _, role := range []string{"secondary", "primary"} {
		t.Run(role, func(t *testing.T) {
			g := withTable(t, 2, 1)
			m, via := g.all[1], g.all[2]
			if role == "primary" {
				m = g.all[0]
			}
			m.db.Kill(t)
			g.leaves(m, via)
			if m.member.Wanted() || m.member.Ready() {
				t.Errorf("wanted %v, ready %v", m.member.Wanted(), m.member.Ready())
			}
			m.db.Restart(t)
			if v := g.value(m, "SELECT @@super_read_only"); v != "1" {
				t.Errorf("the mysqld of a member that is out takes writes")
			}
			g.write(via, "INSERT INTO d.t VALUES (1,0)")
			if err := m.member.Stop(g.ctx()); err != nil {
				t.Errorf("STOP of a member that is out: %v", err)
			}
			if err := m.member.Start(g.ctx()); err != nil {
				t.Fatal(err)
			}
			g.online(m)
			if err := m.member.Start(g.ctx()); !errors.Is(err, ErrRunning) {
				t.Errorf("START of a member that runs: %v", err)
			}
			g.write(via, "INSERT INTO d.t VALUES (2,0)")
			g.equal()
			g.rows("0,1,2")
		})
	}
}

// A read lock of somebody's holds up what mysqld applies, and no STOP. A START that
// cannot join says why, and the member stays out until the next one.
func TestStartFails(t *testing.T) {
	g := withTable(t, 2, 1)
	m, via := g.all[1], g.all[2]
	g.holder(t, m, "FLUSH TABLES WITH READ LOCK")
	last := g.write(via, "INSERT INTO d.t VALUES (9,0)")
	before := time.Now()
	g.leaves(m, via)
	if n := g.value(m, "SELECT COUNT(*) FROM performance_schema.replication_applier_status WHERE SERVICE_STATE='ON'"); n != "0" {
		t.Error("its mysqld goes on applying")
	}
	if at, gtids := m.router.Departure(); at.Before(before) || gtids != groupName+":1-"+strconv.FormatUint(last.N, 10) {
		t.Errorf("it left at %v with %s ordered, after %d", at, gtids, last.N)
	}
	m.db.Kill(t)
	if err := m.member.Start(g.ctx()); err == nil || !strings.Contains(err.Error(), "mysqld.sock") {
		t.Errorf("START with a dead mysqld: %v", err)
	}
	if m.member.Wanted() {
		t.Error("it goes on trying")
	}
	m.db.Restart(t)
	g.write(via, "INSERT INTO d.t VALUES (1,0)")
	if v, _ := via.node.View().Member(m.id); v.State != state.StateOffline {
		t.Errorf("a member that could not start is %s", v.State)
	}
	if err := m.member.Start(g.ctx()); err != nil {
		t.Fatal(err)
	}
	g.online(m)
	g.equal()
}

// A primary that leaves has what was ordered: its clients were told, or will be.
func TestPrimaryStops(t *testing.T) {
	g := withTable(t, 2, 1)
	p, via := g.all[0], g.all[2]
	_, tk, n := g.orderedNotExecuted(1)
	g.leaves(p, via)
	if o := g.outcome(tk); !o.Committed || o.N != n {
		t.Errorf("the client is told %+v", o)
	}
	if rows := g.value(p, "SELECT COUNT(*) FROM d.t"); rows != "2" {
		t.Errorf("%s rows", rows)
	}
	_, gtids := p.router.Departure()
	if has := g.value(p, "SELECT GTID_SUBSET('"+gtids+"', @@GLOBAL.gtid_executed)"); gtids == "" || has != "1" {
		t.Errorf("it left with %s ordered and has %s", gtids, g.value(p, "SELECT @@GLOBAL.gtid_executed"))
	}
	if err := p.member.Start(g.ctx()); err != nil {
		t.Fatal(err)
	}
	g.online(p)
	g.equal()
	g.rows("0,1")
}

// A START that waits for a majority in vain gives up. Its join may be ordered all
// the same, afterwards: the member does not stay in the group by that.
func TestStartGivesUp(t *testing.T) {
	g := withTable(t, 2, 1)
	p, m, voter := g.all[0], g.all[1], g.all[2]
	g.leaves(m, voter)
	g.stop(p)
	g.stop(voter)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := m.member.Start(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("START without a majority: %v", err)
	}
	if m.member.Wanted() {
		t.Error("it goes on trying")
	}
	g.start(p)
	g.start(voter)
	g.online(p)
	g.write(voter, "INSERT INTO d.t VALUES (1,0)")
	until(t, "it is out", func() bool {
		v, _ := voter.node.View().Member(m.id)
		return v.State == state.StateOffline
	})
	if v := g.value(m, "SELECT @@super_read_only"); v != "1" || m.member.Ready() {
		t.Errorf("super_read_only=%s, ready %v", v, m.member.Ready())
	}
	until(t, "START", func() bool {
		err := m.member.Start(g.ctx())
		if err != nil && !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		return err == nil
	})
	g.online(m)
	g.equal()
	g.rows("0,1")
}
