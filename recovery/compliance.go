package recovery

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"cohort/internal/mysqld"
	"cohort/internal/pause"
)

// Compliance knows the tables on which the group refuses DML (error 3098), as
// this member's mysqld has them. It may lag behind a definition that was just
// changed elsewhere; what slips through is ordered and applied like any other
// row, so members never differ by it.
type Compliance struct {
	tables atomic.Pointer[compliance]
	// latest is the number of the last direct statement ordered, done that up to
	// which tables is current.
	latest func() uint64
	done   atomic.Uint64
	kick   chan struct{} // cap 1: someone waits for tables to be current
}

func newCompliance(latest func() uint64) *Compliance {
	return &Compliance{latest: latest, kick: make(chan struct{}, 1)}
}

// maxStale bounds how long a statement waits for the definitions of a DDL that
// was just ordered.
const maxStale = time.Second

// current waits, within maxStale, until what is known includes the last DDL.
func (c *Compliance) current() *compliance {
	if n := c.latest(); c.done.Load() < n {
		for deadline := time.Now().Add(maxStale); c.done.Load() < n && time.Now().Before(deadline); {
			select {
			case c.kick <- struct{}{}:
			default:
			}
			<-time.After(time.Millisecond)
		}
	}
	return c.tables.Load()
}

type compliance struct {
	refused  map[mysqld.Table]bool
	foldCase bool
}

// Any says whether there is such a table at all.
func (c *Compliance) Any() bool {
	t := c.current()
	return t != nil && len(t.refused) > 0
}

// Refused says whether DML on a table is refused.
func (c *Compliance) Refused(schema, table string) bool {
	t := c.tables.Load()
	if t == nil {
		return false
	}
	if t.foldCase {
		schema, table = strings.ToLower(schema), strings.ToLower(table)
	}
	return t.refused[mysqld.Table{Schema: schema, Name: table}]
}

// refresh asks mysqld.
func (c *Compliance) refresh(ctx context.Context, q mysqld.Querier) error {
	list, fold, err := mysqld.Noncompliant(ctx, q)
	if err != nil {
		return err
	}
	t := &compliance{refused: make(map[mysqld.Table]bool, len(list)), foldCase: fold}
	for _, x := range list {
		if fold {
			x.Schema, x.Name = strings.ToLower(x.Schema), strings.ToLower(x.Name)
		}
		t.refused[x] = true
	}
	c.tables.Store(t)
	return nil
}

// compliancePoll is how soon a change of definitions is noticed.
const compliancePoll = 100 * time.Millisecond

// followDefinitions keeps Compliance current: it asks again once a direct
// statement, as all that change definitions are, is visible on this mysqld.
func (l *life) followDefinitions(ctx context.Context) error {
	tracker := l.m.opt.Router.Tracker(l.m.opt.ReplicaID)
	c := l.m.compliance
	for first := true; ; first = false {
		if n := c.latest(); first || n > c.done.Load() && tracker.Contains(n) {
			if err := c.refresh(ctx, l.pool); err != nil {
				return err
			}
			if tracker.Contains(n) {
				c.done.Store(n)
			}
		}
		t := time.NewTimer(compliancePoll)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-c.kick:
			t.Stop()
			// Not again before the statement that it is about can be visible.
			if err := pause.For(ctx, time.Millisecond); err != nil {
				return err
			}
		case <-t.C:
		}
	}
}
