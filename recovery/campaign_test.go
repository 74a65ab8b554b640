package recovery

import (
	"testing"

	"cohort/consensus/state"
)

func TestTurn(t *testing.T) {
	m := func(id uint64, s state.MemberState, weight uint64) state.Member {
		return state.Member{ID: id, State: s, Info: state.MemberInfo{Weight: weight}}
	}
	v := &state.View{Members: []state.Member{
		m(1, state.StateOnline, 90), m(2, state.StateOnline, 10), m(3, state.StateOnline, 50), m(4, state.StateRecovering, 99),
	}}
	for _, c := range []struct {
		self, gone uint64
		place      int
		ok         bool
	}{
		{3, 1, 0, true}, // as the next primary
		{2, 1, 1, true},
		{1, 3, 0, true},
		{2, 3, 1, true},
		{2, 4, 2, true},
		{4, 1, 2, false}, // not ONLINE
		{5, 1, 2, false}, // not a member
	} {
		if place, ok := turn(v, c.self, c.gone); place != c.place || ok != c.ok {
			t.Errorf("%d after %d: %d %v", c.self, c.gone, place, ok)
		}
	}
}
