package groupstats

import (
	"testing"

	"cohort/consensus/state"
)

func txn(origin, n uint64) state.Decision {
	return state.Decision{Kind: state.KindTxn, Origin: origin, N: n, Committed: n > 0}
}

func TestCounts(t *testing.T) {
	c := New()
	if m := c.Of(1, 100); m != (Member{}) {
		t.Errorf("before anything: %+v", m)
	}
	lost := txn(1, 0)
	lost.Reason = state.ReasonConflict
	old := txn(1, 0)
	old.Reason = state.ReasonEpoch
	again := txn(1, 11)
	again.Repeated = true
	direct := txn(2, 14)
	direct.Kind = state.KindDirect
	// 11 and 12 by member 1, then 13 and 14 by member 2 and 15 by member 1.
	c.Ordered([]state.Decision{txn(1, 11), lost, {Kind: state.KindWatermark, Origin: 3, N: 9, Committed: true}, txn(1, 12)})
	c.Ordered([]state.Decision{again, old, txn(2, 13), direct, txn(1, 15)})
	if checked, conflicts := c.Checked(); checked != 7 || conflicts != 1 {
		t.Errorf("checked %d, conflicts %d", checked, conflicts)
	}
	for _, x := range []struct {
		id, applied uint64
		want        Member
	}{
		{1, 15, Member{Proposed: 5, RolledBack: 2, RemoteApplied: 2}},
		{1, 12, Member{Proposed: 5, RolledBack: 2, RemoteQueued: 2}},
		{2, 12, Member{Proposed: 2, RemoteApplied: 2, RemoteQueued: 1}},
		{3, 13, Member{RemoteApplied: 3, RemoteQueued: 2}},
		{3, 5, Member{RemoteQueued: 5}},
		{3, 99, Member{RemoteApplied: 5}},
	} {
		if got := c.Of(x.id, x.applied); got != x.want {
			t.Errorf("member %d at %d: %+v, want %+v", x.id, x.applied, got, x.want)
		}
	}
}

func TestRunsAreBounded(t *testing.T) {
	c := New()
	for n := uint64(1); n <= 3*maxRuns; n++ {
		c.Ordered([]state.Decision{txn(n%2+1, n)})
	}
	if len(c.runs) != maxRuns {
		t.Errorf("%d runs", len(c.runs))
	}
	if m := c.Of(3, 3*maxRuns); m.RemoteApplied != maxRuns || m.RemoteQueued != 0 {
		t.Errorf("%+v", m)
	}
}
