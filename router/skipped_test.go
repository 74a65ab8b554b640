package router

import (
	"errors"
	"testing"
	"testing/synctest"

	"cohort/consensus/state"
)

// After decisions that were never told here, whoever waits gets what the group
// remembers; of what it has forgotten nobody is told that it did not commit.
func TestSkippedDecisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog()
		l.join(self, state.StateOnline)
		l.join(other, state.StateOnline)
		r := newTestRouter(l)
		deliver(r, l)
		r.Tracker(self).AddRange(1, 100)
		r.Tracker(other).AddRange(1, 100)
		kept, forgotten := r.Expect(r.NewXID()), r.Expect(r.NewXID())
		direct, gone := r.ExpectDirect("u:1"), r.ExpectDirect("u:2")
		changed := r.Changed()

		// All is decided, and none of it is told.
		l.decide(committed(kept.key, 1, 7))
		l.decide(state.Decision{Kind: state.KindDirect, Origin: self, Incarnation: 1, LocalGTID: "u:1", Committed: true, N: 8})
		l.appoint(other)
		l.take(1 << 30)
		r.Skipped()
		if o := outcome(t, kept); !o.Committed || o.N != 7 {
			t.Errorf("%+v", o)
		}
		if o := outcome(t, direct); !o.Committed || o.N != 8 {
			t.Errorf("%+v", o)
		}
		for _, tk := range []*Ticket{forgotten, gone} {
			if o, err := tk.Wait(t.Context()); !errors.Is(err, ErrUnknown) {
				t.Errorf("%s: %+v, %v", tk.key, o, err)
			}
			if _, _, err := tk.Verdict(t.Context()); !errors.Is(err, ErrUnknown) {
				t.Errorf("%s: %v", tk.key, err)
			}
		}
		select {
		case <-changed:
		default:
			t.Error("nobody was told of another view")
		}
		// What the present primary may still order stays open.
		later := r.Expect(r.NewXID())
		r.Skipped()
		xid := later.key
		d := committed(xid, 2, 9)
		d.Origin = other
		l.decide(d)
		deliver(r, l)
		if o := outcome(t, later); !o.Committed || o.N != 9 {
			t.Errorf("%+v", o)
		}
	})
}
