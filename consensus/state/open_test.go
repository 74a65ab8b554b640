package state

import "testing"

// Who has not applied its own Join names its life by the Join.
func TestStateByNonce(t *testing.T) {
	g := newTestGroup(t)
	g.apply(&Join{Member: 2, Replica: 2, Nonce: 555, Info: MemberInfo{UUID: "u2"}})
	report := func(nonce uint64) uint64 { return g.apply(&SetState{Member: 2, Nonce: nonce, State: StateError}) }
	if report(0) != 0 || report(554) != 0 || g.s.member(2).State == StateError {
		t.Error("a report of no life counted")
	}
	if report(555) != 1 || g.s.member(2).State != StateError {
		t.Errorf("%+v", g.s.member(2))
	}
	g.apply(&Join{Member: 2, Replica: 2, Nonce: 556, Info: MemberInfo{UUID: "u2"}})
	if report(555) != 0 || g.s.member(2).State == StateError {
		t.Error("a report of an earlier life counted")
	}
}

// That a primary is open counts for its life and its epoch alone.
func TestOpenEpoch(t *testing.T) {
	g := newTestGroup(t)
	for id := uint64(1); id <= 2; id++ {
		if g.s.member(id) == nil {
			g.apply(&Join{Member: id, Replica: id, Nonce: 100 + id, Info: MemberInfo{UUID: string(rune('a' + id))}})
		}
	}
	open := func(id, epoch uint64, st MemberState) uint64 {
		return g.apply(&SetState{Member: id, Incarnation: g.s.member(id).Incarnation, State: st, Epoch: epoch})
	}
	first, second := g.s.primary, uint64(3)-g.s.primary
	epoch := g.s.epoch
	if open(second, epoch, StateOnline) != 0 || open(first, epoch+1, StateOnline) != 0 || open(first, epoch, StateRecovering) != 0 {
		t.Error("counted for a secondary, another epoch, or a state that is not ONLINE")
	}
	if open(first, epoch, StateOnline) != 1 || g.s.member(first).OpenEpoch != epoch || g.s.member(first).State != StateOnline {
		t.Errorf("%+v", g.s.member(first))
	}
	again, err := Decode(g.s.Encode(nil))
	if err != nil || again.member(first).OpenEpoch != epoch {
		t.Errorf("not kept: %v", err)
	}
	// A state without an epoch leaves it.
	if open(first, 0, StateOnline); g.s.member(first).OpenEpoch != epoch {
		t.Error("forgotten")
	}
	g.apply(&Join{Member: first, Replica: first, Nonce: 999, Info: g.s.member(first).Info})
	if g.s.member(first).OpenEpoch != 0 {
		t.Error("a new life is not open")
	}
}
