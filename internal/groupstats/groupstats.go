// Package groupstats counts what the log decided since this process began, by
// the member it came from, as performance_schema.replication_group_member_stats
// shows it. It decides nothing.
package groupstats

import (
	"sync"
	"time"

	"cohort/consensus/state"
)

// maxRuns bounds the runs that are remembered; the oldest are merged.
const maxRuns = 4096

// run is a row of numbers that one member's transactions got: those behind the
// run before it, up to last.
type run struct {
	last   uint64
	origin uint64
}

// Member are the counts of one member.
type Member struct {
	// Proposed and RolledBack are its own transactions.
	Proposed, RolledBack uint64
	// RemoteApplied and RemoteQueued are those of others that are visible on its
	// mysqld, and those that are not yet.
	RemoteApplied, RemoteQueued uint64
}

// Counter counts decisions. It is safe for concurrent use.
type Counter struct {
	mu                 sync.Mutex
	checked, conflicts uint64
	proposed, rolled   map[uint64]uint64
	first              uint64 // the number before the first one seen
	runs               []run
	latest             time.Time
}

// New returns a counter.
func New() *Counter {
	return &Counter{proposed: make(map[uint64]uint64), rolled: make(map[uint64]uint64)}
}

// Ordered takes decisions in the order of the log.
func (c *Counter) Ordered(ds []state.Decision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latest = time.Now()
	for i := range ds {
		d := &ds[i]
		if d.Kind != state.KindTxn && d.Kind != state.KindDirect || d.Repeated {
			continue
		}
		c.checked++
		c.proposed[d.Origin]++
		if !d.Committed {
			c.rolled[d.Origin]++
			if d.Reason == state.ReasonConflict || d.Reason == state.ReasonHorizon {
				c.conflicts++
			}
			continue
		}
		switch n := len(c.runs); {
		case n == 0:
			c.first = d.N - 1
			fallthrough
		case c.runs[n-1].origin != d.Origin:
			if n == maxRuns {
				c.first = c.runs[0].last
				c.runs = append(c.runs[:0], c.runs[1:]...)
			}
			c.runs = append(c.runs, run{d.N, d.Origin})
		default:
			c.runs[n-1].last = d.N
		}
	}
}

// Latest is when this member last learned of a decision, zero for never.
func (c *Counter) Latest() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest
}

// Checked is how many transactions were certified, Conflicts how many of them
// lost against another one.
func (c *Counter) Checked() (checked, conflicts uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.checked, c.conflicts
}

// Of returns the counts of the member id, on whose mysqld the numbers up to
// applied are visible.
func (c *Counter) Of(id, applied uint64) Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := Member{Proposed: c.proposed[id], RolledBack: c.rolled[id]}
	from := c.first
	for _, r := range c.runs {
		if r.origin != id {
			done := min(max(applied, from), r.last) - from
			m.RemoteApplied += done
			m.RemoteQueued += r.last - from - done
		}
		from = r.last
	}
	return m
}
