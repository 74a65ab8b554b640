package router

import (
	"errors"
	"testing"

	"cohort/consensus/state"
)

// Waits end when the member is out of the group, whatever they wait for, and not
// once it is back. A verdict that is known and visible is told all the same.
func TestAbandon(t *testing.T) {
	l := &viewLog{state.View{Primary: 1, Epoch: 1, Members: []state.Member{{ID: 1, Incarnation: 1}}}}
	r := New(Options{Self: 1, Log: l})
	commit := func(gtid string, n uint64) *Ticket {
		tk := r.ExpectDirect(gtid)
		r.Ordered([]state.Decision{{Kind: state.KindDirect, LocalGTID: gtid, Origin: 1, N: n, Committed: true}})
		return tk
	}
	undecided, hidden, visible := r.ExpectDirect("u:1"), commit("u:2", 2), commit("u:3", 1)
	r.Tracker(1).Add(1)
	ends := make(chan error, 2)
	for _, tk := range []*Ticket{undecided, hidden} {
		go func() {
			_, err := tk.Wait(t.Context())
			ends <- err
		}()
	}
	r.Abandon()
	r.Abandon()
	for range 2 {
		if err := <-ends; !errors.Is(err, ErrLeft) {
			t.Errorf("a wait ended with %v", err)
		}
	}
	if o, err := visible.Wait(t.Context()); err != nil || !o.Committed {
		t.Errorf("%+v %v", o, err)
	}
	if _, err := r.ExpectDirect("u:4").Wait(t.Context()); !errors.Is(err, ErrLeft) {
		t.Errorf("a wait that began later ended with %v", err)
	}
	r.Resume()
	r.Tracker(1).Add(2)
	if o, err := commit("u:5", 2).Wait(t.Context()); err != nil || !o.Committed {
		t.Errorf("%+v %v", o, err)
	}
}
