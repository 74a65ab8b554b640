package peer

import (
	"context"
	"sync"
	"time"
)

// Notices are short texts from a subscriber to the server, in order, without an
// answer. They are lost while the connection is down, and when more than maxNotices
// wait: nothing may depend on one. A frame of them, an empty one too, says that
// somebody at the subscriber waits for the server's mysqld (see attention).
const (
	maxNotices = 1 << 16
	// maxNotice bounds one text, bytes.
	maxNotice = 1 << 10
	// noticeBatch bounds the texts of one frame.
	noticeBatch = 1024
	// noticeSpacing is the least time between two frames, see pushSpacing.
	noticeSpacing = 300 * time.Microsecond
)

// notices are those of one connection that wait to be sent.
type notices struct {
	mu    sync.Mutex
	texts []string
	wake  chan struct{} // capacity 1
}

// Notify sends a notice, if the connection is up. It does not block.
func (s *Subscriber) Notify(text string) {
	l := s.link.Load()
	if l == nil || len(text) > maxNotice {
		return
	}
	l.notices.mu.Lock()
	if len(l.notices.texts) < maxNotices {
		l.notices.texts = append(l.notices.texts, text)
	}
	l.notices.mu.Unlock()
	l.notices.signal()
}

func (n *notices) signal() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// send writes notices until ctx ends or the connection fails.
func (n *notices) send(ctx context.Context, c *conn) error {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case <-n.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		n.mu.Lock()
		texts := n.texts
		n.texts = nil
		n.mu.Unlock()
		for first := true; first || len(texts) > 0; first = false {
			k := min(len(texts), noticeBatch)
			if err := c.writeFrame(frameNotices, func(b []byte) []byte { return appendNotices(b, texts[:k]) }); err != nil {
				return err
			}
			texts = texts[k:]
		}
		t.Reset(noticeSpacing)
	}
}

func appendNotices(b []byte, texts []string) []byte {
	for _, s := range texts {
		b = appendString(b, s)
	}
	return b
}

// parseNotices calls f with each text.
func parseNotices(p []byte, f func(text string)) error {
	d := decoder{p: p}
	for len(d.p) > 0 && !d.bad {
		n := d.uvarint()
		if n > maxNotice {
			d.fail()
		}
		if text := d.bytes(n); !d.bad {
			f(string(text))
		}
	}
	return d.end("notices")
}
