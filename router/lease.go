package router

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"cohort/internal/uptime"
)

// ErrNoContact says that reads may be old: it is not known who the primary is.
var ErrNoContact = errors.New("router: no contact to a majority of the group")

// lease is until when it is certain that the primary of this member's view is the
// only one: what its server answers is as new as can be. Both clocks count: one of
// them stands while the machine is suspended.
type lease struct {
	until atomic.Pointer[moment] // nil: never
	off   atomic.Bool            // reads that ask for nothing else do without
}

// moment is a reading of both clocks.
type moment struct {
	up   time.Duration // of uptime.Now
	wall int64
}

// SetLease says until when reads may be answered; a time that has passed ends it at
// once.
func (r *Router) SetLease(until time.Time) {
	if until.IsZero() {
		r.lease.until.Store(nil)
		return
	}
	r.lease.until.Store(&moment{uptime.Of(until), until.UnixNano()})
}

// NeedLease says whether reads need a lease that do not say so themselves: without, a
// member that is cut off goes on with what its primary has.
func (r *Router) NeedLease(need bool) { r.lease.off.Store(!need) }

// Fresh reports whether a read that is sent to b now sees everything that was
// acknowledged before, as far as b is the primary's server, or need not. always: it
// has to, whatever NeedLease was told. It is called for every statement. A process
// that stood still finds its lease run out.
func (r *Router) Fresh(b Backend, always bool) bool {
	// Out of the group what is read is the member's own.
	if b.Epoch == 0 || !always && r.lease.off.Load() {
		return true
	}
	l := r.lease.until.Load()
	return l != nil && l.holds(time.Now())
}

// Leased reports whether there is a lease now, or none is needed.
func (r *Router) Leased() bool { return r.Fresh(Backend{Epoch: 1}, false) }

func (l *moment) holds(now time.Time) bool {
	return uptime.Of(now) < l.up && now.UnixNano() < l.wall
}

// leasePoll is the pause between two looks of who waits for the lease.
const leasePoll = 5 * time.Millisecond

// AwaitFresh returns once reads on b are Fresh, or sessions have to leave it; an error
// wraps ErrNoContact.
func (r *Router) AwaitFresh(ctx context.Context, b Backend, always bool) error {
	t := time.NewTicker(leasePoll)
	defer t.Stop()
	for !r.Fresh(b, always) && !r.Moved(b) {
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
