package recovery

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	"cohort/consensus/state"
	"cohort/internal/mysqld"
)

// A FLUSH that someone runs on a secondary's socket gets a GTID of its own and
// changes nothing: the next start passes over it.
func TestFlushOnASecondaryIsPassedOver(t *testing.T) {
	for _, dies := range []string{"process", "mysqld"} {
		t.Run(dies, func(t *testing.T) {
			g := withTable(t, 2, 1)
			m := g.all[1]
			before := g.value(m, "SELECT @@GLOBAL.gtid_executed")
			m.db.SQL(t, "FLUSH TABLES", "FLUSH LOGS", "FLUSH STATUS", "FLUSH TABLES")
			if own := g.value(m, "SELECT GTID_SUBTRACT(@@GLOBAL.gtid_executed, '"+before+"')"); !strings.Contains(own, g.uuid(m)+":") {
				t.Fatalf("mysqld logged none of them: %q", own)
			}
			g.write(g.primary(), "INSERT INTO d.t VALUES (1,0)")
			life := g.incarnation(m)
			if dies == "process" {
				g.stop(m)
				g.start(m)
			} else {
				m.db.Kill(t)
				m.db.Restart(t)
			}
			until(t, "the next life", func() bool { return g.incarnation(m) > life || m.member.gaveUp.Load() })
			until(t, "the member ONLINE", func() bool {
				if e := m.member.LastError(); errors.Is(e, ErrDiverged) {
					t.Fatal(e)
				}
				return m.member.Ready() && g.state(m) == state.StateOnline
			})
			g.write(g.primary(), "INSERT INTO d.t VALUES (2,0)")
			g.equal()
			g.rows("0,1,2")
		})
	}
}

func (g *testGroup) uuid(m *testMember) string {
	g.t.Helper()
	return g.value(m, "SELECT @@server_uuid")
}

// Someone stops the channel of a secondary, or a part of it. Nothing is wrong
// with its data: it comes back by itself, without ever having been in ERROR.
func TestStoppedChannelIsStartedAgain(t *testing.T) {
	g := withTable(t, 2, 1)
	m := g.all[1]
	told := g.followState(m)
	for i, what := range []string{"", " IO_THREAD", " SQL_THREAD"} {
		life := g.incarnation(m)
		m.db.SQL(t, "STOP REPLICA"+what+" FOR CHANNEL '"+mysqld.FeedChannel+"'")
		until(t, "the life ends", func() bool {
			return errors.Is(m.member.LastError(), mysqld.ErrChannelStopped) && g.incarnation(m) > life
		})
		g.online(m)
		g.write(g.primary(), "INSERT INTO d.t VALUES ("+strconv.Itoa(i+1)+",0)")
		g.equal()
	}
	g.rows("0,1,2,3")
	if seen := told(); seen[state.StateError] {
		t.Errorf("the group was told %v", seen)
	}
}

// followState records the states that the group knows of a member until the
// function that it returns is called.
func (g *testGroup) followState(m *testMember) (end func() map[state.MemberState]bool) {
	ctx, cancel := context.WithCancel(g.ctx())
	seen := map[state.MemberState]bool{}
	done := make(chan struct{})
	r, node := g.primary().router, g.primary().node
	go func() {
		defer close(done)
		for {
			changed := r.Changed()
			v, _ := node.View().Member(m.id)
			seen[v.State] = true
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() map[state.MemberState]bool {
		cancel()
		<-done
		return seen
	}
}

// What an administrator runs on the primary after the fence and before capture
// begins is ordered like any other direct statement.
func TestStatementsBetweenFenceAndCaptureAreOrdered(t *testing.T) {
	g := withTable(t, 2, 1)
	p := g.primary()
	g.loseQuorum()
	g.stop(p)
	// How often the binary log's state was asked for: by the check of the settings,
	// and by the last step of the fence. The next is to join, which takes a quorum.
	ends := func() (n int) {
		if err := p.db.DB(t).QueryRow(`SELECT SUM(COUNT_STAR) FROM performance_schema.events_statements_summary_global_by_event_name
			WHERE EVENT_NAME IN ('statement/sql/show_binary_log_status','statement/sql/show_master_status')`).Scan(&n); err != nil {
			return -1 // the fence killed this session too
		}
		return n
	}
	before := ends()
	if before < 0 {
		t.Fatal("mysqld does not say what it was asked")
	}
	g.start(p)
	until(t, "the fence", func() bool { return ends() >= before+2 })
	ok := func(s *session, x string) string {
		t.Helper()
		o, err := s.Exec(g.ctx(), x)
		if err != nil {
			t.Fatalf("%s: %v", x, err)
		}
		return o.Trackers.GTID()
	}
	s := g.sessionOn(p, p)
	ok(s, "SET GLOBAL super_read_only=OFF")
	gtids := []string{ok(s, "CREATE TABLE d.gap (id INT PRIMARY KEY)"), ok(s, "INSERT INTO d.gap VALUES (1)")}
	ok(s, "SET GLOBAL super_read_only=ON")
	if p.member.Ready() {
		t.Fatal("the member is ONLINE without a quorum")
	}
	g.regainQuorum()
	g.online(p)
	last := uint64(0)
	for _, x := range gtids {
		if o := g.outcome(p.router.ExpectDirect(x)); !o.Committed || o.N <= last {
			t.Errorf("%s: %+v after %d", x, o, last)
		} else {
			last = o.N
		}
	}
	g.write(g.all[2], "INSERT INTO d.gap VALUES (2)")
	g.equal()
	for _, m := range g.servers() {
		if v := g.value(m, "SELECT GROUP_CONCAT(id ORDER BY id) FROM d.gap"); v != "1,2" {
			t.Errorf("member %d: %s", m.id, v)
		}
	}
}
