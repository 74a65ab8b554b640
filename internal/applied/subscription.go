package applied

import "context"

// maxPending bounds what a slow subscriber makes the tracker remember. Beyond it
// the pending ranges are forgotten and the subscriber gets the whole set anew,
// which is never much larger.
const maxPending = 1024

// Update is what became known since the last one.
type Update struct {
	// Reset says that Ranges is the whole set, to replace what was known: the
	// first update, after Tracker.Reset, and when the subscriber was too slow.
	Reset bool
	// Ranges are the added numbers in the order they were added, adjacent ones
	// merged; the receiver owns them.
	Ranges []Range
}

// Subscription follows a tracker's set as it grows. Next is for one goroutine.
type Subscription struct {
	t *Tracker
	// pending and whole are guarded by t.mu.
	pending []Range
	whole   bool
	wake    chan struct{} // capacity 1; never closed
}

// Subscribe returns a subscription whose first update is the whole set. Close it
// when done.
func (t *Tracker) Subscribe() *Subscription {
	s := &Subscription{t: t, whole: true, wake: make(chan struct{}, 1)}
	s.signal()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subs[s] = struct{}{}
	return s
}

// Next blocks until there is something new and returns all of it at once: there
// is no delay of its own, so updates are as small as the subscriber is fast. It
// returns ctx's cause, or the tracker's closing error.
func (s *Subscription) Next(ctx context.Context) (Update, error) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Update{}, context.Cause(ctx)
		}
		s.t.mu.Lock()
		u := Update{Reset: s.whole, Ranges: s.pending}
		if s.whole {
			snap := s.t.snapshot()
			u.Ranges = snap.Ranges()
		}
		s.whole, s.pending = false, nil
		closed := s.t.closed
		s.t.mu.Unlock()
		switch {
		case u.Reset || len(u.Ranges) > 0:
			if closed != nil {
				s.signal() // so that the next call reports it
			}
			return u, nil
		case closed != nil:
			s.signal()
			return Update{}, closed
		}
	}
}

// Close ends the subscription and frees what it held.
func (s *Subscription) Close() {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	delete(s.t.subs, s)
	s.pending = nil
}

// add is called with t.mu held.
func (s *Subscription) add(r Range) {
	switch last := len(s.pending) - 1; {
	case s.whole: // the set that will be sent has r
	case last >= 0 && s.pending[last].To+1 == r.From:
		s.pending[last].To = r.To
	case last+1 >= maxPending:
		s.restart()
	default:
		s.pending = append(s.pending, r)
	}
	s.signal()
}

// restart is called with t.mu held.
func (s *Subscription) restart() {
	s.whole, s.pending = true, nil
	s.signal()
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
