package peer

import (
	"errors"
	"sync"
	"syscall"
	"time"
)

// Contact is what a subscriber has of its target: evidence of whether that
// process lives, not a judgement.
type Contact struct {
	// Target is whom this is about.
	Target Target
	// Heard is when something last came from the target, or when the subscriber
	// began to look for it if nothing has yet. A connection that is up proves
	// nothing: that of a process which is stopped stays so.
	Heard time.Time
	// Refused says that the channel had been up, and that the latest attempt to
	// connect found nobody listening: the process has ended.
	Refused bool
}

// contact keeps a Contact.
type contact struct {
	mu    sync.Mutex
	now   Contact
	wasUp bool
}

// Contact returns the present evidence. ok is false before the first target was
// known.
func (s *Subscriber) Contact() (c Contact, ok bool) {
	s.contact.mu.Lock()
	defer s.contact.mu.Unlock()
	return s.contact.now, !s.contact.now.Heard.IsZero()
}

// look is called before each attempt to connect. Of a new target nothing is
// known.
func (c *contact) look(t Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now.Heard.IsZero() || c.now.Target != t {
		c.now, c.wasUp = Contact{Target: t, Heard: time.Now()}, false
	}
}

// heard is called with everything that comes from an authenticated target.
func (c *contact) heard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Heard, c.now.Refused, c.wasUp = time.Now(), false, true
}

// failed is called when an attempt to connect failed.
func (c *contact) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Refused = c.wasUp && errors.Is(err, syscall.ECONNREFUSED)
}
