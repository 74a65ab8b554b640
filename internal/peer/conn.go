package peer

import (
	"bufio"
	"context"
	"net"
	"sync"
	"time"
)

// conn is one connection after or during its handshake. One goroutine reads;
// any may write. Every read and write has a deadline of timeout, so a peer that
// is gone without a word ends the connection.
type conn struct {
	net.Conn
	r       *bufio.Reader
	timeout time.Duration

	wmu  sync.Mutex // held while out is filled and written
	out  []byte
	rbuf []byte
}

func newConn(c net.Conn, timeout time.Duration) *conn {
	return &conn{Conn: c, r: bufio.NewReaderSize(c, 4096), timeout: timeout}
}

// read returns the next frame; the payload is valid until the next read.
func (c *conn) read(limit int) (frameType, []byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, nil, err
	}
	typ, buf, err := readFrame(c.r, c.rbuf, limit)
	if c.rbuf = buf; cap(buf) > 64<<10 {
		c.rbuf = nil // do not keep a rare large one
	}
	return typ, buf, err
}

// write sends what fill appends, in one Write.
func (c *conn) write(fill func([]byte) []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	b := fill(c.out[:0])
	if c.out = b; cap(b) > 64<<10 {
		c.out = nil
	}
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	_, err := c.Conn.Write(b)
	return err
}

func (c *conn) writeFrame(typ frameType, fill func([]byte) []byte) error {
	return c.write(func(b []byte) []byte { return appendFrame(b, typ, fill) })
}

// closeOnDone closes c when ctx ends and returns a function that stops watching
// and waits until the watch is over.
func closeOnDone(ctx context.Context, c net.Conn) (release func()) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		c.Close()
	})
	return func() {
		if !stop() {
			<-closed
		}
	}
}

// heartbeats sends one now and one every interval until ctx ends or a write
// fails, but none while alive, unless nil, says no.
func (c *conn) heartbeats(ctx context.Context, interval time.Duration, state func() []byte, alive func() bool) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if alive == nil || alive() {
			err := c.writeFrame(frameHeartbeat, func(b []byte) []byte {
				if state == nil {
					return b
				}
				return append(b, state()...)
			})
			if err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
