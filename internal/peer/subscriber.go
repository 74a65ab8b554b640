package peer

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"cohort/internal/applied"
	"cohort/internal/rawnet"
)

// Backoff between connection attempts: the first follows at once, then the pause
// doubles between these two. A member that restarts is worth a packet a second.
const (
	minBackoff = 10 * time.Millisecond
	maxBackoff = time.Second
)

// Target is one member's channel, as it published it through the log.
type Target struct {
	// Addr is host:port.
	Addr string
	// Token is the server's token.
	Token string
	// MemberID is the server_uuid that the server must have.
	MemberID string
}

// SubscriberOptions tells a subscriber whom to follow and whom to tell. The
// callbacks run on one goroutine, in order, between OnUp and OnDown; they must
// not block, and nil ones are left out.
type SubscriberOptions struct {
	// Target is asked before each attempt to connect, since a restarted member
	// has another address and token. false: unknown for now, try again later.
	Target func() (Target, bool)
	// Self is the server_uuid of this member.
	Self string
	// OnUp is called when a connection is authenticated.
	OnUp func(Target)
	// OnApplied is called with what became visible on the target's mysqld. The
	// first call after OnUp has Reset set: its ranges replace what was known.
	OnApplied func(applied.Update)
	// OnHeartbeat is called with the target's state; the bytes are the callee's.
	OnHeartbeat func(state []byte)
	// OnDown is called when a connection that was up has ended; never otherwise.
	OnDown func(error)
	// Dial defaults to rawnet.Dialer's; TLS, if given, is put on top, for the host of
	// the target's address.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	TLS  func(host string) *tls.Config
	// Heartbeat, Timeout and RowsTimeout default as for the server.
	Heartbeat, Timeout, RowsTimeout time.Duration
	Logger                          zerolog.Logger
}

// Subscriber follows one member. Lifecycle: NewSubscriber, Run.
type Subscriber struct {
	o    SubscriberOptions
	kick chan struct{}
	link atomic.Pointer[link] // nil while down

	contact contact
}

type link struct {
	c       *conn
	calls   calls
	notices notices
	// attended is when Attend was heard last, in ns of uptime; 0 for never.
	attended atomic.Int64
}

// NewSubscriber returns a subscriber that does nothing until Run.
func NewSubscriber(o SubscriberOptions) *Subscriber {
	if o.Heartbeat <= 0 {
		o.Heartbeat = DefaultHeartbeat
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Dial == nil {
		o.Dial = new(rawnet.Dialer).DialContext
	}
	return &Subscriber{o: o, kick: make(chan struct{}, 1)}
}

// Kick makes a subscriber that is pausing between attempts try at once, and one
// that is connected check whether its target has moved: call it when the log
// brought a new address.
func (s *Subscriber) Kick() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Up reports whether the connection is up now.
func (s *Subscriber) Up() bool { return s.link.Load() != nil }

// Run keeps the connection up until ctx ends; it returns ctx's cause. Every
// goroutine it started has then ended and OnDown has been called for every OnUp.
func (s *Subscriber) Run(ctx context.Context) error {
	backoff, last := time.Duration(0), ""
	for ctx.Err() == nil {
		t, ok := s.o.Target()
		up, err, began := false, error(nil), time.Now()
		if ok {
			up, err = s.follow(ctx, t)
		}
		if up {
			last = ""
			if time.Since(began) > maxBackoff {
				backoff = 0 // it was no flapping connection: reconnect at once
			}
		} else if err != nil && err.Error() != last && ctx.Err() == nil {
			// Once for each different reason, not for each attempt.
			last = err.Error()
			s.o.Logger.Warn().Err(err).Str("member", t.MemberID).Str("addr", t.Addr).Msg("peer channel: cannot connect; trying on")
		}
		if backoff > 0 {
			s.pause(ctx, backoff)
		}
		backoff = min(max(2*backoff, minBackoff), maxBackoff)
	}
	return context.Cause(ctx)
}

func (s *Subscriber) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.kick:
	case <-ctx.Done():
	}
}

var errMoved = errors.New("peer: the member has another address now")

// follow connects once and stays until the connection ends; up tells whether it
// got past authentication.
func (s *Subscriber) follow(ctx context.Context, t Target) (up bool, err error) {
	s.contact.look(t)
	c, err := s.connect(ctx, t)
	if err != nil {
		s.contact.failed(err)
		return false, err
	}
	s.contact.heard()
	defer c.Close()
	defer closeOnDone(ctx, c)()
	l := &link{c: c, notices: notices{wake: make(chan struct{}, 1)}}
	s.link.Store(l)
	s.o.Logger.Info().Str("member", t.MemberID).Str("addr", t.Addr).Msg("peer channel: connected")
	if s.o.OnUp != nil {
		s.o.OnUp(t)
	}
	g, gctx := errgroup.WithContext(ctx)
	release := closeOnDone(gctx, c)
	g.Go(func() error { return c.heartbeats(gctx, s.o.Heartbeat, nil, nil) })
	g.Go(func() error { return s.watchTarget(gctx, t) })
	g.Go(func() error { return l.notices.send(gctx, c) })
	g.Go(func() error { return s.receive(l) })
	err = g.Wait()
	release()
	s.link.Store(nil)
	l.calls.end()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	s.o.Logger.Info().Err(err).Str("member", t.MemberID).Str("addr", t.Addr).Msg("peer channel: connection ended")
	if s.o.OnDown != nil {
		s.o.OnDown(err)
	}
	return true, err
}

// watchTarget ends the connection once Kick tells that the target moved.
func (s *Subscriber) watchTarget(ctx context.Context, t Target) error {
	for {
		select {
		case <-s.kick:
			if now, ok := s.o.Target(); ok && now != t {
				return errMoved
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Subscriber) connect(ctx context.Context, t Target) (*conn, error) {
	return s.connectAs(ctx, t, frameLogin)
}

// connectAs connects with one kind of login.
func (s *Subscriber) connectAs(ctx context.Context, t Target, login frameType) (*conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.Timeout, errors.New("peer: timed out while connecting"))
	defer cancel()
	nc, err := s.o.Dial(ctx, "tcp", t.Addr)
	if err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	if s.o.TLS != nil {
		host, _, err := net.SplitHostPort(t.Addr)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("peer: %w", err), nc.Close())
		}
		nc = tls.Client(nc, s.o.TLS(host))
	}
	release := closeOnDone(ctx, nc)
	c := newConn(nc, s.o.Timeout)
	err = s.handshake(c, t, login)
	release()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

func (s *Subscriber) handshake(c *conn, t Target, login frameType) error {
	typ, p, err := c.read(maxHello)
	if err != nil {
		return err
	}
	if typ != frameGreeting {
		return fmt.Errorf("%w: type %d instead of a greeting", ErrFrame, typ)
	}
	theirs, err := parseHello(p, 0)
	if err != nil {
		return err
	}
	theirs.nonce = bytes.Clone(theirs.nonce) // p is overwritten by the next read
	if theirs.member != t.MemberID {
		return fmt.Errorf("%w: %s is member %q, not %q", ErrAuth, t.Addr, theirs.member, t.MemberID)
	}
	mine := hello{version: Version, nonce: newNonce(), member: s.o.Self}
	mine.proof = proof(t.Token, clientRole(login), theirs, mine)
	if err := c.writeFrame(login, mine.append); err != nil {
		return err
	}
	typ, p, err = c.read(maxHello)
	if err != nil {
		return fmt.Errorf("%w: refused by %s: %w", ErrAuth, t.Addr, err)
	}
	if typ != frameWelcome || !hmac.Equal(p, proof(t.Token, "server", theirs, mine)) {
		return fmt.Errorf("%w: %s does not know its token", ErrAuth, t.Addr)
	}
	return nil
}

// receive delivers what arrives until the connection fails.
func (s *Subscriber) receive(l *link) error {
	for {
		typ, p, err := l.c.read(MaxFrame)
		if err != nil {
			return err
		}
		s.contact.heard()
		switch typ {
		case frameApplied:
			u, err := parseApplied(p)
			if err != nil {
				return err
			}
			if s.o.OnApplied != nil {
				s.o.OnApplied(u)
			}
		case frameHeartbeat:
			if s.o.OnHeartbeat != nil {
				s.o.OnHeartbeat(bytes.Clone(p))
			}
		case frameResponse:
			r, err := parseResponse(p)
			if err != nil {
				return err
			}
			l.calls.finish(r)
		default:
			return fmt.Errorf("%w: type %d", ErrFrame, typ)
		}
	}
}
