package peer

import (
	"context"
	"sync/atomic"
	"time"

	"cohort/internal/applied"
	"cohort/internal/uptime"
)

// How often numbers are sent. Under load a frame per number costs more than the
// rest of the channel, on both sides; and where nobody waits for them, a frame for
// each commit of a single client was a fifth of what the commit costs. So numbers
// are gathered, for longer while the subscriber did not say that somebody waits. A
// lone number after a pause leaves at once in any case.
const (
	pushSpacing = time.Millisecond
	idleSpacing = 20 * time.Millisecond
	// attendFor is how long one word that somebody waits counts; it is repeated
	// after attendAgain.
	attendFor   = time.Second
	attendAgain = attendFor / 2
)

// attention is what one connection's subscriber said about waiting. It changes
// when numbers are sent, never which.
type attention struct {
	idle  time.Duration
	until atomic.Int64  // in ns of uptime
	kick  chan struct{} // capacity 1
}

// renew is called when the subscriber says that somebody waits.
func (a *attention) renew() {
	now := uptime.Now()
	if a.until.Swap(int64(now+attendFor)) < int64(now) {
		select {
		case a.kick <- struct{}{}:
		default:
		}
	}
}

// now reports whether somebody waits.
func (a *attention) now() bool { return int64(uptime.Now()) < a.until.Load() }

func (a *attention) spacing() time.Duration {
	if a.now() {
		return pushSpacing
	}
	return a.idle
}

// push sends what is added to the set until ctx ends or a write fails.
func push(ctx context.Context, c *conn, sub *applied.Subscription, a *attention) error {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-a.kick:
			t.Reset(pushSpacing)
			continue
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		u, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		if err := c.write(func(b []byte) []byte { return appendApplied(b, u) }); err != nil {
			return err
		}
		t.Reset(a.spacing())
	}
}

// Attend asks the target to say without delay what becomes visible there, for the
// next second: somebody waits for it. It costs little to call it for each wait,
// does not block, and is forgotten when the connection ends.
func (s *Subscriber) Attend() {
	l := s.link.Load()
	if l == nil {
		return
	}
	now, last := int64(uptime.Now()), l.attended.Load()
	if last != 0 && now-last < int64(attendAgain) || !l.attended.CompareAndSwap(last, now) {
		return
	}
	l.notices.signal() // a frame without texts, if there are none
}
