package router

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNoContact says that reads may be old: it is not known who the primary is.
var ErrNoContact = errors.New("router: no contact to a majority of the group")

// began is what readings of the monotonic clock are counted from.
var began = time.Now()

// lease is until when it is certain that the primary of this member's view is the
// only one: what its server answers is as new as can be. Both clocks count: one of
// them stands while the machine is suspended.
type lease struct {
	until atomic.Pointer[moment] // nil: never

	mu  sync.Mutex // held while they are set
	off bool
}

// moment is a reading of both clocks.
type moment struct {
	up   time.Duration // since began
	wall int64
}

// always does not end.
var always = &moment{up: math.MaxInt64, wall: math.MaxInt64}

// SetLease says until when reads may be answered; a time that has passed ends it at
// once.
func (r *Router) SetLease(until time.Time) {
	r.lease.mu.Lock()
	defer r.lease.mu.Unlock()
	switch {
	case r.lease.off:
	case until.IsZero():
		r.lease.until.Store(nil)
	default:
		r.lease.until.Store(&moment{until.Sub(began), until.UnixNano()})
	}
}

// NeedLease says whether reads need a lease: without, a member that is cut off goes on
// with what its primary has.
func (r *Router) NeedLease(need bool) {
	r.lease.mu.Lock()
	defer r.lease.mu.Unlock()
	r.lease.off = !need
	if need {
		r.lease.until.Store(nil)
	} else {
		r.lease.until.Store(always)
	}
}

// Fresh reports whether a read that is sent to b now sees everything that was
// acknowledged before, as far as b is the primary's server. It is called for every
// statement. A process that stood still finds its lease run out.
func (r *Router) Fresh(b Backend) bool {
	l := r.lease.until.Load()
	if l == always || b.Epoch == 0 { // out of the group what is read is the member's own
		return true
	}
	return l != nil && l.holds(time.Now())
}

// Leased reports whether there is a lease now, or none is needed.
func (r *Router) Leased() bool { return r.Fresh(Backend{Epoch: 1}) }

func (l *moment) holds(now time.Time) bool {
	return now.Sub(began) < l.up && now.UnixNano() < l.wall
}

// leasePoll is the pause between two looks of who waits for the lease.
const leasePoll = 5 * time.Millisecond

// AwaitFresh returns once reads on b are fresh, or sessions have to leave it; an error
// wraps ErrNoContact.
func (r *Router) AwaitFresh(ctx context.Context, b Backend) error {
	t := time.NewTicker(leasePoll)
	defer t.Stop()
	for !r.Fresh(b) && !r.Moved(b) {
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNoContact, context.Cause(ctx))
		case <-r.xids.closed:
			return ErrClosed
		}
	}
	return nil
}
