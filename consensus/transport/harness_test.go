package transport

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/rs/zerolog"

	"cohort/internal/mysqldtest"
)

const testGroup = "11111111-2222-3333-4444-555555555555"

// logbook is a log that can be searched.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// says reports whether one line contains all of the words.
func (l *logbook) says(words ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
lines:
	for line := range strings.Lines(l.b.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		return true
	}
	return false
}

func (l *logbook) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// member is one transport and what it received.
type member struct {
	*Transport
	addr string
	log  *logbook
	sent atomic.Uint64 // by beats

	mu     sync.Mutex
	got    []raftpb.MessageBatch
	chunks []raftpb.Chunk
	reject bool // chunks
}

func (m *member) received() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.got)
}

// latest is the number of the newest of the beats that arrived.
func (m *member) latest() (n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.got {
		n = max(n, b.Requests[0].Commit)
	}
	return n
}

// newMember starts a transport at an address of the system's choice.
func newMember(t testing.TB, replica uint64, tweak func(*Options)) *member {
	t.Helper()
	m := &member{log: &logbook{}}
	o := Options{Group: testGroup, Shard: 1, Replica: replica, Logger: zerolog.New(m.log)}
	if tweak != nil {
		tweak(&o)
	}
	host := "127.0.0.1" // which certificates name
	if o.TLS == nil {
		host = mysqldtest.Loopback()
	}
	m.start(t, o, fmt.Sprintf("127.0.0.1:%d", 1000+replica), net.JoinHostPort(host, "0"))
	t.Cleanup(func() { m.Transport.Close() })
	return m
}

func (m *member) start(t testing.TB, o Options, self, listen string) {
	t.Helper()
	tr := NewFactory(o).Create(config.NodeHostConfig{RaftAddress: self, ListenAddress: listen},
		func(b raftpb.MessageBatch) { m.mu.Lock(); defer m.mu.Unlock(); m.got = append(m.got, b) },
		func(c raftpb.Chunk) bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.chunks = append(m.chunks, c)
			return !m.reject
		}).(*Transport)
	if err := tr.Start(); err != nil {
		t.Fatal(err)
	}
	m.Transport, m.addr = tr, tr.ln.Addr().String()
}

func heartbeat(from, to uint64) raftpb.MessageBatch {
	return raftpb.MessageBatch{SourceAddress: "ignored", DeploymentId: 7, BinVer: 1,
		Requests: []raftpb.Message{{Type: raftpb.Heartbeat, ShardID: 1, From: from, To: to, Term: 3}}}
}

func batchOf(size int) raftpb.MessageBatch {
	b := heartbeat(1, 2)
	b.Requests[0].Type = raftpb.Replicate
	b.Requests[0].Entries = []raftpb.Entry{{Index: 9, Cmd: bytes.Repeat([]byte{7}, size)}}
	return b
}

// eventually waits until f is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// beats sends a heartbeat every 10 ms until the test ends or stop is called.
func beats(t testing.TB, from *member, to string, replica uint64) (stop func()) {
	t.Helper()
	c, err := from.GetConnection(context.Background(), to)
	if err != nil {
		t.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer c.Close()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			b := heartbeat(from.o.Replica, replica)
			b.Requests[0].Commit = from.sent.Add(1)
			_ = c.SendMessageBatch(b) // fails only after Close
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	}()
	var once sync.Once
	stop = func() { once.Do(func() { close(quit); <-done }) }
	t.Cleanup(stop)
	return stop
}

// relay stands in front of a member.
type relay struct {
	ln net.Listener
	to string
	wg sync.WaitGroup

	mu    sync.Mutex
	hole  bool          // nothing passes, and nobody is told
	pause time.Duration // after each 32 KiB
	cut   bool          // connections are ended as soon as they are made
	turn  chan struct{}
	conns map[net.Conn]bool
	ended bool
}

func newRelay(t testing.TB, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, to: to, turn: make(chan struct{}), conns: map[net.Conn]bool{}}
	r.wg.Go(r.run)
	t.Cleanup(func() {
		ln.Close()
		r.mu.Lock()
		r.ended = true
		r.mu.Unlock()
		r.set(false, true)
		r.wg.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.ln.Addr().String() }

func (r *relay) set(hole, cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hole, r.cut = hole, cut
	if cut {
		for c := range r.conns {
			c.Close()
		}
	}
	close(r.turn)
	r.turn = make(chan struct{})
}

func (r *relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut || r.ended {
		c.Close()
		return false
	}
	r.conns[c] = true
	return true
}

func (r *relay) drop(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Close()
	delete(r.conns, c)
}

// slow has each 32 KiB take so long.
func (r *relay) slow(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pause = d
}

// pass waits while there is a hole.
func (r *relay) pass() {
	for {
		r.mu.Lock()
		open, turn := !r.hole || r.ended, r.turn
		r.mu.Unlock()
		if open {
			return
		}
		<-turn
	}
}

func (r *relay) run() {
	for {
		a, err := r.ln.Accept()
		if err != nil {
			return
		}
		if !r.keep(a) {
			continue
		}
		r.wg.Go(func() {
			defer r.drop(a)
			r.pass()
			b, err := net.Dial("tcp", r.to)
			if err != nil || !r.keep(b) {
				return
			}
			defer r.drop(b)
			r.wg.Go(func() { r.copy(a, b) })
			r.copy(b, a)
		})
	}
}

func (r *relay) copy(dst, src net.Conn) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		r.pass()
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
			r.mu.Lock()
			pause := r.pause * time.Duration(n) / time.Duration(len(buf))
			r.mu.Unlock()
			time.Sleep(pause)
		}
		if err != nil {
			return
		}
	}
}

// speak connects to a member as a stranger does and returns what it answers.
func speak(t testing.TB, m *member, say []byte) []byte {
	t.Helper()
	c, err := net.Dial("tcp", m.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	if _, err := c.Write(say); err != nil {
		return nil // it had enough
	}
	c.(*net.TCPConn).CloseWrite()
	b, _ := io.ReadAll(c)
	return b
}
