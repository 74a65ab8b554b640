package recovery

import (
	"testing"

	"cohort/consensus/state"
)

func TestAdrift(t *testing.T) {
	view := func(primary uint64, s state.MemberState) *state.View {
		return &state.View{Founded: true, Primary: primary, Members: []state.Member{{ID: 1, Incarnation: 1, State: s}, {ID: 2, Incarnation: 2, State: state.StateOnline}}}
	}
	for _, c := range []struct {
		what               string
		v                  *state.View
		ready, unreachable bool
		want               bool
	}{
		{"no group yet", &state.View{}, false, false, false},
		{"no primary", view(0, state.StateOnline), true, false, true},
		{"the primary is heard", view(1, state.StateOnline), true, false, false},
		{"it is not heard", view(1, state.StateOnline), true, true, true},
		{"it is out of the group", view(1, state.StateOffline), true, false, true},
		{"this is the primary", view(2, state.StateOnline), true, false, false},
		{"this was the primary before it began anew", view(2, state.StateOnline), false, false, true},
	} {
		if got := adrift(c.v, 2, c.ready, func(state.Member) bool { return c.unreachable }); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
