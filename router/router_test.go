package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"cohort/consensus/state"
	"cohort/internal/committer"
)

func committed(xid string, incarnation, n uint64) state.Decision {
	return state.Decision{Kind: state.KindTxn, Origin: self, Incarnation: incarnation, XID: xid, Committed: true, N: n}
}

func deliver(r *Router, l *fakeLog) { r.Ordered(l.take(1 << 30)) }

// outcome waits for a ticket; it fails the test after a time that is never
// reached when all goes well.
func outcome(t *testing.T, tk *Ticket) Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o, err := tk.Wait(ctx)
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	return o
}

// The member that orders a transaction hears of who will wait for it before it does.
func TestExpectAnnounces(t *testing.T) {
	l := newFakeLog()
	l.join(self, state.StateOnline)
	r := newTestRouter(l)
	deliver(r, l)
	announced := 0
	r.Tracker(l.View().Primary).OnWait(func() { announced++ })
	r.Expect(r.NewXID()).Cancel()
	r.ExpectDirect("server:1").Cancel()
	if announced != 2 {
		t.Errorf("announced %d times", announced)
	}
}

func TestCommittedOnlyOnceVisible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog()
		l.join(self, state.StateOnline)
		r := newTestRouter(l)
		deliver(r, l)
		xid := r.NewXID()
		tk := r.Expect(xid)
		got := make(chan Outcome, 1)
		go func() { got <- outcome(t, tk) }()
		l.decide(committed(xid, 1, 7))
		deliver(r, l)
		synctest.Wait()
		select {
		case o := <-got:
			t.Fatalf("answered %+v before it is visible", o)
		default:
		}
		r.Tracker(self).Add(6)
		synctest.Wait()
		if len(got) > 0 {
			t.Fatal("another number made it visible")
		}
		r.Tracker(self).Add(7)
		if o := <-got; !o.Committed || o.N != 7 || o.GTID != "group:7" {
			t.Fatalf("%+v", o)
		}
		if len(r.xids.open) != 0 {
			t.Error("the ticket is still in the table")
		}
	})
}

func TestVerdictBeforeExpectIsFound(t *testing.T) {
	l := newFakeLog()
	l.join(self, state.StateOnline)
	r := newTestRouter(l)
	xid := r.NewXID()
	l.decide(committed(xid, 1, 3))
	deliver(r, l)
	r.Tracker(self).Add(3)
	if o := outcome(t, r.Expect(xid)); !o.Committed || o.N != 3 {
		t.Fatalf("%+v", o)
	}
	d := state.Decision{Kind: state.KindDirect, Origin: self, Incarnation: 1, LocalGTID: "u:1", Committed: true, N: 4}
	l.decide(d)
	deliver(r, l)
	r.Tracker(self).Add(4)
	if o := outcome(t, r.ExpectDirect("u:1")); !o.Committed || o.N != 4 {
		t.Fatalf("%+v", o)
	}
}

// A commit and the fence of the next incarnation may both be ordered while
// Expect looks: the verdict counts, wherever between its two looks they come.
func TestFenceNeverHidesAVerdict(t *testing.T) {
	for call := 0; call < 3; call++ {
		l := newFakeLog()
		l.join(self, state.StateOnline)
		r := newTestRouter(l)
		deliver(r, l)
		xid := r.NewXID()
		r.Tracker(self).Add(1)
		calls := 0
		l.between = func() {
			if calls == call {
				l.decide(committed(xid, 1, 1))
				l.join(self, state.StateRecovering)
			}
			calls++
		}
		tk := r.Expect(xid)
		l.between = nil
		deliver(r, l)
		if calls != 3 {
			t.Fatalf("Expect looked %d times: this test no longer covers its gaps", calls)
		}
		if o := outcome(t, tk); !o.Committed {
			t.Fatalf("gap %d: a committed transaction was reported as aborted: %+v", call, o)
		}
	}
}

func TestFenceAbortsWhatWasNotProposed(t *testing.T) {
	l := newFakeLog()
	l.join(self, state.StateOnline)
	r := newTestRouter(l)
	deliver(r, l)
	old := r.NewXID()
	waiting := r.Expect(old)
	direct := r.ExpectDirect("u:5")
	l.join(other, state.StateOnline) // somebody else's life fences nothing here
	deliver(r, l)
	select {
	case <-waiting.decided:
		t.Fatal("fenced by another member's incarnation")
	default:
	}
	l.join(self, state.StateRecovering)
	deliver(r, l)
	if o := outcome(t, waiting); o.Committed || o.Errno != 3101 || o.SQLState != "40000" {
		t.Fatalf("%+v", o)
	}
	// Too late to be told by the fence: has to see it by itself.
	if o := outcome(t, r.Expect(old)); o.Committed || o.Errno != 3101 {
		t.Fatalf("%+v", o)
	}
	// One of the new life, and a direct statement, which no fence can abort.
	fresh := r.Expect(r.NewXID())
	for _, tk := range []*Ticket{fresh, direct} {
		select {
		case <-tk.decided:
			t.Fatalf("%q was aborted by a fence that does not concern it", tk.key)
		default:
		}
	}
}

// After a crash of mysqld the start-up sequence and the session that ran a
// direct statement wait for the same verdict.
func TestSeveralTicketsForOneKey(t *testing.T) {
	l := newFakeLog()
	l.join(self, state.StateOnline)
	r := newTestRouter(l)
	deliver(r, l)
	a, b, c, d := r.ExpectDirect("u:9"), r.ExpectDirect("u:9"), r.ExpectDirect("u:9"), r.ExpectDirect("u:9")
	c.Cancel()
	a.Cancel()
	d.Cancel()
	e := r.ExpectDirect("u:9")
	l.decide(state.Decision{Kind: state.KindDirect, Origin: self, Incarnation: 1, LocalGTID: "u:9", Committed: true, N: 1})
	r.Tracker(self).Add(1)
	deliver(r, l)
	for _, tk := range []*Ticket{b, e} {
		if o := outcome(t, tk); o.N != 1 {
			t.Fatalf("%+v", o)
		}
	}
	for _, tk := range []*Ticket{a, c, d} {
		select {
		case <-tk.decided:
			t.Error("a cancelled ticket was told")
		default:
		}
	}
	if n := len(r.directs.open); n != 0 {
		t.Errorf("%d keys left in the table", n)
	}
}

func TestWaitThatGivesUpLeavesNothing(t *testing.T) {
	l := newFakeLog()
	l.join(self, state.StateOnline)
	r := newTestRouter(l)
	cause := errors.New("client went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for _, tk := range []*Ticket{r.Expect(r.NewXID()), r.ExpectDirect("u:1")} {
		if _, err := tk.Wait(ctx); !errors.Is(err, cause) {
			t.Errorf("Wait: %v", err)
		}
	}
	if len(r.xids.open)+len(r.directs.open) != 0 {
		t.Error("tickets left in the table")
	}
}

func TestAbortsTellTheirReason(t *testing.T) {
	l := newFakeLog()
	l.join(self, state.StateOnline)
	r := newTestRouter(l)
	for errno, sqlstate := range map[uint16]string{3098: "HY000", 3100: "HY000", 3101: "40000", 0: "40000"} {
		xid := r.NewXID()
		tk := r.Expect(xid)
		l.decide(state.Decision{Kind: state.KindTxn, Origin: self, Incarnation: 1, XID: xid, Errno: errno})
		deliver(r, l)
		want := errno
		if errno == 0 {
			want = 3101
		}
		if o := outcome(t, tk); o.Committed || o.Errno != want || o.SQLState != sqlstate || o.Message == "" {
			t.Errorf("%d: %+v", errno, o)
		}
	}
	xid := r.NewXID()
	tk := r.Expect(xid)
	l.decide(state.Decision{Kind: state.KindAbort, XID: xid, Errno: 3101, Reason: state.ReasonForced})
	deliver(r, l)
	if o := outcome(t, tk); o.Committed || o.Errno != 3101 {
		t.Errorf("forced: %+v", o)
	}
}

func TestPrimaryWaitsUntilOnline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog()
		r := newTestRouter(l)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Primary(ctx); !errors.Is(err, ErrNoPrimary) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Primary: %v", err)
		}
		got := make(chan Backend, 1)
		go func() {
			b, err := r.Primary(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- b
		}()
		l.join(self, state.StateRecovering)
		deliver(r, l)
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("a primary that is recovering was given out")
		}
		l.setState(self, state.StateOnline)
		deliver(r, l)
		if b := <-got; b.Network != "unix" || b.Addr != "/sock" || !b.Local {
			t.Fatalf("%+v", b)
		}
		l.mu.Lock()
		l.view.Primary = other
		l.mu.Unlock()
		l.join(other, state.StateOnline)
		deliver(r, l)
		if b, err := r.Primary(t.Context()); err != nil || b.Network != "tcp" || b.Addr != "host:1" || b.Local {
			t.Fatalf("%+v %v", b, err)
		}
	})
}

func TestCloseEndsEveryWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog()
		l.join(self, state.StateOnline)
		r := newTestRouter(l)
		deliver(r, l)
		xid := r.NewXID()
		undecided, invisible, direct := r.Expect(r.NewXID()), r.Expect(xid), r.ExpectDirect("u:1")
		l.decide(committed(xid, 1, 1))
		l.setState(self, state.StateOffline)
		deliver(r, l)
		errs := make(chan error, 4)
		for _, tk := range []*Ticket{undecided, invisible, direct} {
			go func() {
				_, err := tk.Wait(t.Context())
				errs <- err
			}()
		}
		go func() {
			_, err := r.Primary(t.Context())
			errs <- err
		}()
		synctest.Wait()
		if len(errs) != 0 {
			t.Fatal("a wait ended early")
		}
		r.Close()
		r.Close()
		for range 4 {
			if err := <-errs; !errors.Is(err, ErrClosed) {
				t.Errorf("%v", err)
			}
		}
		if len(r.xids.open)+len(r.directs.open) != 0 {
			t.Error("tickets left in the table")
		}
	})
}

// Verdicts on the present life of the local mysqld go to its committer, once
// each and in the order of the log; others do not.
func TestOriginGetsItsOwnVerdicts(t *testing.T) {
	l := newFakeLog()
	l.join(self, state.StateOnline)
	r := newTestRouter(l)
	var jobs []committer.Job
	told := &verdicts{submit: func(js ...committer.Job) { jobs = append(jobs, js...) }}
	r.SetOrigin(1, told)
	txn := func(xid string, origin, inc, n uint64) state.Decision {
		return state.Decision{Kind: state.KindTxn, Origin: origin, Incarnation: inc, XID: xid, Committed: n > 0, N: n}
	}
	direct := state.Decision{Kind: state.KindDirect, Origin: self, Incarnation: 1, LocalGTID: "u:1", Committed: true, N: 3}
	refused := direct
	refused.Committed, refused.N, refused.LocalGTID = false, 0, "u:2"
	again := txn("a", self, 1, 1)
	again.Repeated = true
	r.Ordered([]state.Decision{txn("a", self, 1, 1), txn("b", self, 1, 0), txn("c", self, 2, 2), txn("d", other, 1, 2), direct, refused, again})
	want := []committer.Job{{Kind: committer.Commit, XID: "a", N: 1}, {Kind: committer.Rollback, XID: "b"}, {Kind: committer.Empty, N: 3, LocalGTID: "u:1"}}
	if len(jobs) != len(want) {
		t.Fatalf("%+v", jobs)
	}
	for i := range want {
		if jobs[i] != want[i] {
			t.Errorf("job %d: %+v, want %+v", i, jobs[i], want[i])
		}
	}
	r.Expect("cohort.01234567.1.1.x").Prepared()
	r.Prepared("of another member's session")
	r.SetOrigin(0, nil)
	r.Prepared("nobody")
	if !slices.Equal(told.prepared, []string{"cohort.01234567.1.1.x", "of another member's session"}) {
		t.Errorf("told of %q", told.prepared)
	}
	r.Ordered([]state.Decision{txn("e", self, 1, 5)})
	if len(jobs) != len(want) {
		t.Error("a verdict went to a committer that is gone")
	}
}

// A session of another member's client has the primary told.
func TestPreparedIsToldToThePrimary(t *testing.T) {
	l := newFakeLog()
	l.view.Primary = other
	r := newTestRouter(l)
	ticket := r.Expect("cohort.01234567.1.1.x")
	ticket.Prepared() // no teller yet
	var told []string
	r.SetTeller(func(id uint64, xid string) { told = append(told, fmt.Sprint(id, " ", xid)) })
	ticket.Prepared()
	if !slices.Equal(told, []string{"2 cohort.01234567.1.1.x"}) {
		t.Errorf("told %q", told)
	}
}
