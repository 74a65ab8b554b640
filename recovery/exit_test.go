package recovery

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"cohort/consensus/state"
	"cohort/internal/mysqld"
	"cohort/router"
)

func TestEnded(t *testing.T) {
	other := errors.New("mysqld is gone")
	for name, c := range map[string]struct {
		joined bool
		limit  uint64
		ends   []error
		want   []fate
	}{
		"mysqld dies":              {true, 3, []error{other, other, other, other}, []fate{againLater, againLater, againLater, againLater}},
		"replaced":                 {true, 0, []error{errReplaced}, []fate{again}},
		"diverged at first":        {false, 3, []error{ErrDiverged, ErrDiverged}, []fate{againLater, stayOut}},
		"diverged":                 {true, 3, []error{ErrDiverged, ErrDiverged}, []fate{againLater, exitNow}},
		"the applier gave up":      {true, 3, []error{mysqld.ErrApplier, ErrDiverged}, []fate{againLater, exitNow}},
		"once only":                {true, 3, []error{mysqld.ErrApplier, other, mysqld.ErrApplier}, []fate{againLater, againLater, againLater}},
		"expelled":                 {true, 3, []error{errExpelled}, []fate{rejoinQuietly}},
		"expelled, and no tries":   {true, 0, []error{errExpelled}, []fate{exitNow}},
		"no majority":              {true, 2, []error{errMajority, errNotLetIn, errNotLetIn}, []fate{rejoin, rejoinLater, exitNow}},
		"no majority, no tries":    {true, 0, []error{errMajority}, []fate{exitNow}},
		"one try":                  {true, 1, []error{errExpelled, errNotLetIn}, []fate{rejoinQuietly, exitNow}},
		"mysqld dies meanwhile":    {true, 2, []error{errMajority, errNotLetIn, other, errNotLetIn}, []fate{rejoin, rejoinLater, againLater, exitNow}},
		"each loss has its tries":  {true, 2, []error{errMajority, errNotLetIn, errMajority, errNotLetIn}, []fate{rejoin, rejoinLater, rejoin, rejoinLater}},
		"no rows":                  {false, 3, []error{fmt.Errorf("%w: %w", errRows, ErrNoDonor)}, []fate{exitNow}},
		"rows of another group":    {true, 3, []error{fmt.Errorf("%w: %w", errRows, ErrDiverged)}, []fate{exitNow}},
		"other data are no reason": {true, 3, []error{errMajority, fmt.Errorf("%w: %w", errNotLetIn, ErrDiverged)}, []fate{rejoin, againLater}},
	} {
		e := exile{joined: c.joined}
		for i, err := range c.ends {
			if got := e.ended(err, c.limit); got != c.want[i] {
				t.Errorf("%s: %d: fate %d, want %d", name, i, got, c.want[i])
			}
		}
	}
}

func TestMinority(t *testing.T) {
	const limit = 10 * time.Second
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	var k minority
	for _, c := range []struct {
		at              int
		majority, awake bool
		limit           time.Duration
		up              bool
	}{
		{0, true, true, limit, false},
		{1, false, true, limit, false},
		{10, false, true, limit, false},
		{11, true, true, limit, false}, // just in time
		{12, false, true, limit, false},
		{21, false, true, limit, false},
		{22, false, true, 0, false}, // never
		{23, false, true, limit, false},
		{60, false, false, limit, false}, // it stood still
		{69, false, true, limit, false},
		{70, false, true, limit, true},
	} {
		if up := k.take(at(c.at), c.majority, c.awake, c.limit); up != c.up {
			t.Errorf("at %d: %t", c.at, up)
		}
	}
}

// exiting starts a group with a table. No majority counts as lost before
// loseMajority: on a busy machine it may be away for seconds.
func exiting(t *testing.T, servers, voters int, policy Policy, at timing) *testGroup {
	g := emptyGroup(t)
	g.policy, g.timing = policy, &at
	g = startGroup(g, servers, voters)
	g.ddl("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
	g.write(g.all[0], "INSERT INTO d.t VALUES (1)")
	return g
}

// loseMajority takes the first member's majority, which it misses soon.
func (g *testGroup) loseMajority() {
	g.loseQuorum()
	g.all[0].member.ChangePolicy(func(p *Policy) { p.MajorityTimeout = time.Second })
}

// regainMajority brings the others back.
func (g *testGroup) regainMajority() {
	g.all[0].member.ChangePolicy(func(p *Policy) { p.MajorityTimeout = 0 })
	g.regainQuorum()
}

// local says that a member's clients are served by its own mysqld.
func (g *testGroup) local(m *testMember) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	b, err := m.router.Primary(ctx)
	return err == nil && b.Local && b.Epoch == 0
}

// A member without a majority answers those that wait, tries to rejoin, and takes
// its exit action. The group learns that it is out, and START brings it back.
func TestMajorityLostForGood(t *testing.T) {
	g := exiting(t, 1, 2, Policy{AutorejoinTries: 2, ExitAction: ExitOffline},
		timing{rejoinEvery: time.Second, rejoinTry: time.Second, lostAfter: time.Second})
	m := g.all[0]
	s := g.session(m)
	g.loseMajority()
	_, tk, err := s.prepare(g.ctx(), "INSERT INTO d.t VALUES (2)")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tk.Wait(g.ctx()); !errors.Is(err, router.ErrLeft) {
		t.Errorf("who waits for the group is told: %v", err)
	}
	until(t, "the exit", func() bool { return !m.member.Wanted() && g.local(m) })
	until(t, "offline_mode", func() bool { return g.value(m, "SELECT @@offline_mode") == "1" })
	if !m.member.Failed() || m.member.Rejoining() || m.member.Ready() || g.value(m, "SELECT @@super_read_only") != "1" {
		t.Error("it is not out of the group")
	}
	g.regainMajority()
	until(t, "the group knows", func() bool { return g.state(m) == state.StateOffline })
	if m.member.Wanted() {
		t.Error("it came back by itself")
	}
	if err := m.member.Start(g.ctx()); err != nil {
		t.Fatal(err)
	}
	g.online(m)
	if m.member.Failed() || g.local(m) || g.value(m, "SELECT @@offline_mode") != "0" {
		t.Error("it is not back")
	}
	g.write(m, "INSERT INTO d.t VALUES (3)")
	if n := g.value(m, "SELECT COUNT(*) FROM d.t WHERE id <> 2"); n != "2" {
		t.Errorf("%s rows", n)
	}
	g.equal()
}

// A member whose majority returns while it tries to rejoin is ONLINE by itself.
func TestMajorityBackWhileRejoining(t *testing.T) {
	g := exiting(t, 1, 2, Policy{AutorejoinTries: 1000, ExitAction: ExitAbort},
		timing{rejoinEvery: deadline / 2, rejoinTry: 5 * time.Second, lostAfter: time.Second})
	m := g.all[0]
	g.loseMajority()
	until(t, "it is out", func() bool { return m.member.Failed() && g.local(m) })
	if !m.member.Wanted() || g.value(m, "SELECT @@super_read_only") != "1" || g.value(m, "SELECT COUNT(*) FROM d.t") != "1" {
		t.Error("it does not serve reads and wait for the majority")
	}
	until(t, "a try to rejoin has failed", func() bool {
		s := m.member.Stages()
		return len(s) == 1 && s[0].Name == stageAutorejoin && s[0].Completed > 0 && s[0].Estimated == 1000 && !s[0].Since.IsZero()
	})
	g.regainMajority()
	until(t, "it is back", func() bool { return !m.member.Failed() && m.member.Ready() })
	if s := m.member.Stages(); len(s) != 0 {
		t.Errorf("it shows %+v", s)
	}
	g.write(m, "INSERT INTO d.t VALUES (2)")
	g.equal()
}

// Without a timeout a member waits for its majority as long as it takes.
func TestMajorityLostWithoutTimeout(t *testing.T) {
	g := exiting(t, 1, 2, Policy{AutorejoinTries: 0, ExitAction: ExitAbort}, defaultTiming)
	m := g.all[0]
	s := g.session(m)
	g.loseQuorum()
	_, tk, err := s.prepare(g.ctx(), "INSERT INTO d.t VALUES (2)")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second) // longer than the other tests' timeouts
	g.regainQuorum()
	if o := g.outcome(tk); !o.Committed || m.member.Failed() {
		t.Errorf("%+v", o)
	}
	g.equal()
}

// A weight that no majority orders does not keep a member from its end.
func TestEndWithAWeightThatIsNotOrdered(t *testing.T) {
	g := exiting(t, 1, 2, Policy{AutorejoinTries: 0, ExitAction: ExitAbort}, defaultTiming)
	m := g.all[0]
	g.loseQuorum()
	ctx, cancel := context.WithTimeout(g.ctx(), 100*time.Millisecond)
	defer cancel()
	if err := m.member.SetWeight(ctx, 70); err != nil {
		t.Fatal(err)
	}
	m.cancel()
	select {
	case <-m.done:
	case <-g.ctx().Done():
		t.Error("the member does not end")
	}
}

// An expelled member that may not rejoin takes its exit action: ABORT_SERVER
// ends its mysqld and its process.
func TestExpelledAborts(t *testing.T) {
	g := emptyGroup(t)
	told := make(chan error, 4)
	g.policy, g.failed = Policy{ExitAction: ExitAbort}, func(err error) { told <- err }
	g = startGroup(g, 2, 1)
	m, other := g.all[1], g.all[0]
	if err := other.node.SetMemberState(g.ctx(), m.id, g.incarnation(m), state.StateOffline); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-told:
		if !errors.Is(err, ErrAborted) {
			t.Error(err)
		}
	case <-time.After(deadline):
		t.Fatal("it goes on")
	}
	until(t, "its server's end", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s, err := g.dialOn(ctx, m, m)
		if err == nil {
			_ = s.Close()
		}
		return err != nil
	})
	if !m.member.Failed() || m.member.Wanted() || g.state(other) != state.StateOnline {
		t.Error("it is not out of the group")
	}
}

// An expelled member that may rejoin is back at once; one whose data the applier
// cannot change is out, in ERROR.
func TestExpelledAndApplierError(t *testing.T) {
	g := exiting(t, 2, 1, Policy{AutorejoinTries: 3, ExitAction: ExitReadOnly}, defaultTiming)
	m, other := g.all[1], g.all[0]
	before := g.incarnation(m)
	if err := other.node.SetMemberState(g.ctx(), m.id, before, state.StateOffline); err != nil {
		t.Fatal(err)
	}
	until(t, "it is back", func() bool { return g.incarnation(m) > before && m.member.Ready() && g.state(m) == state.StateOnline })
	if m.member.Failed() || m.member.Rejoining() {
		t.Error("it counts as out of the group")
	}
	m.db.SQL(t, "SET sql_log_bin=0", "SET GLOBAL super_read_only=OFF", "INSERT INTO d.t VALUES (5)", "SET GLOBAL super_read_only=ON")
	g.write(other, "INSERT INTO d.t VALUES (5)")
	until(t, "it is out", func() bool { return m.member.Failed() && !m.member.Wanted() && g.local(m) })
	until(t, "the others know", func() bool {
		v, _ := other.node.View().Member(m.id)
		return v.State == state.StateError
	})
	if g.value(m, "SELECT @@super_read_only") != "1" || g.value(m, "SELECT @@offline_mode") != "0" {
		t.Error("its server is not read-only")
	}
	g.write(other, "INSERT INTO d.t VALUES (6)")
	if err := m.member.Stop(g.ctx()); err != nil || m.member.Failed() {
		t.Errorf("STOP: %v; it is OFFLINE after that", err)
	}
}
