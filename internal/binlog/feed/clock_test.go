package feed

import (
	"testing"

	"pgregory.net/rapid"
)

// TestClockModel checks every promise of clock against the plain definition:
// sequence numbers have no gap, and whoever waits for last_committed has waited
// for everything sent up to the dependency.
func TestClockModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(0, 50).Draw(t, "after")
		c := newClock(n)
		sentAs := map[uint64]int64{}
		sent := int64(0)
		for range rapid.IntRange(1, 300).Draw(t, "count") {
			n++
			if rapid.Bool().Draw(t, "skip") {
				c.leaveOut(n)
				continue
			}
			dep := rapid.Uint64Range(0, n-1).Draw(t, "dep")
			last, sequence := c.next(n, dep)
			sent++
			sentAs[n] = sequence
			if sequence != sent {
				t.Fatalf("transaction %d got %d, want %d", n, sequence, sent)
			}
			exact := int64(0)
			for d := dep; d > 0 && exact == 0; d-- {
				exact = sentAs[d]
			}
			switch {
			case sequence == 1 && last != 0:
				t.Fatalf("first transaction depends on %d", last)
			case sequence > 1 && last != max(1, exact):
				t.Fatalf("transaction %d depending on %d: last committed %d, exact %d", n, dep, last, exact)
			}
		}
	})
}

func TestClockForgetsSafely(t *testing.T) {
	c := newClock(0)
	const total = 5 * maxSkips
	for n := uint64(1); n <= total; n++ {
		if n%2 == 0 {
			c.leaveOut(n) // never two in a row: the worst case for memory
			continue
		}
		dep := n / 3
		last, sequence := c.next(n, dep)
		if exact := int64(dep+1) / 2; sequence > 1 && (last < max(1, exact) || last >= sequence) {
			t.Fatalf("transaction %d depending on %d: last committed %d below %d", n, dep, last, exact)
		}
	}
	if len(c.skips) > maxSkips {
		t.Fatalf("%d ranges remembered", len(c.skips))
	}
}
