package feed

import "slices"

// clock renumbers transactions for one stream: the i-th transaction sent gets
// sequence number i, and a dependency on N becomes the number of transactions
// sent up to N.
//
// A dependency on something that this stream leaves out is one on what was sent
// before it. That is right for what the receiver executed already; for a
// withheld transaction the rows' locks in the receiving server keep the order.
type clock struct {
	sent int64  // transactions numbered so far
	last uint64 // highest N numbered or left out
	// skips are the ranges left out, ascending. Before the first of them
	// horizon holds: every N below skips[0].from counts as horizon.
	skips []skip
	exact bool // no skip was forgotten yet
	base  uint64
}

type skip struct {
	from, to uint64
	before   int64 // transactions sent with N < from
}

// maxSkips bounds a stream's memory of what it left out.
const maxSkips = 4096

// newClock starts behind afterN, everything up to which the receiver has.
func newClock(afterN uint64) *clock { return &clock{last: afterN, base: afterN, exact: true} }

// leaveOut notes that n, which is above everything seen before, is not sent.
func (c *clock) leaveOut(n uint64) {
	c.last = n
	if k := len(c.skips); k > 0 && c.skips[k-1].to == n-1 {
		c.skips[k-1].to = n
		return
	}
	if len(c.skips) == maxSkips {
		c.skips = slices.Delete(c.skips, 0, maxSkips/2)
		c.exact = false
	}
	c.skips = append(c.skips, skip{from: n, to: n, before: c.sent})
}

// next numbers transaction n, which is above everything seen before and depends
// on dep < n. lastCommitted is 0 only for the first of a stream: 0 makes an
// applier run a transaction alone.
func (c *clock) next(n, dep uint64) (lastCommitted, sequence int64) {
	c.last = n
	c.sent++
	if c.sent == 1 {
		return 0, 1
	}
	return max(1, min(c.upTo(dep), c.sent-1)), c.sent
}

// upTo returns how many of the transactions sent have a number of at most n; it
// may return more if n lies before what is remembered, never fewer: waiting for
// more is always safe.
func (c *clock) upTo(n uint64) int64 {
	i, _ := slices.BinarySearchFunc(c.skips, n, func(s skip, n uint64) int {
		if s.from <= n {
			return -1
		}
		return 1
	})
	switch {
	case i > 0: // skips[i-1] begins at or before n
		s := c.skips[i-1]
		if n <= s.to {
			return s.before
		}
		return s.before + int64(n-s.to)
	case !c.exact:
		return c.skips[0].before
	case n <= c.base:
		return 0
	}
	return int64(n - c.base)
}
