package router

import (
	"testing"
	"testing/synctest"

	"cohort/consensus/state"
)

func open(tk *Ticket) bool {
	select {
	case <-tk.decided:
		return false
	default:
		return true
	}
}

// What the former primary did not get ordered can never commit, whichever of the
// two incarnations is the higher one.
func TestAppointmentAbortsWhatWasNotOrdered(t *testing.T) {
	for _, first := range []uint64{self, other} {
		l := newFakeLog()
		l.join(first, state.StateOnline)
		l.join(self+other-first, state.StateOnline)
		l.view.Primary = other
		r := newTestRouter(l)
		deliver(r, l)
		old, ordered := r.NewXID(), r.NewXID()
		waiting, committing, direct := r.Expect(old), r.Expect(ordered), r.ExpectDirect("u:1")
		// The view is ahead of what the router was told: the commit came before
		// the appointment and counts.
		l.decide(state.Decision{Kind: state.KindTxn, Origin: other, Incarnation: l.incarnation(other), XID: ordered, Committed: true, N: 1})
		l.appoint(self)
		fresh := r.Expect(r.NewXID())
		r.Tracker(self).Add(1)
		deliver(r, l)
		if o := outcome(t, committing); !o.Committed || o.N != 1 {
			t.Errorf("%+v", o)
		}
		if o := outcome(t, waiting); o.Committed || o.Errno != 3101 {
			t.Errorf("%+v", o)
		}
		if o := outcome(t, r.Expect(old)); o.Committed || o.Errno != 3101 {
			t.Errorf("asked for afterwards: %+v", o)
		}
		if !open(fresh) || !open(direct) {
			t.Error("an appointment aborted what it does not concern")
		}
	}
}

// A new life of a member that is not the primary any more, or not yet, decides
// nothing about the primary's transactions, though the view may say by then that
// it is.
func TestFenceGoesByWhoWasPrimary(t *testing.T) {
	l := newFakeLog()
	l.join(other, state.StateOnline)
	l.join(self, state.StateOnline)
	l.view.Primary = other
	r := newTestRouter(l)
	deliver(r, l)
	xid := r.NewXID()
	tk := r.Expect(xid)
	l.join(self, state.StateOnline)
	l.decide(state.Decision{Kind: state.KindTxn, Origin: other, Incarnation: 1, XID: xid, Committed: true, N: 1})
	l.appoint(self)
	r.Tracker(self).Add(1)
	deliver(r, l)
	if o := outcome(t, tk); !o.Committed {
		t.Errorf("%+v", o)
	}
}

// A committed transaction of a former primary is visible once the new one has
// applied it, also to who began to wait before.
func TestVisibleOnThePrimaryThatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog()
		l.join(other, state.StateOnline)
		l.join(self, state.StateOnline)
		l.view.Primary = other
		r := newTestRouter(l)
		deliver(r, l)
		got := make(chan Outcome, 1)
		xid := r.NewXID()
		tk := r.Expect(xid)
		go func() { got <- outcome(t, tk) }()
		l.decide(state.Decision{Kind: state.KindTxn, Origin: other, Incarnation: 1, XID: xid, Committed: true, N: 7})
		deliver(r, l)
		synctest.Wait()
		l.appoint(self)
		deliver(r, l)
		synctest.Wait()
		r.Tracker(other).Add(7)
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("answered though the present primary does not show it")
		}
		r.Tracker(self).Add(7)
		if o := <-got; !o.Committed || o.N != 7 {
			t.Errorf("%+v", o)
		}
	})
}

// An appointed member takes sessions only when it says that it is open.
func TestPrimaryWaitsUntilOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog()
		l.join(self, state.StateOnline)
		l.join(other, state.StateOnline)
		r := newTestRouter(l)
		if b, err := r.Primary(t.Context()); err != nil || !b.Local || b.Epoch != 1 {
			t.Fatalf("%+v %v", b, err)
		}
		l.view.Members[1].OpenEpoch = 0
		l.appoint(other)
		deliver(r, l)
		got := make(chan Backend, 1)
		go func() {
			b, err := r.Primary(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- b
		}()
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("a primary that is not open was given out")
		}
		l.setState(other, state.StateOnline)
		deliver(r, l)
		if b := <-got; b.Local || b.Epoch != 2 {
			t.Errorf("%+v", b)
		}
	})
}
