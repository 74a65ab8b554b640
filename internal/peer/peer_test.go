package peer

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/applied"
	"cohort/internal/mysqldtest"
	"cohort/internal/skip"
)

const patience = time.Minute

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

// running starts run and, at the test's end, stops it and waits for it.
func running(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); run(ctx) }()
	stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("Run did not end")
		}
	}
	t.Cleanup(stop)
	return stop
}

func server(t *testing.T, change func(*Options)) (*Server, Target, func()) {
	t.Helper()
	o := Options{Addr: net.JoinHostPort(mysqldtest.Loopback(), "0"), MemberID: "m1", Token: NewToken(), Source: applied.New(applied.Set{}), Logger: zerolog.Nop()}
	if change != nil {
		change(&o)
	}
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, s.Run)
	return s, Target{Addr: s.Addr().String(), Token: o.Token, MemberID: o.MemberID}, stop
}

// follower is a subscriber that mirrors the set.
type follower struct {
	*Subscriber
	target    atomic.Pointer[Target]
	set       *applied.Tracker
	mu        sync.Mutex
	ups       int
	downs     []error
	heartbeat string
	wrong     string
}

func follow(t *testing.T, target Target, change func(*SubscriberOptions)) *follower {
	t.Helper()
	f := &follower{set: applied.New(applied.Set{})}
	f.target.Store(&target)
	fresh := false
	o := SubscriberOptions{
		Target: func() (Target, bool) { p := f.target.Load(); return *p, p.Addr != "" },
		Self:   "m2",
		Logger: zerolog.Nop(),
		OnUp: func(Target) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.ups++
			fresh = true
		},
		OnDown: func(err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.downs = append(f.downs, err)
		},
		OnApplied: func(u applied.Update) {
			if fresh && !u.Reset {
				f.mu.Lock()
				f.wrong = "the first update after OnUp has no Reset"
				f.mu.Unlock()
			}
			fresh = false
			if u.Reset {
				f.set.Reset(applied.Set{})
			}
			for _, r := range u.Ranges {
				f.set.AddRange(r.From, r.To)
			}
		},
		OnHeartbeat: func(b []byte) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.heartbeat = string(b)
		},
	}
	if change != nil {
		change(&o)
	}
	f.Subscriber = NewSubscriber(o)
	running(t, f.Run)
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.wrong != "" {
			t.Error(f.wrong)
		}
	})
	return f
}

func (f *follower) counts() (ups, downs int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ups, len(f.downs)
}

func (f *follower) reaches(t *testing.T, n uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := f.set.WaitAll(ctx, n); err != nil {
		t.Fatalf("1..%d: %v, have %+v", n, err, f.set.Snapshot())
	}
}

func TestAppliedNumbersArrive(t *testing.T) {
	src := applied.New(applied.Set{Low: 100, Extra: []applied.Range{{From: 105, To: 110}}})
	_, target, _ := server(t, func(o *Options) { o.Source = src; o.State = func() []byte { return []byte("ONLINE") } })
	f := follow(t, target, nil)
	f.reaches(t, 100)
	eventually(t, "the extra range", func() bool { return f.set.Contains(110) && !f.set.Contains(104) })
	src.Add(103)
	eventually(t, "103 alone", func() bool { return f.set.Contains(103) })
	src.AddRange(101, 104)
	f.reaches(t, 110)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := 111 + w; n <= 3110; n += 8 {
				src.Add(uint64(n))
			}
		}()
	}
	wg.Wait()
	f.reaches(t, 3110)
	src.Reset(applied.Set{Low: 7})
	eventually(t, "the smaller set", func() bool { return f.set.Low() == 7 })
	eventually(t, "a heartbeat", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.heartbeat == "ONLINE" })
}

func TestIPv6(t *testing.T) {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		skip.For(t, "this machine has no IPv6 loopback")
	}
	_, target, _ := server(t, func(o *Options) { o.Listener = ln; o.Source = applied.New(applied.Set{Low: 3}) })
	follow(t, target, nil).reaches(t, 3)
}

func TestReconnectToANewAddress(t *testing.T) {
	_, first, stop := server(t, func(o *Options) { o.Source = applied.New(applied.Set{Low: 5}) })
	f := follow(t, first, nil)
	f.reaches(t, 5)
	stop()
	eventually(t, "down", func() bool { _, d := f.counts(); return d == 1 })
	if f.Up() {
		t.Error("up without a server")
	}
	_, second, _ := server(t, func(o *Options) { o.Source = applied.New(applied.Set{Low: 9}) })
	f.target.Store(&second)
	f.Kick()
	f.reaches(t, 9)
	// A target that moves while the old connection still stands.
	_, third, _ := server(t, func(o *Options) { o.Source = applied.New(applied.Set{Low: 12}) })
	f.target.Store(&third)
	f.Kick()
	f.reaches(t, 12)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ups != 3 || len(f.downs) != 2 || !errors.Is(f.downs[1], errMoved) {
		t.Errorf("%d ups, %v", f.ups, f.downs)
	}
}

func TestWrongTokenOrMember(t *testing.T) {
	s, target, _ := server(t, func(o *Options) { o.Source = applied.New(applied.Set{Low: 1}) })
	sub := NewSubscriber(SubscriberOptions{Self: "m2", Logger: zerolog.Nop()})
	for _, bad := range []Target{
		{Addr: target.Addr, Token: NewToken(), MemberID: "m1"},
		{Addr: target.Addr, Token: target.Token, MemberID: "m3"},
	} {
		if _, err := sub.connect(t.Context(), bad); !errors.Is(err, ErrAuth) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	eventually(t, "refused connections are gone", func() bool { return len(s.slots) == 0 })
	follow(t, target, nil).reaches(t, 1)
}

// A process that took over a dead member's address must be recognised.
func TestImpostorServer(t *testing.T) {
	_, target, _ := server(t, func(o *Options) { o.Token = NewToken() })
	target.Token = NewToken()
	sub := NewSubscriber(SubscriberOptions{Self: "m2", Logger: zerolog.Nop()})
	if _, err := sub.connect(t.Context(), target); !errors.Is(err, ErrAuth) {
		t.Errorf("server with another token: %v", err)
	}
	// One that says welcome to everybody.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		c := newConn(nc, patience)
		c.writeFrame(frameGreeting, hello{version: Version, nonce: newNonce(), member: "m1"}.append)
		c.read(maxHello)
		c.writeFrame(frameWelcome, func(b []byte) []byte { return append(b, make([]byte, 32)...) })
		c.read(maxHello)
	}()
	target.Addr = ln.Addr().String()
	if _, err := sub.connect(t.Context(), target); !errors.Is(err, ErrAuth) {
		t.Errorf("an impostor's welcome: %v", err)
	}
}

func TestOtherVersion(t *testing.T) {
	s, target, _ := server(t, nil)
	nc, err := net.Dial("tcp", target.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := newConn(nc, patience)
	if _, _, err := c.read(maxHello); err != nil {
		t.Fatal(err)
	}
	c.writeFrame(frameLogin, hello{version: 2, nonce: newNonce(), member: "m9", proof: make([]byte, 99)}.append)
	if _, _, err := c.read(maxHello); err == nil {
		t.Error("version 2 was answered")
	}
	if _, err := parseHello((hello{version: 2}).append(nil), 0); !errors.Is(err, ErrVersion) {
		t.Errorf("%v", err)
	}
	eventually(t, "the connection is gone", func() bool { return len(s.slots) == 0 })
}

func TestMalformedFramesEndThatConnectionOnly(t *testing.T) {
	src := applied.New(applied.Set{Low: 1})
	s, target, _ := server(t, func(o *Options) { o.Source = src })
	f := follow(t, target, nil)
	f.set.OnWait(f.Attend)
	f.reaches(t, 1)
	eventually(t, "one connection", func() bool { return len(s.slots) == 1 })
	for _, junk := range []string{"", "GET / HTTP/1.1\r\n\r\n", "\x00\x00\x00\x01\x02", "\xff\xff\xff\xff\x02", strings.Repeat("x", 5000)} {
		nc, err := net.Dial("tcp", target.Addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(nc, junk)
		nc.(*net.TCPConn).CloseWrite()
		nc.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, nc); errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%.10q: still open", junk)
		}
		nc.Close()
	}
	// After authentication too.
	sub := NewSubscriber(SubscriberOptions{Self: "m3", Logger: zerolog.Nop()})
	for _, typ := range []frameType{frameApplied, frameRequest, 0, 200} {
		c, err := sub.connect(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		c.writeFrame(typ, func(b []byte) []byte { return append(b, 0xff) })
		for {
			if _, _, err = c.read(MaxFrame); err != nil {
				break
			}
		}
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			t.Errorf("type %d: still open", typ)
		}
		c.Close()
	}
	eventually(t, "only the good one is left", func() bool { return len(s.slots) == 1 })
	src.Add(2)
	f.reaches(t, 2)
	if ups, downs := f.counts(); ups != 1 || downs != 0 {
		t.Errorf("the good connection: %d ups, %d downs", ups, downs)
	}
}

func TestSilenceEndsAConnection(t *testing.T) {
	// The server is told to be silent: its heartbeats come once an hour.
	_, target, _ := server(t, func(o *Options) { o.Heartbeat = time.Hour })
	f := follow(t, target, func(o *SubscriberOptions) { o.Timeout = 50 * time.Millisecond; o.Heartbeat = 10 * time.Millisecond })
	eventually(t, "down and up again", func() bool { u, d := f.counts(); return u >= 2 && d >= 1 })
	// And a silent client is dropped by the server.
	s, target, _ := server(t, func(o *Options) { o.Timeout = 50 * time.Millisecond; o.Heartbeat = 10 * time.Millisecond })
	nc, err := net.Dial("tcp", target.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	bufio.NewReader(nc).Peek(1)
	eventually(t, "the silent client is dropped", func() bool { return len(s.slots) == 0 })
}

func TestTooManyConnections(t *testing.T) {
	s, target, _ := server(t, func(o *Options) { o.MaxConns = 1; o.Source = applied.New(applied.Set{Low: 1}) })
	follow(t, target, nil).reaches(t, 1)
	nc, err := net.Dial("tcp", target.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetReadDeadline(time.Now().Add(patience))
	if n, err := nc.Read(make([]byte, 1)); n != 0 || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second connection got %d bytes, %v", n, err)
	}
	if len(s.slots) != 1 {
		t.Error("the first connection is gone")
	}
}

func TestCalls(t *testing.T) {
	entered := make(chan struct{}, 1)
	_, target, stop := server(t, func(o *Options) {
		o.Handlers = map[string]Handler{
			"echo": func(_ context.Context, p []byte) ([]byte, error) { return p, nil },
			"fail": func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no") },
			"big":  func(context.Context, []byte) ([]byte, error) { return make([]byte, MaxFrame), nil },
			"hang": func(ctx context.Context, _ []byte) ([]byte, error) {
				entered <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			},
		}
	})
	f := follow(t, target, nil)
	eventually(t, "up", f.Up)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			want := strings.Repeat("x", i*1000)
			if got, err := f.Call(t.Context(), "echo", []byte(want)); err != nil || string(got) != want {
				t.Errorf("echo of %d bytes: %d, %v", len(want), len(got), err)
			}
		}()
	}
	wg.Wait()
	var remote *RemoteError
	for method, text := range map[string]string{"fail": "no", "none": "no such method", "big": "too large"} {
		if _, err := f.Call(t.Context(), method, nil); !errors.As(err, &remote) || !strings.Contains(remote.Text, text) {
			t.Errorf("%s: %v", method, err)
		}
	}
	if _, err := f.Call(t.Context(), "echo", make([]byte, MaxFrame)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Call(ctx, "hang", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	<-entered
	lost := make(chan error, 1)
	go func() { _, err := f.Call(t.Context(), "hang", nil); lost <- err }()
	<-entered
	stop()
	// The server ends its handlers before the connection is gone, so either
	// answer is honest: the handler's failure, or no response.
	if err := <-lost; !errors.Is(err, ErrLost) && !errors.As(err, &remote) {
		t.Errorf("lost: %v", err)
	}
	eventually(t, "down", func() bool { return !f.Up() })
	if _, err := f.Call(t.Context(), "echo", nil); !errors.Is(err, ErrDown) {
		t.Errorf("down: %v", err)
	}
}

func TestSourceClosedDoesNotSpin(t *testing.T) {
	src := applied.New(applied.Set{})
	src.Close(nil)
	_, target, _ := server(t, func(o *Options) { o.Source = src })
	var dials atomic.Int64
	f := follow(t, target, func(o *SubscriberOptions) {
		o.Dial = func(ctx context.Context, n, a string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, n, a)
		}
	})
	eventually(t, "a few attempts", func() bool { return dials.Load() >= 4 })
	_ = f
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"m1"}},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	_, target, _ := server(t, func(o *Options) {
		o.Source = applied.New(applied.Set{Low: 4})
		o.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	})
	f := follow(t, target, func(o *SubscriberOptions) {
		o.TLS = func(host string) *tls.Config {
			if want, _, _ := net.SplitHostPort(target.Addr); host != want {
				return &tls.Config{}
			}
			return &tls.Config{InsecureSkipVerify: true}
		}
	})
	f.reaches(t, 4)
}

func TestAdmit(t *testing.T) {
	var asked atomic.Int64
	var open atomic.Bool
	_, target, _ := server(t, func(o *Options) {
		o.Source = applied.New(applied.Set{Low: 4})
		o.Admit = func(_ context.Context, remote net.Addr) error {
			asked.Add(1)
			if !open.Load() {
				return errors.New("not from " + remote.String())
			}
			return nil
		}
	})
	f := follow(t, target, nil)
	eventually(t, "a few refusals", func() bool { return asked.Load() >= 3 })
	if ups, _ := f.counts(); ups > 0 {
		t.Fatal("an address that is not admitted came in")
	}
	open.Store(true)
	f.reaches(t, 4)
}

func TestNewServerRefuses(t *testing.T) {
	src := applied.New(applied.Set{})
	for _, o := range []Options{
		{Token: NewToken(), MemberID: "m"}, {Source: src, MemberID: "m"}, {Source: src, Token: "short", MemberID: "m"},
		{Source: src, Token: NewToken()}, {Source: src, Token: NewToken(), MemberID: "m", Addr: "no port"},
	} {
		if s, err := NewServer(o); err == nil {
			s.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
}

func TestNoticesArriveInOrder(t *testing.T) {
	var mu sync.Mutex
	var got []string
	_, target, _ := server(t, func(o *Options) {
		o.OnNotice = func(s string) { mu.Lock(); defer mu.Unlock(); got = append(got, s) }
	})
	f := follow(t, target, nil)
	eventually(t, "up", f.Up)
	const n = 3*noticeBatch + 7
	for i := range n {
		f.Notify(strconv.Itoa(i))
	}
	f.Notify(strings.Repeat("x", maxNotice+1)) // left out
	f.Notify("last")
	eventually(t, "all of them", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == n+1 })
	for i, s := range got[:n] {
		if s != strconv.Itoa(i) {
			t.Fatalf("notice %d is %s", i, s)
		}
	}
}

// Numbers that nobody waits for are gathered; a word that somebody waits brings
// them, and those that follow, at once.
func TestAttendBringsNumbers(t *testing.T) {
	src := applied.New(applied.Set{Low: 1})
	s, target, _ := server(t, func(o *Options) { o.Source, o.spacing = src, 24*time.Hour })
	f := follow(t, target, nil)
	if s.Attended("m2") {
		t.Error("somebody waits at once")
	}

	f.set.OnWait(f.Attend)
	f.reaches(t, 1)
	for n := uint64(2); n < 50; n++ {
		src.Add(n)
		f.reaches(t, n) // waits, so it attends
	}
	eventually(t, "attention", func() bool {
		f.set.Announce()
		return s.Attended("m2")
	})
	if s.Attended("m3") {
		t.Error("nobody waits at a member that is not there")
	}
	eventually(t, "its end", func() bool { return !s.Attended("m2") })
}
