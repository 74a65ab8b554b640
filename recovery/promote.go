package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"cohort/consensus/state"
	"cohort/internal/pause"
)

var (
	// errReplaced ends the life of a primary when another member, or the same one
	// for another epoch, is appointed.
	errReplaced = errors.New("another primary was appointed")
	// errExpelled ends a life that the group counts as over.
	errExpelled = errors.New("the group has declared this member OFFLINE")
)

// appointed says whether the group wants this member as its primary.
func (l *life) appointed() bool { return l.m.opt.Node.View().Primary == l.m.opt.ReplicaID }

// replaced says whether this life is primary of an epoch that has ended.
func (l *life) replaced() bool {
	v, mine := l.m.opt.Node.View(), l.epoch.Load()
	return mine != 0 && (v.Primary != l.m.opt.ReplicaID || v.Epoch != mine)
}

// watch ends a life that the group has ended: as primary, because there is
// another one; as a member, because it was taken for dead, or because the group
// refused what mysqld had committed already (DESIGN §3, direct statements).
func (l *life) watch(ctx context.Context) error {
	for {
		changed := l.m.opt.Router.Changed()
		m, _ := l.m.opt.Node.View().Member(l.m.opt.ReplicaID)
		switch {
		case l.reported.Load(): // it ends for a reason of its own
		case l.replaced():
			l.writable.Store(false)
			if f := l.lastly.Load(); f != nil {
				(*f)(ctx)
			}
			return errReplaced
		case m.Incarnation != l.incarnation || m.State == state.StateOffline:
			return errExpelled
		case m.State == state.StateError:
			return fmt.Errorf("%w: the group refused a statement that it had run", ErrDiverged)
		}
		t := time.NewTimer(pollIdle)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-changed:
			t.Stop()
		case <-t.C: // the view may come by a snapshot of the log, without a word
		}
	}
}

// promote makes the mysqld of this life the one that takes writes. Until it has
// everything that was ordered before, it stays read-only, and nobody but the
// feed writes to it; then the feed is stopped.
//
// From here on the life stands and falls with the epoch. If another one begins,
// a new life follows, and so an incarnation proposes transactions in one epoch
// only: routers rely on it (see router, fences).
func (l *life) promote(ctx context.Context, g *errgroup.Group) error {
	v := l.m.opt.Node.View()
	if v.Primary != l.m.opt.ReplicaID {
		return errReplaced
	}
	l.epoch.Store(v.Epoch)
	began := time.Now()
	// Before the backlog: what comes later than its end must not be missed.
	guests := newGuests()
	l.m.opt.Router.SetGuest(guests.add)
	defer l.m.opt.Router.SetGuest(nil)
	if err := l.applyBacklog(ctx); err != nil {
		return err
	}
	l.log.Info().Uint64("epoch", v.Epoch).Uint64("last_ordered", l.m.opt.Node.LastN()).Dur("backlog", time.Since(began)).
		Msg("this member is the primary")
	return l.runPrimary(ctx, g, guests)
}

// applyBacklog has the feed bring everything that was ordered so far. In the new
// epoch nothing follows that this member does not order itself, except what guests
// are for.
func (l *life) applyBacklog(ctx context.Context) error {
	tracker := l.m.opt.Router.Tracker(l.m.opt.ReplicaID)
	asked := time.Now()
	locks := l.newResolver(promotionPatience, true)
	for target := l.m.opt.Node.LastN(); tracker.Low() < target; {
		if err := l.startFeed(ctx); err != nil {
			return err
		}
		if err := l.poll(ctx); err != nil {
			return err
		}
		if time.Since(asked) >= pollIdle {
			asked = time.Now()
			if err := l.checkApplier(ctx); err != nil {
				return err
			}
		}
		if tracker.Low() < target {
			locks.look(ctx, tracker.Low())
			if err := pause.For(ctx, pollPromotion); err != nil {
				return err
			}
		}
	}
	return nil
}
