package recovery

import (
	"testing"

	"cohort/consensus/state"
	"cohort/internal/binlog/groupbinlog"
)

func TestPurgeTarget(t *testing.T) {
	files := []groupbinlog.FileInfo{
		{Size: 100, FirstN: 1, LastN: 10}, {Size: 100, FirstN: 11, LastN: 20}, {Size: 100, FirstN: 21, LastN: 30}, {Size: 50, FirstN: 31, LastN: 33},
	}
	for _, c := range []struct {
		space   int64
		applied uint64
		want    uint64
	}{
		{1000, 33, 0}, {350, 33, 0}, {349, 33, 10}, {200, 33, 20}, {1, 33, 30}, {1, 29, 20}, {1, 9, 0}, {1, 0, 0},
	} {
		if got := purgeTarget(files, c.space, c.applied); got != c.want {
			t.Errorf("space %d, applied %d: %d, want %d", c.space, c.applied, got, c.want)
		}
	}
	if got := purgeTarget(nil, 1, 5); got != 0 {
		t.Errorf("no files: %d", got)
	}
}

func TestNothingIsPurgedThatAMemberMayAskFor(t *testing.T) {
	v := &state.View{Members: []state.Member{{ID: 1, Replica: 1, Applied: 20, Stable: 9},
		{ID: 2, Replica: 2, Applied: 8, Stable: 7, State: state.StateOffline}, {ID: 3, Applied: 5, Stable: 5, State: state.StateOffline}}}
	if got := storedByAll(v, 2); got != 7 {
		t.Errorf("a member that is away was not counted, or one that was taken out was: %d", got)
	}
	if got := storedByAll(v, 3); got != 0 {
		t.Errorf("a member that never joined was not counted: %d", got)
	}
	if got := storedByAll(&state.View{}, 0); got != 0 {
		t.Errorf("no members: %d", got)
	}
}
