package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// eagerPair is an eager connection, whose session is alone while busy is 1, and its
// other end.
func eagerPair(t *testing.T, busy *atomic.Int32) (*eager, net.Conn) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return newEager(a, busy, 1).(*eager), b
}

// Whatever is looked for eagerly arrives as it would otherwise, whether it comes at
// once or after the read has given up looking.
func TestEagerReads(t *testing.T) {
	var busy atomic.Int32
	busy.Store(1)
	c, other := eagerPair(t, &busy)
	sent := make(chan struct{})
	defer func() { <-sent }()
	go func() {
		defer close(sent)
		for i := range 2000 {
			if i%20 == 0 {
				time.Sleep(4 * eagerFor) // the reader waits for the runtime
			}
			if _, err := other.Write([]byte{byte(i), byte(i >> 8), 7}); err != nil {
				return // the test says why
			}
		}
		other.Close()
	}()
	var got bytes.Buffer
	for b := make([]byte, 2); ; { // less than what comes at once
		c.soon = true
		n, err := c.Read(b)
		got.Write(b[:n])
		if err == io.EOF {
			break
		}
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		if busy.Add(1) > 2 {
			busy.Store(1)
		}
	}
	if got.Len() != 6000 {
		t.Fatalf("%d bytes", got.Len())
	}
	for i := range 2000 {
		if p := got.Next(3); !bytes.Equal(p, []byte{byte(i), byte(i >> 8), 7}) {
			t.Fatalf("%d: %v", i, p)
		}
	}
}

func TestEagerEnds(t *testing.T) {
	var busy atomic.Int32
	busy.Store(1)
	c, _ := eagerPair(t, &busy)
	c.soon = true
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	c.soon = true
	go c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed meanwhile: %v", err)
	}
	c.soon = true
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed before: %v", err)
	}

	c, other := eagerPair(t, &busy)
	c.soon = true
	if err := other.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the end: %v", err)
	}
}

// A session that is not alone, or whose last wait was long, does not look eagerly.
func TestEagerOnlyAlone(t *testing.T) {
	var busy atomic.Int32
	c, other := eagerPair(t, &busy)
	eagerly := 0
	look := c.look
	c.look = func(fd uintptr) bool { eagerly++; return look(fd) }
	read := func() {
		t.Helper()
		if _, err := other.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int32{0, 2} {
		busy.Store(n)
		c.soon = true
		if read(); eagerly != 0 {
			t.Errorf("looked eagerly while %d responses were waited for", n)
		}
	}
	busy.Store(1)
	c.soon = false
	if read(); eagerly != 0 {
		t.Error("looked eagerly after a long wait")
	}
	c.soon = true
	if read(); eagerly == 0 {
		t.Error("did not look eagerly")
	}
}
