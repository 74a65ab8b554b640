package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// outConn is a connection on which the other side let us in.
type outConn struct {
	net.Conn
	cork *cork
	r    *bufio.Reader
	sum  bool
	// writeBy is the write deadline set last: renewing it for each frame would
	// cost a timer.
	writeBy time.Time
}

// write sends a sealed frame in one write.
func (c *outConn) write(frame []byte) error { return c.cork.through(c.Conn, frame) }

// handshakeError is a failure after somebody had answered.
type handshakeError struct{ error }

func (e handshakeError) Unwrap() error { return e.error }

// connect returns a connection that is ready for frames. It takes at most
// connectTimeout and handshakeTimeout, and ends with ctx.
func (t *Transport) connect(ctx context.Context, target string, p purpose) (*outConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	nc, err := t.dial(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	c, err := t.introduce(nc, target, p)
	if !stop() && err == nil {
		err = ErrClosed
	}
	if err != nil {
		nc.Close()
		return nil, handshakeError{err}
	}
	return c, nil
}

// dial connects. Where nobody answers it begins anew every dialSpacing, as a
// SYN that was lost is sent again by the kernel only after a second.
func (t *Transport) dial(ctx context.Context, target string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errors.New("nobody answers"))
	type result struct {
		c   net.Conn
		err error
	}
	results := make(chan result)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	attempt := func() {
		c, err := t.o.dial(ctx, "tcp", target)
		select {
		case results <- result{c, err}:
		case <-ctx.Done():
			if c != nil {
				c.Close()
			}
		}
	}
	tick := time.NewTicker(dialSpacing)
	defer tick.Stop()
	running := 1
	wg.Go(attempt)
	for {
		select {
		case r := <-results:
			if running--; r.err == nil || running == 0 {
				return r.c, r.err
			}
		case <-tick.C:
			running++
			wg.Go(attempt)
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to %s: %w", target, context.Cause(ctx))
		}
	}
}

// introduce says who we are.
func (t *Transport) introduce(nc net.Conn, target string, p purpose) (*outConn, error) {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	if err := nc.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	c, k := t.encrypt(nc, func(nc net.Conn) *tls.Conn { return tls.Client(nc, t.o.TLS.Client(host)) })
	h := hello{version: version, purpose: p, replica: t.o.Replica, generation: t.o.Generation, group: t.o.Group, address: t.self}
	if _, err := c.Write(h.append(nil)); err != nil {
		return nil, err
	}
	out := &outConn{Conn: c, cork: k, r: bufio.NewReaderSize(c, maxHello), sum: t.o.TLS == nil}
	b, err := readBlock(out.r)
	if err != nil {
		return nil, fmt.Errorf("no answer to the introduction (address not in its ip_allowlist, or another ssl_mode?): %w", err)
	}
	reason, err := parseReply(b)
	if err != nil {
		return nil, err
	}
	if reason != "" {
		return nil, fmt.Errorf("%w: %s", ErrRefused, reason)
	}
	return out, nc.SetDeadline(time.Time{})
}
