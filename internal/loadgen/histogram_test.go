package loadgen

import (
	"sort"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBucketsAreContiguous(t *testing.T) {
	for us := uint64(0); us < 1<<16; us++ {
		i := bucketOf(us)
		if us > upper(i) {
			t.Fatalf("%d µs lies above bucket %d (up to %d)", us, i, upper(i))
		}
		if i > 0 && us <= upper(i-1) {
			t.Fatalf("%d µs belongs to bucket %d, not %d", us, i-1, i)
		}
	}
}

// A quantile is never below the exact one and at most one part in 64 above it.
func TestQuantileAgainstSortedValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		us := rapid.SliceOfN(rapid.Int64Range(0, 1<<36), 1, 200).Draw(t, "us")
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		var all, left, right Histogram
		for i, v := range us {
			all.Record(time.Duration(v) * time.Microsecond)
			if i%2 == 0 {
				left.Record(time.Duration(v) * time.Microsecond)
			} else {
				right.Record(time.Duration(v) * time.Microsecond)
			}
		}
		left.Merge(&right)
		if left != all {
			t.Fatal("merged halves differ from the whole")
		}
		sort.Slice(us, func(i, j int) bool { return us[i] < us[j] })
		rank := min(max(int(q*float64(len(us))+0.5), 1), len(us))
		exact := us[rank-1]
		got := all.Quantile(q).Microseconds()
		if got < exact || got > exact+exact/64+1 {
			t.Fatalf("quantile %.3f of %v: %d, exact %d", q, us, got, exact)
		}
		if all.Max().Microseconds() != us[len(us)-1] {
			t.Fatalf("max %v", all.Max())
		}
	})
}

func TestEmptyHistogram(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 || h.Count() != 0 {
		t.Fatal("an empty histogram must say 0")
	}
}
