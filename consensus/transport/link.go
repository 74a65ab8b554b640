package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"cohort/internal/pause"
)

// link is dragonboat's connection to one target, with real ones coming and
// going underneath. While there is none, messages are dropped, as raft allows,
// and nobody above is told: raft repairs what was lost with the first heartbeat
// that gets through, dragonboat's breaker only when its pause is over.
//
// One goroutine connects and then reads acks. Who holds deferred.mu writes.
type link struct {
	t      *Transport
	target string
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed by run

	deferred deferred
	frame    []byte // of send

	mu      sync.Mutex
	cur     *outConn      // nil while there is none
	down    bool          // an attempt failed since the last connection
	changed chan struct{} // closed and replaced when cur or down change
	asked   time.Time     // when the last ack was asked for
	waiting bool          // it has not come
	// Bytes that were written to cur: in all, up to the frame that asked last, and
	// up to the one that was acknowledged last.
	sent, upTo, heard int64
}

var _ raftio.IConnection = (*link)(nil)

func newLink(t *Transport, ctx context.Context, target string) (*link, error) {
	l := &link{t: t, target: target, changed: make(chan struct{}), done: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(ctx)
	l.deferred.timer = time.AfterFunc(deferFor, l.sendDeferred)
	stop := context.AfterFunc(t.ctx, l.cancel)
	if !t.spawn(func() { defer stop(); l.run() }) {
		l.cancel()
		return nil, ErrClosed
	}
	return l, nil
}

// Close implements raftio.IConnection.
func (l *link) Close() {
	l.cancel()
	<-l.done
	l.deferred.mu.Lock() // its timer may be at work
	defer l.deferred.mu.Unlock()
	l.deferred.timer.Stop()
}

// send writes a batch. Needs deferred.mu.
func (l *link) send(b raftpb.MessageBatch) error {
	c := l.await()
	if c == nil {
		if l.ctx.Err() != nil {
			return ErrClosed
		}
		return nil
	}
	b.SourceAddress = "" // the hello told it
	n := b.Size()
	if n > maxFrame {
		l.t.o.Logger.Error().Int("bytes", n).Str("target", l.target).Msg("log connection: a batch is too large and is left out")
		return nil
	}
	var payload []byte
	l.frame, payload = growFrame(l.frame, n)
	if _, err := b.MarshalTo(payload); err != nil {
		return err
	}
	now := time.Now()
	typ := frameBatch
	asks := l.ask(c, now, len(l.frame))
	if asks {
		typ |= flagAsk
	}
	sealFrame(l.frame, typ, c.sum)
	// In pieces, each of which shows that the other side lives: a batch of many
	// megabytes takes its time where the network, or a processor, is slow.
	for rest := l.frame; len(rest) > 0; {
		piece := rest[:min(len(rest), maxPiece)]
		rest = rest[len(piece):]
		if now.Add(ackTimeout / 2).After(c.writeBy) {
			c.writeBy = now.Add(ackTimeout)
			c.SetWriteDeadline(c.writeBy)
		}
		if err := c.write(piece); err != nil {
			c.Close() // run notices
			break
		}
		if len(rest) > 0 {
			now = time.Now()
			if asks {
				l.goesOn(c, now)
			}
		}
	}
	if cap(l.frame) > keepBuffer {
		l.frame = nil
	}
	return nil
}

// ask decides whether the next frame, of n bytes, wants an ack. One at a time is
// waited for, until the read deadline.
func (l *link) ask(c *outConn, now time.Time, n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cur != c {
		return false
	}
	l.sent += int64(n)
	if l.waiting || now.Sub(l.asked) < askInterval {
		return false
	}
	l.asked, l.waiting, l.upTo = now, true, l.sent
	c.SetReadDeadline(l.ackBy(now))
	return true
}

// ackBy is when the ack has to be there that is asked for now: the other side
// comes to it when it has taken in what was written before.
func (l *link) ackBy(now time.Time) time.Time {
	return now.Add(ackTimeout + time.Duration(l.upTo-l.heard)*time.Second/ackRate)
}

// goesOn begins the wait for an ack anew: part of the frame that asks was written.
func (l *link) goesOn(c *outConn, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cur == c && l.waiting {
		c.SetReadDeadline(l.ackBy(now))
	}
}

// await returns the connection, nil if there is none. It waits for one that is
// being made for the first time or anew: a candidate's only request for a vote
// to a member it has not talked to must not be lost. That is over with the first
// failure.
func (l *link) await() *outConn {
	var timeout <-chan time.Time
	for {
		l.mu.Lock()
		c, down, changed := l.cur, l.down, l.changed
		l.mu.Unlock()
		if c != nil || down || l.ctx.Err() != nil {
			return c
		}
		if timeout == nil {
			t := time.NewTimer(holdTimeout)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-changed:
		case <-l.ctx.Done():
		case <-timeout:
			l.set(nil, true)
		}
	}
}

// set changes what SendMessageBatch sees.
func (l *link) set(c *outConn, down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cur, l.down = c, down
	l.waiting, l.asked = false, time.Time{}
	l.sent, l.upTo, l.heard = 0, 0, 0
	close(l.changed)
	l.changed = make(chan struct{})
}

// run keeps a connection up until the link is closed.
func (l *link) run() {
	defer close(l.done)
	log := l.t.o.Logger.With().Str("target", l.target).Logger()
	wait, said := minPause, ""
	for l.ctx.Err() == nil {
		c, err := l.t.connect(l.ctx, l.target, forMessages)
		if err != nil {
			l.set(nil, true)
			if why := reason(err); why != said && l.ctx.Err() == nil {
				// Once for each different reason, not for each attempt.
				said = why
				log.Warn().Err(err).Msg("log connection: cannot connect; trying on")
			}
			limit := maxPause
			switch {
			case !errors.As(err, new(handshakeError)):
			case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
				limit = maxHungUpPause
			default:
				limit = maxRefusedPause
			}
			wait = min(wait, limit)
			_ = pause.For(l.ctx, wait)
			wait = min(2*wait, limit)
			continue
		}
		log.Debug().Msg("log connection: connected")
		began := time.Now()
		l.set(c, false)
		err = l.readAcks(c)
		// Not down: the next attempt follows at once, and is worth waiting for.
		l.set(nil, false)
		if l.ctx.Err() == nil {
			log.Info().Err(err).Msg("log connection: lost")
		}
		said = ""
		if time.Since(began) > maxRefusedPause {
			wait = minPause
		} else {
			_ = pause.For(l.ctx, wait) // it flaps
			wait = min(2*wait, maxRefusedPause)
		}
	}
}

// reason is an error's text without ports, which differ for each attempt.
func reason(err error) string {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

var errSilent = errors.New("transport: no acknowledgement in time")

// readAcks reads until the connection ends and closes it.
func (l *link) readAcks(c *outConn) error {
	defer c.Close()
	defer context.AfterFunc(l.ctx, func() { c.Close() })()
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = errSilent
			}
			return err
		}
		if b != ack {
			return ErrRefused
		}
		l.mu.Lock()
		l.waiting, l.heard = false, l.upTo
		c.SetReadDeadline(time.Time{})
		l.mu.Unlock()
	}
}
