package capture

import (
	"slices"
	"strconv"
	"strings"

	"cohort/internal/binlog"
)

// tracker knows which of the group's numbers this binary log holds so far.
//
// A number enters when its own event (XA COMMIT, or a transaction that was fed)
// or the empty transaction that stands for a direct statement goes by: in each
// case the data of that number are in this database before anything that
// follows in the binary log. For an empty one that is later than necessary,
// never too early; the state machine counts the origin's own direct statements
// from their own event on.
type tracker struct {
	low   uint64
	extra []uint64 // sorted, all above low+1
}

func (t *tracker) add(n uint64) {
	switch {
	case n <= t.low:
		return
	case n == t.low+1:
		t.low++
		t.absorb()
	default:
		// binlog_order_commits=OFF lets numbers overtake each other, by no more
		// than there are commits in flight.
		if i, found := slices.BinarySearch(t.extra, n); !found {
			t.extra = slices.Insert(t.extra, i, n)
		}
	}
}

// absorb moves what follows low out of extra.
func (t *tracker) absorb() {
	i := 0
	for i < len(t.extra) && t.extra[i] <= t.low+1 {
		t.low = max(t.low, t.extra[i])
		i++
	}
	t.extra = slices.Delete(t.extra, 0, i)
}

// union adds all of s.
func (t *tracker) union(s binlog.Intervals) {
	for _, iv := range s {
		if iv.Start <= t.low+1 {
			t.low = max(t.low, iv.End)
			t.absorb()
			continue
		}
		for n := iv.Start; n <= iv.End; n++ {
			t.add(n)
		}
	}
}

func (t *tracker) snapshot() Snapshot {
	s := Snapshot{Low: t.low}
	if len(t.extra) > 0 {
		s.Extra = slices.Clone(t.extra)
	}
	return s
}

func fileBefore(a, b string) bool {
	na, oka := fileNumber(a)
	nb, okb := fileNumber(b)
	if oka && okb {
		return na < nb
	}
	return a < b
}

func fileNumber(name string) (uint64, bool) {
	i := strings.LastIndexByte(name, '.')
	n, err := strconv.ParseUint(name[i+1:], 10, 64)
	return n, err == nil
}
