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
)

// How often mysqld is asked what it has applied: while it lags, and as a sign
// of life otherwise.
const (
	pollBehind = 50 * time.Millisecond
	pollIdle   = time.Second
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

// startFeed points mysqld's receiver at this member's feed and starts it.
func (l *life) startFeed(ctx context.Context) error {
	host, port, err := net.SplitHostPort(l.m.feed.Addr().String())
	if err != nil {
		return fmt.Errorf("the feed's address: %w", err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("the feed's port: %w", err)
	}
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
	if tracker.Low() >= l.joinedAt && l.m.opt.Node.View().Primary == l.m.opt.ReplicaID {
		return nil
	}
	if err := l.startFeed(ctx); err != nil {
		return err
	}
	said := time.Now()
	for tracker.Low() < l.joinedAt {
		if err := l.poll(ctx); err != nil {
			return err
		}
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			l.log.Info().Uint64("applied", tracker.Low()).Uint64("target", l.joinedAt).Msg("catching up")
			if st, err := mysqld.ReadApplierStatus(ctx, l.conn); err != nil {
				return err
			} else if err := st.Err(); err != nil {
				return err
			}
		}
		if err := pause(ctx, pollBehind); err != nil {
			return err
		}
	}
	return nil
}

// poll asks mysqld what it has executed.
func (l *life) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	executed, err := mysqld.GroupExecuted(ctx, l.conn, l.m.opt.GroupName)
	if err != nil {
		return err
	}
	l.m.opt.Router.Tracker(l.m.opt.ReplicaID).AddSet(setOf(executed))
	return nil
}

// runSecondary keeps mysqld applying until it, or ctx, ends.
func (l *life) runSecondary(ctx context.Context) error {
	if err := l.online(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.reportMarks(ctx) })
	g.Go(func() error { return l.follow(ctx) })
	return g.Wait()
}

// follow asks mysqld what it has applied, and whether its applier is well.
func (l *life) follow(ctx context.Context) error {
	tracker := l.m.opt.Router.Tracker(l.m.opt.ReplicaID)
	var lastPoll, lastStatus time.Time
	for {
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
		}
		if err := pause(ctx, pollBehind); err != nil {
			return err
		}
	}
}

func (l *life) checkApplier(ctx context.Context) error {
	st, err := mysqld.ReadApplierStatus(ctx, l.conn)
	if err != nil {
		return err
	}
	return st.Err()
}

// online tells the group that this member serves.
func (l *life) online(ctx context.Context) error {
	if err := l.m.opt.Node.SetState(ctx, state.StateOnline); err != nil {
		return fmt.Errorf("order the state ONLINE: %w", err)
	}
	l.m.ready.Store(true)
	l.log.Info().Uint64("applied", l.m.opt.Router.Tracker(l.m.opt.ReplicaID).Low()).Msg("member is ONLINE")
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
