//go:build linux && !race

package rawnet

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"unsafe"
)

// Conn returns a connection that is nc and takes less of the scheduler. What is no
// TCP or Unix stream socket is returned as it is.
func Conn(nc net.Conn) net.Conn {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nc
	}
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return nc
	}
	c := &conn{Conn: nc, raw: raw}
	c.in.try, c.out.try = c.tryRead, c.tryWrite
	return c
}

// conn leaves deadlines, waiting and the life of the descriptor to package net.
type conn struct {
	net.Conn
	raw     syscall.RawConn
	in, out transfer
}

// transfer is one direction. Its function is made once: made for each call it would
// be on the heap.
type transfer struct {
	mu  sync.Mutex // guards the rest
	try func(fd uintptr) bool
	b   []byte
	n   int
	err error
}

// SyscallConn implements syscall.Conn.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return c.Conn.Read(b)
	}
	n, err := c.in.run(c.raw.Read, b[:min(len(b), most)])
	if err != nil && err != io.EOF {
		err = c.failed("read", err)
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	if len(b) == 0 || len(b) > most {
		return c.Conn.Write(b)
	}
	n, err := c.out.run(c.raw.Write, b)
	if err != nil {
		err = c.failed("write", err)
	}
	return n, err
}

func (t *transfer) run(call func(func(uintptr) bool) error, b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b, t.n, t.err = b, 0, nil
	err := call(t.try)
	t.b = nil
	if err == nil {
		err = t.err
	}
	return t.n, err
}

func (c *conn) failed(op string, err error) error {
	var oe *net.OpError
	if errors.As(err, &oe) {
		err = oe.Err // closed, or a deadline
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// tryRead returns false to be called again when the socket can be read.
func (c *conn) tryRead(fd uintptr) bool {
	n, err := TryRead(fd, c.in.b)
	switch {
	case err == syscall.EAGAIN:
		return false
	case err != nil:
		c.in.err = err
	case n == 0:
		c.in.err = io.EOF
	}
	c.in.n = n
	return true
}

// tryWrite returns false to be called again when the socket can be written.
func (c *conn) tryWrite(fd uintptr) bool {
	for c.out.n < len(c.out.b) {
		n, err := call(syscall.SYS_WRITE, fd, c.out.b[c.out.n:])
		switch {
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			c.out.err = err
			return true
		}
		c.out.n += n
	}
	return true
}

// TryRead reads from a descriptor of package net that its syscall.RawConn gave.
// syscall.EAGAIN: there is nothing. 0 bytes without an error: the peer has closed.
func TryRead(fd uintptr, b []byte) (int, error) { return call(syscall.SYS_READ, fd, b) }

// call reads or writes a descriptor that does not block. b is not empty.
func call(trap, fd uintptr, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
