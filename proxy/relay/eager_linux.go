package relay

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"cohort/internal/rawnet"
)

// eagerFor is how long a read looks again and again for bytes. A point select takes
// mysqld less, and a client that sends one statement after the other itself.
const eagerFor = 50 * time.Microsecond

// eager is a connection of a session that is alone: what it waits for it looks for
// again and again, for a moment, where the last wait was over within one. To be woken
// up costs a lone client's point select a third of its time. While other sessions are
// at work it waits as any connection does, and leaves them the processor.
type eager struct {
	net.Conn
	raw  syscall.RawConn
	busy *atomic.Int32 // responses that are waited for
	lone int32         // what busy is while no other session's is
	soon bool          // the last wait was short

	// Of the read under way.
	look  func(fd uintptr) bool
	until time.Time // zero: not looked again
	b     []byte
	n     int
	err   error
}

// newEager returns nc itself where it is no socket.
func newEager(nc net.Conn, busy *atomic.Int32, lone int32) net.Conn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nc
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nc
	}
	c := &eager{Conn: nc, raw: raw, busy: busy, lone: lone}
	c.look = c.tryRead
	return c
}

// SyscallConn implements syscall.Conn.
func (c *eager) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Read implements net.Conn. It belongs to one goroutine at a time.
func (c *eager) Read(b []byte) (n int, err error) {
	if c.busy.Load() != c.lone || len(b) == 0 {
		return c.Conn.Read(b)
	}
	begun := time.Now()
	if c.soon {
		n, err = c.readEagerly(b, begun.Add(eagerFor))
	} else {
		n, err = c.Conn.Read(b)
	}
	c.soon = time.Since(begun) < eagerFor
	return n, err
}

func (c *eager) readEagerly(b []byte, until time.Time) (int, error) {
	c.b, c.until = b, until
	err := c.raw.Read(c.look)
	n := c.n
	if err == nil {
		err = c.err
	}
	c.b, c.n, c.err = nil, 0, nil
	return n, err
}

// tryRead reads without blocking. false lets the runtime wait for bytes: those that
// come after its last attempt wake it up.
func (c *eager) tryRead(fd uintptr) bool {
	for {
		n, err := rawnet.TryRead(fd, c.b)
		switch {
		case err == syscall.EAGAIN && c.until.IsZero():
			return false
		case err == syscall.EAGAIN:
			if !time.Now().Before(c.until) {
				c.until = time.Time{}
				return false
			}
		case err != nil:
			c.err = &net.OpError{Op: "read", Net: c.RemoteAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
			return true
		case n == 0:
			c.err = io.EOF
			return true
		default:
			c.n = n
			return true
		}
	}
}
