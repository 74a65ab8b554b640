package applied

import (
	"slices"
	"sort"
)

// Range is the transaction numbers From..To, both inclusive. From > To is empty.
type Range struct{ From, To uint64 }

// Set is an immutable picture of an applied set: 1..Low, and the ranges above
// it. Extra is sorted, its ranges neither touch each other nor Low.
type Set struct {
	Low   uint64
	Extra []Range
}

// Contains reports whether n is in the set. 0 always is: it stands for "nothing
// to wait for".
func (s Set) Contains(n uint64) bool {
	if n <= s.Low {
		return true
	}
	i := sort.Search(len(s.Extra), func(i int) bool { return s.Extra[i].To >= n })
	return i < len(s.Extra) && s.Extra[i].From <= n
}

// Max returns the highest number in the set, 0 if it is empty.
func (s Set) Max() uint64 {
	if n := len(s.Extra); n > 0 {
		return s.Extra[n-1].To
	}
	return s.Low
}

// Ranges returns the whole set as sorted ranges.
func (s Set) Ranges() []Range {
	var out []Range
	if s.Low > 0 {
		out = append(out, Range{1, s.Low})
	}
	return append(out, s.Extra...)
}

// Numbers returns the numbers above Low one by one, sorted; at most limit of
// them (limit < 0: all). It is the form certification snapshots take.
func (s Set) Numbers(limit int) []uint64 {
	var out []uint64
	for _, r := range s.Extra {
		for n := r.From; ; n++ {
			if limit >= 0 && len(out) == limit {
				return out
			}
			out = append(out, n)
			if n == r.To {
				break
			}
		}
	}
	return out
}

// insert adds r to the set, keeping its invariants. In the usual case (numbers
// arrive nearly in order) it looks only at the end of Extra.
func (s *Set) insert(r Range) {
	if r.From == 0 {
		r.From = 1
	}
	if r.To <= s.Low || r.From > r.To {
		return
	}
	if r.From > s.Low+1 {
		s.Extra = insertRange(s.Extra, r)
		return
	}
	s.Low = r.To
	// Low may have reached ranges above: swallow them. Low is never the largest
	// uint64 in practice; the comparison avoids the overflow all the same.
	used := 0
	for used < len(s.Extra) && s.Extra[used].From-1 <= s.Low {
		s.Low = max(s.Low, s.Extra[used].To)
		used++
	}
	s.Extra = slices.Delete(s.Extra, 0, used)
}

// insertRange adds r to the sorted, disjoint, non-touching ranges rs.
func insertRange(rs []Range, r Range) []Range {
	// i..j are the ranges that r overlaps or touches.
	i := len(rs)
	for i > 0 && rs[i-1].To >= r.From-1 {
		i--
	}
	j := i
	for j < len(rs) && rs[j].From-1 <= r.To {
		j++
	}
	if i == j {
		return slices.Insert(rs, i, r)
	}
	r.From = min(r.From, rs[i].From)
	r.To = max(r.To, rs[j-1].To)
	rs[i] = r
	return slices.Delete(rs, i+1, j)
}
