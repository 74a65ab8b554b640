package recovery

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"cohort/consensus/state"
	"cohort/internal/mysqld"
	"cohort/internal/pause"
)

// How often mysqld is asked what it has applied: while it lags, and as a sign
// of life otherwise.
const (
	pollBehind = 50 * time.Millisecond
	pollIdle   = time.Second
	// pollPromotion is how often while the group waits for its new primary.
	pollPromotion = 5 * time.Millisecond
)

// applierSettings are what a mysqld needs to apply the group's transactions in
// order and in parallel.
var applierSettings = map[string]string{
	"replica_preserve_commit_order": "ON",
	// Four times mysqld's default: workers that wait in commit order share a
	// flush of the logs, which is what a secondary at 1/1 is short of.
	"replica_parallel_workers": "16",
	// A function that the primary took must not stop the applier.
	"log_bin_trust_function_creators": "ON",
}

// startFeed has mysqld receive and apply all that the group ordered.
func (l *life) startFeed(ctx context.Context) error {
	if l.feeding {
		return nil
	}
	l.m.withheld.Store(nil)
	if err := l.connectFeed(ctx); err != nil {
		return err
	}
	l.feeding = true
	return nil
}

// connectFeed points mysqld's receiver at this member's feed and starts it.
func (l *life) connectFeed(ctx context.Context) error {
	host, port, err := net.SplitHostPort(l.m.feed.Addr().String())
	if err != nil {
		return fmt.Errorf("the feed's address: %w", err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("the feed's port: %w", err)
	}
	l.connMu.Lock()
	defer l.connMu.Unlock()
	if err := mysqld.SetGlobals(ctx, l.conn, applierSettings); err != nil {
		return err
	}
	src := mysqld.FeedSource{Host: host, Port: n, User: AccountName, Password: l.m.password, GTIDOnly: true}
	if err := mysqld.ConfigureFeedChannel(ctx, l.conn, src); err != nil {
		return err
	}
	return mysqld.StartFeedChannel(ctx, l.conn)
}

// catchUp has mysqld apply everything that was ordered before this life.
func (l *life) catchUp(ctx context.Context) error {
	tracker := l.m.opt.Router.Tracker(l.m.opt.ReplicaID)
	if tracker.Low() >= l.joinedAt && l.appointed() {
		return nil // it may never need the feed
	}
	if err := l.startFeed(ctx); err != nil {
		return err
	}
	said := time.Now()
	locks := l.newResolver(lockPatience, l.appointed())
	for tracker.Low() < l.joinedAt {
		if err := l.poll(ctx); err != nil {
			return err
		}
		locks.look(ctx, tracker.Low())
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			l.log.Info().Uint64("applied", tracker.Low()).Uint64("target", l.joinedAt).Msg("catching up")
			if err := l.checkApplier(ctx); err != nil {
				return err
			}
		}
		if err := pause.For(ctx, pollBehind); err != nil {
			return err
		}
	}
	return nil
}

// poll asks mysqld what it has executed.
func (l *life) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	l.connMu.Lock()
	executed, err := mysqld.GroupExecuted(ctx, l.conn, l.m.opt.GroupName)
	l.connMu.Unlock()
	if err != nil {
		return err
	}
	l.m.opt.Router.Tracker(l.m.opt.ReplicaID).AddSet(setOf(executed))
	return nil
}

// runSecondary keeps mysqld applying until this member is appointed primary, or
// mysqld or ctx ends.
func (l *life) runSecondary(ctx context.Context, g *errgroup.Group) error {
	if err := l.startFeed(ctx); err != nil {
		return err
	}
	if err := l.online(ctx); err != nil {
		return err
	}
	l.startMarks(ctx, g)
	return l.follow(ctx)
}

// startMarks has watermarks reported for the rest of this life.
func (l *life) startMarks(ctx context.Context, g *errgroup.Group) {
	if !l.marking {
		l.marking = true
		g.Go(func() error { return l.reportMarks(ctx) })
	}
}

// follow asks mysqld what it has applied, and whether its applier is well. It
// returns nil once this member is appointed. No query is cut off by that, which
// would cost the life its session.
func (l *life) follow(ctx context.Context) error {
	tracker := l.m.opt.Router.Tracker(l.m.opt.ReplicaID)
	var lastPoll, lastStatus time.Time
	locks := l.newResolver(lockPatience, false)
	for {
		changed := l.m.opt.Router.Changed()
		if l.appointed() {
			return nil
		}
		if behind := tracker.Low() < l.m.opt.Node.LastN(); behind || time.Since(lastPoll) >= pollIdle {
			lastPoll = time.Now()
			if err := l.poll(ctx); err != nil {
				return err
			}
			if time.Since(lastStatus) >= pollIdle {
				lastStatus = lastPoll
				if err := l.checkApplier(ctx); err != nil {
					return err
				}
			}
			if behind {
				locks.look(ctx, tracker.Low())
			} else {
				locks.caughtUp()
			}
		}
		t := time.NewTimer(pollBehind)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-changed:
			t.Stop()
		case <-t.C:
		}
	}
}

func (l *life) checkApplier(ctx context.Context) error {
	st, err := mysqld.ReadApplierStatus(ctx, l.pool)
	if err != nil {
		return err
	}
	return st.Err()
}

// online tells the group that this member serves: a secondary what it has
// applied, a primary also writes.
func (l *life) online(ctx context.Context) (err error) {
	if epoch := l.epoch.Load(); epoch != 0 {
		err = l.m.opt.Node.SetOpen(ctx, epoch)
	} else {
		err = l.m.opt.Node.SetState(ctx, state.StateOnline)
	}
	if err != nil {
		return fmt.Errorf("order the state ONLINE: %w", err)
	}
	l.m.ready.Store(true)
	l.log.Info().Uint64("applied", l.m.opt.Router.Tracker(l.m.opt.ReplicaID).Low()).Msg("member is ONLINE")
	return nil
}
