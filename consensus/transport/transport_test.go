package transport

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/rs/zerolog"

	"cohort/internal/allowlist"
	"cohort/internal/grouptls"
	"cohort/internal/grouptls/tlstest"
	"cohort/internal/mysqldtest"
)

func required(t testing.TB) *grouptls.Config {
	t.Helper()
	c, err := grouptls.Load(grouptls.Options{Mode: grouptls.Required, Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What is sent arrives unchanged and in order, small and large, plain and
// encrypted.
func TestMessagesArrive(t *testing.T) {
	for name, c := range map[string]*grouptls.Config{"plain": nil, "tls": required(t)} {
		t.Run(name, func(t *testing.T) {
			tls := func(o *Options) { o.TLS = c }
			a, b := newMember(t, 1, tls), newMember(t, 2, tls)
			conn, err := a.GetConnection(t.Context(), b.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			sizes := []int{1, 1000, 20000, 200000, 3 << 20, 5, 17 << 20, 9}
			for _, n := range sizes {
				if err := conn.SendMessageBatch(batchOf(n)); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "all of them", func() bool { return b.received() == len(sizes) })
			for i, n := range sizes {
				got, want := b.got[i], batchOf(n)
				if got.SourceAddress != "127.0.0.1:1001" || got.DeploymentId != want.DeploymentId || len(got.Requests) != 1 ||
					!bytes.Equal(got.Requests[0].Entries[0].Cmd, want.Requests[0].Entries[0].Cmd) {
					t.Fatalf("batch %d of %d bytes did not arrive as it was sent", i, n)
				}
			}
		})
	}
}

// A batch that takes longer on its way than an ack may is no silence.
func TestLargeBatchOverASlowNetwork(t *testing.T) {
	for name, c := range map[string]*grouptls.Config{"plain": nil, "tls": required(t)} {
		t.Run(name, func(t *testing.T) {
			tls := func(o *Options) { o.TLS = c }
			a, b := newMember(t, 1, tls), newMember(t, 2, tls)
			r := newRelay(t, b.addr)
			r.slow(8 * time.Millisecond) // 4 MB a second
			conn, err := a.GetConnection(t.Context(), r.addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// Again where this machine stood still for longer than an ack may take.
			eventually(t, "it", func() bool {
				if err := conn.SendMessageBatch(batchOf(16 << 20)); err != nil {
					t.Fatal(err)
				}
				for wait := 0; wait < 500 && b.received() == 0; wait++ {
					time.Sleep(20 * time.Millisecond)
				}
				return b.received() > 0
			})
		})
	}
}

func TestSnapshotChunks(t *testing.T) {
	for name, c := range map[string]*grouptls.Config{"plain": nil, "tls": required(t)} {
		t.Run(name, func(t *testing.T) {
			tls := func(o *Options) { o.TLS = c }
			a, b := newMember(t, 1, tls), newMember(t, 2, tls)
			conn, err := a.GetSnapshotConnection(t.Context(), b.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			chunk := raftpb.Chunk{ShardID: 1, ReplicaID: 2, From: 1, Filepath: "/x/snapshot", Data: bytes.Repeat([]byte{5}, 2<<20)}
			for chunk.ChunkId = range uint64(3) {
				if err := conn.SendChunk(chunk); err != nil {
					t.Fatal(err)
				}
			}
			// Sent means taken: nothing has to be waited for.
			if len(b.chunks) != 3 || b.chunks[2].ChunkId != 2 || !bytes.Equal(b.chunks[2].Data, chunk.Data) {
				t.Fatalf("%d chunks arrived", len(b.chunks))
			}
			b.mu.Lock()
			b.reject = true
			b.mu.Unlock()
			if err := conn.SendChunk(chunk); err == nil {
				t.Fatal("a chunk that was rejected counts as sent")
			}
			b.Transport.Close()
			if err := conn.SendChunk(chunk); err == nil {
				t.Fatal("a chunk to nobody counts as sent")
			}
		})
	}
}

// Dragonboat must never see a target fail: its breaker would drop everything for
// up to 1.5 s.
func TestNobodyThere(t *testing.T) {
	a := newMember(t, 1, nil)
	ln, err := net.Listen("tcp", net.JoinHostPort(mysqldtest.Loopback(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	target := ln.Addr().String()
	ln.Close()
	conn, err := a.GetConnection(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 10000 { // with a wait each they would take forty minutes
		if err := conn.SendMessageBatch(heartbeat(1, 2)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.GetSnapshotConnection(t.Context(), target); err == nil {
		t.Fatal("a snapshot connection to nobody")
	}
}

// The first message waits for its connection: it may be a candidate's only
// request.
func TestFirstMessageIsNotLost(t *testing.T) {
	b := newMember(t, 2, nil)
	slow := func(ctx context.Context, network, addr string) (net.Conn, error) {
		time.Sleep(20 * time.Millisecond)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	a := newMember(t, 1, func(o *Options) { o.dial = slow })
	conn, err := a.GetConnection(t.Context(), b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l := conn.(*link)
	if err := conn.SendMessageBatch(heartbeat(1, 2)); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	up := l.cur != nil
	l.mu.Unlock()
	if !up {
		t.Skip("this machine took more than the wait for 20 ms")
	}
	eventually(t, "the message", func() bool { return b.received() == 1 })
}

func TestComesBackAfterRestart(t *testing.T) {
	a, b := newMember(t, 1, nil), newMember(t, 2, nil)
	addr := b.addr
	beats(t, a, addr, 2)
	eventually(t, "messages", func() bool { return b.received() > 3 })
	b.Transport.Close()
	eventually(t, "the loss", func() bool { return a.log.says("cannot connect", addr) })
	again := &member{log: b.log}
	began := time.Now()
	again.start(t, b.o, b.self, addr)
	defer again.Transport.Close()
	eventually(t, "messages again", func() bool { return again.received() > 0 })
	t.Logf("the first message came %s after the restart", time.Since(began))
}

// A hole in the network is noticed though no kernel says so, and the messages
// flow again soon after it closed, however long it was.
func TestComesBackAfterHole(t *testing.T) {
	for name, c := range map[string]*grouptls.Config{"plain": nil, "tls": required(t)} {
		t.Run(name, func(t *testing.T) {
			tls := func(o *Options) { o.TLS = c }
			a, b := newMember(t, 1, tls), newMember(t, 2, tls)
			r := newRelay(t, b.addr)
			beats(t, a, r.addr(), 2) // a to b through the relay
			beats(t, b, a.addr, 1)   // b to a past it
			eventually(t, "messages", func() bool { return a.received() > 3 && b.received() > 3 })
			r.set(true, false)
			eventually(t, "the hole to be noticed", func() bool { return a.log.says("lost", errSilent.Error()) })
			n := a.received()
			eventually(t, "the other direction to go on", func() bool { return a.received() > n+10 })
			// What was stuck in the hole does not count.
			began, sent := time.Now(), a.sent.Load()
			r.set(false, false)
			eventually(t, "messages again", func() bool { return b.latest() > sent })
			t.Logf("the first message came %s after the hole", time.Since(began))
		})
	}
}

func TestComesBackAfterCut(t *testing.T) {
	a, b := newMember(t, 1, nil), newMember(t, 2, nil)
	r := newRelay(t, b.addr)
	beats(t, a, r.addr(), 2)
	eventually(t, "messages", func() bool { return b.received() > 3 })
	// A connection that only broke is replaced; one that cannot be made is tried
	// again.
	r.set(false, true)
	eventually(t, "the loss", func() bool { return a.log.says("cannot connect") })
	began, sent := time.Now(), a.sent.Load()
	r.set(false, false)
	eventually(t, "messages again", func() bool { return b.latest() > sent })
	t.Logf("the first message came %s after the cut", time.Since(began))
}

// Where SYNs vanish, new ones are sent at our own pace.
func TestDialDoesNotWaitForTheKernel(t *testing.T) {
	b := newMember(t, 2, nil)
	var dials atomic.Int64
	a := newMember(t, 1, func(o *Options) {
		o.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials.Add(1) < 3 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
	})
	beats(t, a, b.addr, 2)
	eventually(t, "messages", func() bool { return b.received() > 0 })
	if dials.Load() < 3 {
		t.Fatal(dials.Load())
	}
}

func TestOtherGroupIsRefused(t *testing.T) {
	const other = "99999999-2222-3333-4444-555555555555"
	a, b := newMember(t, 1, func(o *Options) { o.Group = other }), newMember(t, 2, nil)
	beats(t, a, b.addr, 2)
	eventually(t, "the refusal", func() bool {
		return a.log.says(testGroup, other, "cannot connect") && b.log.says(testGroup, other, "refused")
	})
	if _, err := a.GetSnapshotConnection(t.Context(), b.addr); !errors.Is(err, ErrRefused) {
		t.Fatal(err)
	}
	if b.received() != 0 {
		t.Fatal("a message of another group arrived")
	}
}

func TestFence(t *testing.T) {
	var fenced atomic.Bool
	a := newMember(t, 1, nil)
	b := newMember(t, 2, func(o *Options) { o.Allowed = func(id uint64) bool { return id != 1 || !fenced.Load() } })
	c := newMember(t, 3, nil)
	beats(t, a, b.addr, 2)
	beats(t, c, b.addr, 2)
	from := func(id uint64) (n int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, x := range b.got {
			if x.Requests[0].From == id {
				n++
			}
		}
		return n
	}
	eventually(t, "messages of both", func() bool { return from(1) > 3 && from(3) > 3 })
	fenced.Store(true)
	eventually(t, "the end of the connection", func() bool { return b.log.says("ended", errFenced.Error()) })
	eventually(t, "the refusal of the next", func() bool { return a.log.says("cannot connect", errFenced.Error()) })
	n, m := from(1), from(3)
	eventually(t, "messages of the other", func() bool { return from(3) > m+10 })
	if from(1) != n {
		t.Fatal("a fenced replica's messages arrive")
	}
	fenced.Store(false)
	eventually(t, "messages of both again", func() bool { return from(1) > n })
}

// Dragonboat panics when a replica's address changes.
func TestClaims(t *testing.T) {
	b := newMember(t, 2, func(o *Options) {
		o.Address = func(id uint64) (string, bool) { return "10.0.0.1:1", id == 1 }
	})
	say := func(h hello) string {
		h.version, h.purpose, h.group = version, forMessages, testGroup
		p, err := readBlock(bufio.NewReader(bytes.NewReader(speak(t, b, h.append(nil)))))
		if err != nil {
			t.Fatal(err)
		}
		reason, err := parseReply(p)
		if err != nil {
			t.Fatal(err)
		}
		return reason
	}
	for _, x := range []struct {
		replica uint64
		address string
		want    string
	}{
		{1, "10.0.0.1:1", ""}, {1, "10.0.0.2:1", "is at"}, {1, "10.0.0.1:1", ""},
		{7, "10.0.0.7:1", ""}, {7, "10.0.0.7:1", ""}, {7, "10.0.0.8:1", "was at"},
		{2, "10.0.0.2:1", "as this member is"},
	} {
		if got := say(hello{replica: x.replica, address: x.address}); (got == "") != (x.want == "") || !strings.Contains(got, x.want) {
			t.Errorf("replica %d at %s: %q", x.replica, x.address, got)
		}
	}
	if got := say(hello{replica: 1, address: "10.0.0.1:1", generation: 7}); !strings.Contains(got, "membership 7 there, an unforced membership here") {
		t.Errorf("of another membership: %q", got)
	}
	h := hello{version: version + 1, purpose: forMessages, replica: 1, group: testGroup, address: "10.0.0.1:1"}
	if b := speak(t, b, h.append(nil)); !bytes.Contains(b, []byte("version")) {
		t.Errorf("another version: %q", b)
	}
}

// A log that is closed takes no messages, of whatever membership; calls are taken by
// both, whatever the membership.
func TestClosedAndCalls(t *testing.T) {
	closed := newMember(t, 2, func(o *Options) {
		o.Closed, o.Generation = true, 7
		o.Called = func(_ context.Context, c net.Conn) { _, _ = io.Copy(c, c) }
	})
	a := newMember(t, 1, nil)
	for _, g := range []uint64{0, 7} {
		h := hello{version: version, purpose: forMessages, replica: 1, generation: g, group: testGroup, address: a.addr}
		if b := speak(t, closed, h.append(nil)); !bytes.Contains(b, []byte("its log is closed")) {
			t.Errorf("generation %d: %q", g, b)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	echo := func(from, to *member) {
		t.Helper()
		c, err := from.Call(ctx, to.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		want := bytes.Repeat([]byte("echo"), 1<<18)
		go func() { _, _ = c.Write(want) }() // ends with c
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v", err)
		}
	}
	echo(a, closed)
	tls := func(o *Options) {
		o.TLS = required(t)
		o.Called = func(_ context.Context, c net.Conn) { _, _ = io.Copy(c, c) }
	}
	echo(newMember(t, 3, tls), newMember(t, 4, tls))
	if c, err := closed.Call(ctx, a.addr); !errors.Is(err, ErrRefused) {
		t.Errorf("who takes no calls: %v, %v", c, err)
	}
}

// Whatever a stranger says, only its own connection ends.
func TestGarbage(t *testing.T) {
	b := newMember(t, 2, nil)
	a := newMember(t, 1, nil)
	beats(t, a, b.addr, 2)
	eventually(t, "messages", func() bool { return b.received() > 0 })
	welcome := hello{version: version, purpose: forMessages, replica: 5, group: testGroup, address: "127.0.0.1:5"}.append(nil)
	chunks := hello{version: version, purpose: forChunks, replica: 5, group: testGroup, address: "127.0.0.1:5"}.append(nil)
	marshal := func(change func(*raftpb.MessageBatch)) []byte {
		x := heartbeat(5, 2)
		change(&x)
		p, err := x.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	message := func(change func(*raftpb.Message)) []byte {
		return marshal(func(b *raftpb.MessageBatch) { change(&b.Requests[0]) })
	}
	chunk := func(c raftpb.Chunk) []byte {
		p, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	frames := func(hello []byte, parts ...[]byte) []byte { return bytes.Join(append([][]byte{hello}, parts...), nil) }
	before := b.received
	for name, say := range map[string][]byte{
		"nothing":           nil,
		"http":              []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"tls":               {22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3},
		"zeros":             make([]byte, 4096),
		"ones":              bytes.Repeat([]byte{0xff}, 4096),
		"long hello":        {4, 1},
		"half a hello":      welcome[:20],
		"half a frame":      frames(welcome, sealed(frameBatch, marshal(func(*raftpb.MessageBatch) {}), true)[:15]),
		"huge":              frames(welcome, binary.BigEndian.AppendUint32(nil, 1<<31), []byte{1, 0, 0, 0, 0, 1, 2, 3}),
		"empty frame":       frames(welcome, sealed(frameBatch, nil, true)),
		"checksum":          frames(welcome, sealed(frameBatch, marshal(func(*raftpb.MessageBatch) {}), false)),
		"type":              frames(welcome, sealed(9, []byte("x"), true)),
		"chunk as message":  frames(welcome, sealed(frameChunk|flagAsk, chunk(raftpb.Chunk{}), true)),
		"message as chunk":  frames(chunks, sealed(frameBatch, marshal(func(*raftpb.MessageBatch) {}), true)),
		"no protobuf":       frames(welcome, sealed(frameBatch, []byte{0xff, 0xff, 0xff}, true)),
		"no messages":       frames(welcome, sealed(frameBatch, marshal(func(b *raftpb.MessageBatch) { b.Requests = nil }), true)),
		"to nobody":         frames(welcome, sealed(frameBatch, message(func(m *raftpb.Message) { m.To = 0 }), true)),
		"from another":      frames(welcome, sealed(frameBatch, message(func(m *raftpb.Message) { m.From = 1 }), true)),
		"other shard":       frames(welcome, sealed(frameBatch, message(func(m *raftpb.Message) { m.ShardID = 2 }), true)),
		"install snapshot":  frames(welcome, sealed(frameBatch, message(func(m *raftpb.Message) { m.Type = raftpb.InstallSnapshot }), true)),
		"local message":     frames(welcome, sealed(frameBatch, message(func(m *raftpb.Message) { m.Type = raftpb.Election }), true)),
		"unknown message":   frames(welcome, sealed(frameBatch, message(func(m *raftpb.Message) { m.Type = 99 }), true)),
		"chunk to another":  frames(chunks, sealed(frameChunk|flagAsk, chunk(raftpb.Chunk{ShardID: 1, From: 5, ReplicaID: 3, Filepath: "/a"}), true)),
		"chunk of a shard":  frames(chunks, sealed(frameChunk|flagAsk, chunk(raftpb.Chunk{ShardID: 2, From: 5, ReplicaID: 2, Filepath: "/a"}), true)),
		"chunk to a folder": frames(chunks, sealed(frameChunk|flagAsk, chunk(raftpb.Chunk{ShardID: 1, From: 5, ReplicaID: 2, Filepath: "/a/.."}), true)),
		"chunk of nothing":  frames(chunks, sealed(frameChunk|flagAsk, chunk(raftpb.Chunk{ShardID: 1, From: 5, ReplicaID: 2}), true)),
	} {
		answer := speak(t, b, say)
		if bytes.Contains(answer, []byte{ack}) {
			t.Errorf("%s was acknowledged", name)
		}
	}
	b.mu.Lock()
	for _, x := range b.got {
		if x.Requests[0].From != 1 {
			t.Errorf("a stranger's message arrived: %+v", x)
		}
	}
	if len(b.chunks) > 0 {
		t.Errorf("a stranger's chunk arrived")
	}
	b.mu.Unlock()
	n := before()
	eventually(t, "the members' messages", func() bool { return b.received() > n })
	if a.log.says("lost") {
		t.Errorf("a member's connection suffered:\n%s", a.log.text())
	}
	// A good stranger, to show that the bad ones were refused for what they said.
	m := b.received()
	speak(t, b, frames(welcome, sealed(frameBatch, marshal(func(*raftpb.MessageBatch) {}), true)))
	eventually(t, "a good one", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, x := range b.got[m:] {
			if x.Requests[0].From == 5 {
				return true
			}
		}
		return false
	})
}

func TestAllowlist(t *testing.T) {
	list := func(entries string) *allowlist.List {
		l, err := allowlist.New(allowlist.Options{Entries: entries, Logger: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a := newMember(t, 1, nil)
	closed := newMember(t, 2, func(o *Options) { o.Allowlist = list("10.0.0.0/8,192.0.2.1") })
	open := newMember(t, 3, func(o *Options) { o.Allowlist = list("AUTOMATIC") })
	beats(t, a, closed.addr, 2)
	beats(t, a, open.addr, 3)
	eventually(t, "messages to the open one", func() bool { return open.received() > 0 })
	eventually(t, "the refusal", func() bool {
		return closed.log.says("IP address 127.0.0.1 refused", "not in the IP allowlist") && a.log.says("cannot connect", "ip_allowlist")
	})
	if closed.received() > 0 {
		t.Fatal("a message passed the allowlist")
	}
	// It tries on, and the log does not grow with that.
	eventually(t, "more refusals", func() bool { return strings.Count(closed.log.text(), "refused:") >= 4 })
	if n := strings.Count(closed.log.text(), `"level":"warn"`); n != 1 {
		t.Fatalf("%d warnings", n)
	}
}

func TestTLSModes(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	later, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	load := func(mode grouptls.Mode, by *tlstest.CA, until time.Time, hosts ...string) *grouptls.Config {
		o := grouptls.Options{Mode: mode, CA: ca.File, Hosts: []string{"127.0.0.1"}}
		if by != nil {
			o.Cert, o.Key = by.Issue(t, until, hosts...)
		}
		c, err := grouptls.Load(o)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	identity, authority := grouptls.VerifyIdentity, grouptls.VerifyCA
	good := load(identity, ca, later, "127.0.0.1")
	for name, c := range map[string]struct {
		from, to *grouptls.Config
		want     string // of either's log; empty: messages arrive
	}{
		"disabled":               {nil, nil, ""},
		"required":               {required(t), required(t), ""},
		"authority":              {load(authority, ca, later, "x"), load(authority, ca, later, "y"), ""},
		"identity":               {good, good, ""},
		"plain to tls":           {nil, required(t), "does not use TLS"},
		"tls to plain":           {required(t), nil, "uses TLS"},
		"required to authority":  {required(t), load(authority, ca, later, "x"), "certificate"},
		"authority to required":  {load(authority, ca, later, "x"), required(t), "certificate"},
		"another authority":      {load(authority, other, later, "127.0.0.1"), good, "unknown authority"},
		"to another authority":   {good, load(authority, other, later, "127.0.0.1"), "unknown authority"},
		"expired":                {load(authority, ca, past, "127.0.0.1"), good, "expired"},
		"to an expired one":      {good, load(authority, ca, past, "127.0.0.1"), "expired"},
		"to a wrong name":        {good, load(identity, ca, later, "db9.example.com"), "127.0.0.1 because"},
		"from a wrong name":      {load(authority, ca, later, "db9.example.com"), good, "127.0.0.1 because"},
		"a wrong name, not seen": {load(authority, ca, later, "db9.example.com"), load(authority, ca, later, "127.0.0.1"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := newMember(t, 1, func(o *Options) { o.TLS = c.from })
			b := newMember(t, 2, func(o *Options) { o.TLS = c.to })
			beats(t, a, b.addr, 2)
			if c.want == "" {
				eventually(t, "messages", func() bool { return b.received() > 0 })
				return
			}
			eventually(t, "a line that says why", func() bool { return a.log.says(c.want) || b.log.says(c.want) })
			eventually(t, "another attempt", func() bool { return a.log.says("cannot connect") })
			if b.received() > 0 {
				t.Fatal("a message arrived")
			}
		})
	}
}

// Close does not wait for a target that takes nothing.
func TestCloseWhileBlocked(t *testing.T) {
	a, b := newMember(t, 1, nil), newMember(t, 2, nil)
	r := newRelay(t, b.addr)
	conn, err := a.GetConnection(context.Background(), r.addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SendMessageBatch(heartbeat(1, 2)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a message", func() bool { return b.received() > 0 })
	r.set(true, false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for conn.SendMessageBatch(batchOf(4<<20)) == nil {
		}
	}()
	time.Sleep(50 * time.Millisecond)
	if err := a.Transport.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
	conn.Close()
	if _, err := a.GetConnection(context.Background(), r.addr()); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestValidate(t *testing.T) {
	for a, want := range map[string]bool{"127.0.0.1:1": true, "[::1]:33061": true, "db1.example.com:33061": true,
		"::1:33061": false, "db1": false, ":33061": false, "db1:0": false, "db1:99999": false, "a b:1": false, "": false} {
		if NewFactory(Options{}).Validate(a) != want {
			t.Errorf("%q: %v", a, !want)
		}
	}
}
