package recovery

import (
	"context"
	"sync"
	"time"

	"cohort/internal/mysqld"
	"cohort/internal/pause"
)

// guests are the numbers of direct statements that another member ran and the
// group ordered while this one is the primary: a former primary proposes late
// what it ran and did not get ordered. Everything else in the primary's epoch is
// the primary's own, and withheld from its feed.
type guests struct {
	mu  sync.Mutex
	all map[uint64]bool
	new chan struct{} // capacity 1
}

func newGuests() *guests {
	return &guests{all: make(map[uint64]bool), new: make(chan struct{}, 1)}
}

func (g *guests) add(n uint64) {
	g.mu.Lock()
	g.all[n] = true
	g.mu.Unlock()
	select {
	case g.new <- struct{}{}:
	default:
	}
}

func (g *guests) withheld(n uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.all[n]
}

// missing is one that mysqld does not have.
func (g *guests) missing(contains func(uint64) bool) (n uint64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for n := range g.all {
		if !contains(n) {
			return n, true
		}
	}
	return 0, false
}

// applyGuests lets the feed bring each of them to the primary's mysqld. The
// group ordered it because it conflicts with nothing that was ordered; what is
// prepared here and touches the same will abort, and what is not prepared yet is
// ended when it is in the way.
func (p *primary) applyGuests(ctx context.Context, g *guests) error {
	tracker := p.m.opt.Router.Tracker(p.m.opt.ReplicaID)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-g.new:
		}
		n, ok := g.missing(tracker.Contains)
		if !ok {
			continue
		}
		p.log.Info().Uint64("n", n).Msg("applying a statement that a former primary ran")
		withheld := g.withheld
		p.m.withheld.Store(&withheld)
		if err := p.connectFeed(ctx); err != nil {
			return err
		}
		locks := p.newResolver(lockPatience, true)
		for asked := time.Now(); !tracker.Contains(n); {
			if err := p.poll(ctx); err != nil {
				return err
			}
			if time.Since(asked) >= pollIdle {
				asked = time.Now()
				if err := p.checkApplier(ctx); err != nil {
					return err
				}
			}
			locks.look(ctx, 0)
			if err := pause.For(ctx, pollBehind); err != nil {
				return err
			}
		}
		// A stream decides once about each number: the next guest needs a new one.
		if err := mysqld.StopFeedChannel(ctx, p.pool); err != nil {
			return err
		}
		if _, more := g.missing(tracker.Contains); more {
			select {
			case g.new <- struct{}{}:
			default:
			}
		}
	}
}
