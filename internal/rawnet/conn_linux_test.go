package rawnet

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pairs are both ends of a connection each, the first one a Conn.
func pairs(t *testing.T) map[string][2]net.Conn {
	t.Helper()
	out := make(map[string][2]net.Conn)
	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		ln, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		a, err := new(Dialer).DialContext(t.Context(), network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := ln.Accept()
		if err := errors.Join(err, ln.Close()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close(); b.Close() })
		out[network] = [2]net.Conn{a, b}
	}
	return out
}

// What is sent arrives, in pieces of any size, both ways at once, and so does the end.
func TestTransfer(t *testing.T) {
	for network, p := range pairs(t) {
		t.Run(network, func(t *testing.T) {
			data := make([]byte, 5<<20)
			for i := range data {
				data[i] = byte(rand.Uint32())
			}
			var wg sync.WaitGroup
			for i, c := range p {
				wg.Go(func() {
					for rest := data; len(rest) > 0; {
						n := min(len(rest), 1+rand.IntN(3*most/2))
						if m, err := c.Write(rest[:n]); err != nil || m != n {
							t.Error(m, err)
							return
						}
						rest = rest[n:]
					}
					if err := closeWrite(c); err != nil {
						t.Error(err)
					}
				})
				wg.Go(func() {
					var got []byte
					for b := make([]byte, 3*most/2); ; {
						n, err := p[1-i].Read(b[:1+rand.IntN(len(b)-1)])
						got = append(got, b[:n]...)
						if err == io.EOF {
							break
						}
						if err != nil {
							t.Error(err)
							return
						}
					}
					if !bytes.Equal(got, data) {
						t.Errorf("%d bytes arrived, not the %d that were sent", len(got), len(data))
					}
				})
			}
			wg.Wait()
		})
	}
}

// closeWrite ends what c sends.
func closeWrite(c net.Conn) error {
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = rc.Control(func(fd uintptr) { serr = syscall.Shutdown(int(fd), syscall.SHUT_WR) })
	return errors.Join(err, serr)
}

// Writes of several goroutines do not mix.
func TestWritesAreWhole(t *testing.T) {
	for network, p := range pairs(t) {
		t.Run(network, func(t *testing.T) {
			const writers, each, size = 4, 40, 50_000 // more than a socket takes at once
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for range each {
						if _, err := p[0].Write(bytes.Repeat([]byte{byte(w)}, size)); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			b := make([]byte, size)
			for range writers * each {
				if _, err := io.ReadFull(p[1], b); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b, bytes.Repeat(b[:1], size)) {
					t.Fatal("two writes were mixed")
				}
			}
			wg.Wait()
		})
	}
}

// Deadlines and Close end what waits, with the errors of package net.
func TestEndsWaiting(t *testing.T) {
	for network, p := range pairs(t) {
		t.Run(network, func(t *testing.T) {
			c, big := p[0], make([]byte, most)
			fill := func() error {
				for {
					if _, err := c.Write(big); err != nil {
						return err
					}
				}
			}
			for what, run := range map[string]func() error{
				"read":  func() error { _, err := c.Read(big); return err },
				"write": fill,
			} {
				if err := c.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
					t.Fatal(err)
				}
				err := run()
				var ne net.Error
				if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
					t.Errorf("%s: %v", what, err)
				}
				var oe *net.OpError
				if !errors.As(err, &oe) || oe.Op != what || oe.Net != network {
					t.Errorf("%s: %#v", what, err)
				}
			}
			if err := c.SetDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 2)
			go func() { _, err := c.Read(big); ended <- err }()
			go func() { ended <- fill() }()
			time.Sleep(5 * time.Millisecond) // either order will do
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := <-ended; !errors.Is(err, net.ErrClosed) {
					t.Errorf("after Close: %v", err)
				}
			}
			if _, err := c.Read(big); !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
			if _, err := c.Write(big[:1]); !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		})
	}
}

// The other end's death is told as package net tells it.
func TestPeerGone(t *testing.T) {
	for network, p := range pairs(t) {
		t.Run(network, func(t *testing.T) {
			if err := p[1].Close(); err != nil {
				t.Fatal(err)
			}
			if n, err := p[0].Read(make([]byte, 9)); n != 0 || err != io.EOF {
				t.Error(n, err)
			}
			var err error
			for err == nil {
				_, err = p[0].Write([]byte("x"))
			}
			if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
		})
	}
}

func TestOnlySockets(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if Conn(a) != a {
		t.Error("a pipe was wrapped")
	}
}

// Nothing is allocated for a read or a write.
func TestAllocations(t *testing.T) {
	for network, p := range pairs(t) {
		t.Run(network, func(t *testing.T) {
			b := make([]byte, 100)
			if n := testing.AllocsPerRun(100, func() {
				if _, err := p[0].Write(b); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(p[1], b); err != nil {
					t.Fatal(err)
				}
				if _, err := p[1].Write(b); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(p[0], b); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
