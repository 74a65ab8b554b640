package recovery

import (
	"errors"
	"fmt"
	"testing"

	"cohort/consensus/state"
	"cohort/internal/binlog/groupbinlog"
)

// writeMuch orders about 20 MB that compression does not make small.
func (g *testGroup) writeMuch(round int) {
	g.t.Helper()
	s := g.session(g.primary())
	for i := range 40 {
		o, err := s.commit(g.ctx(), fmt.Sprintf("INSERT INTO d.away (id, pad) VALUES (%d, REPEAT('%c', 500000))", round*1000+i, 'a'+i%26))
		if err != nil || !o.Committed {
			g.t.Fatalf("%+v, %v", o, err)
		}
	}
}

// outlive writes until the logs of all others no longer have what m lacks.
func (g *testGroup) outlive(applied uint64, others ...*testMember) {
	g.t.Helper()
	round := 0
	until(g.t, "the log to be compacted", func() bool {
		round++
		g.writeMuch(round)
		for _, o := range others {
			if o.node.LogBegins() <= applied+1 {
				return false
			}
		}
		return true
	})
}

// A member whose process and mysqld were away until the log was compacted beyond
// it fetches from another member's group binlog what it lacks. While nobody can give
// it, it takes its exit action and everybody sees it in ERROR, also if its process ended during
// the fetch; a START tries again. It is a member as before, though the processes of all
// donors begin anew before it is back: what it was sent says where they were.
func TestMemberWasAwayForTooLong(t *testing.T) {
	g := newGroupKeeping(t, 8<<20, 3, 0)
	g.ddl("CREATE DATABASE d", "CREATE TABLE d.away (id INT PRIMARY KEY, pad LONGTEXT)")
	g.write(g.primary(), "INSERT INTO d.away VALUES (1, 'here')")
	away := g.all[2]
	until(t, "the member has it", func() bool { return away.router.Tracker(away.id).Low() >= g.primary().node.LastN() })
	applied := away.node.Applied()
	g.stop(away)
	away.db.Kill(t)
	g.outlive(applied, g.all[0], g.all[1])
	g.write(g.primary(), "DELETE FROM d.away WHERE id < 10", "INSERT INTO d.away VALUES (2, 'gone on')")

	donors := g.all[:2]
	for _, d := range donors {
		d.store.Limit(1) // it has not got everything
	}
	away.db.Restart(t)
	g.start(away)
	seen := func(what state.MemberState) {
		t.Helper()
		until(t, "the others see it "+what.String(), func() bool {
			for _, d := range donors {
				if v, _ := d.node.View().Member(away.id); v.State != what {
					return false
				}
			}
			return true
		})
	}
	givesUp := func() {
		t.Helper()
		away.donors.SetRetryCount(2)
		until(t, "the member has given up", away.member.Failed)
		if err := away.member.LastError(); !errors.Is(err, ErrNoDonor) || away.member.Wanted() {
			t.Errorf("it is wanted: %t, it failed with %v", away.member.Wanted(), err)
		}
		seen(state.StateError)
	}
	givesUp()
	for _, d := range donors {
		d.store.Limit(groupbinlog.NoLimit)
	}
	away.stall.Store(true)
	if err := away.member.Start(g.ctx()); err != nil {
		t.Fatal(err)
	}
	until(t, "rows are fetched", func() bool { return away.rows.Load() > 0 })
	seen(state.StateRecovering)
	g.stop(away)
	away.stall.Store(false)
	for _, d := range donors {
		d.store.Limit(1)
	}
	g.start(away)
	givesUp()
	g.stop(away)
	for _, d := range donors {
		g.stop(d)
		g.start(d)
		g.online(d)
	}
	g.start(away)
	g.online(away)
	g.equal()
	// It takes part in everything.
	g.write(away, "INSERT INTO d.away VALUES (3, 'back')")
	g.stop(g.all[0])
	until(t, "another primary", func() bool {
		v := away.node.View()
		return v.Primary != 1 && g.state(g.all[v.Primary-1]) == state.StateOnline
	})
	g.write(away, "INSERT INTO d.away VALUES (4, 'after a failover')")
	g.start(g.all[0])
	g.online(g.all[0])
	g.equal()
}
