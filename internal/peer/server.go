// Package peer owns the members' own channel: each member listens on a TCP
// address that it publishes through the log together with a random token, and
// every other member dials it and subscribes. The server pushes which group
// transactions have become visible on its mysqld and a heartbeat with its state,
// and answers named requests.
//
// It must never decide anything about the group: what it carries are facts about
// one member, and losing a connection means only that they are unknown for now.
// It is not encrypted unless given a TLS configuration.
package peer

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"cohort/internal/applied"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/pause"
	"cohort/internal/rawnet"
)

// Defaults for zero options.
const (
	// DefaultHeartbeat is the time between two heartbeats: several of them fit into
	// the silence after which a member is taken for dead (see Contact).
	DefaultHeartbeat = 100 * time.Millisecond
	// DefaultTimeout is how long silence is tolerated, and how long one write
	// may take. Several heartbeats, so that a busy machine is not a lost peer.
	DefaultTimeout = 5 * time.Second
	// DefaultMaxConns bounds a server's connections. A group has at most 8
	// other members; the rest is room for old connections that still die.
	DefaultMaxConns = 64
	// maxRequests is how many requests one connection may have in progress;
	// further ones wait unread.
	maxRequests = 32
)

// Handler answers one request. It may be called concurrently; ctx ends with the
// connection. payload is the handler's. Its error reaches the caller as a
// *RemoteError with the same text.
type Handler func(ctx context.Context, payload []byte) ([]byte, error)

// Options tells a server what to serve. Source, Token and MemberID are required.
type Options struct {
	// Listener is used if given, and closed by the server; otherwise the server
	// listens on Addr ("host:port", IPv6 in brackets, port 0: any).
	Listener net.Listener
	Addr     string
	// MemberID is the server_uuid of this member.
	MemberID string
	// Earlier are tokens of this member's earlier processes, by which rows may be
	// fetched too: who needs them may know of an earlier one only.
	Earlier []string
	// Token is the secret that subscribers must know; see NewToken.
	Token string
	// Source is the applied set of the local mysqld.
	Source *applied.Tracker
	// State returns a heartbeat's payload, at most MaxFrame/2 bytes; nil: empty.
	// It must not block.
	State func() []byte
	// Alive says whether there is to be a sign of life; nil: always. Without one the
	// others take this member for dead, though its process answers.
	Alive func() bool
	// Handlers are the requests that are answered, by method name.
	Handlers map[string]Handler
	// OnNotice is called with what subscribers Notify, in order for each; it must
	// not block. nil: ignored.
	OnNotice func(text string)
	// Rows is the group binlog that other members may fetch from; nil: none.
	Rows *groupbinlog.Store
	// TLS encrypts the channel when given.
	TLS *tls.Config
	// Admit says from which addresses connections are accepted, before anything
	// is read; nil: from all.
	Admit func(ctx context.Context, remote net.Addr) error
	// Heartbeat, Timeout and MaxConns default to the constants above, RowsTimeout
	// to DefaultRowsTimeout.
	Heartbeat, Timeout, RowsTimeout time.Duration
	MaxConns                        int
	Logger                          zerolog.Logger

	spacing time.Duration // instead of idleSpacing, in tests
}

// Server is the listening side. Lifecycle: NewServer, Run, Close.
type Server struct {
	o     Options
	ln    net.Listener
	slots chan struct{}
	// donations has an element for each donor connection.
	donations chan struct{}

	mu        sync.Mutex
	attending map[string]*attention // the latest subscription of each member
}

// Attended reports whether a member said within the last second that somebody waits
// there.
func (s *Server) Attended(member string) bool {
	s.mu.Lock()
	a := s.attending[member]
	s.mu.Unlock()
	return a != nil && a.now()
}

func (s *Server) attend(member string, a *attention) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attending[member] = a
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.attending[member] == a {
			delete(s.attending, member)
		}
	}
}

// NewServer listens, so that Addr is known before Run serves.
func NewServer(o Options) (*Server, error) {
	switch {
	case o.Source == nil:
		return nil, errors.New("peer: no applied source")
	case len(o.Token) < 16:
		return nil, errors.New("peer: the token is missing or too short")
	case o.MemberID == "":
		return nil, errors.New("peer: no member id")
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = DefaultHeartbeat
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.RowsTimeout <= 0 {
		o.RowsTimeout = DefaultRowsTimeout
	}
	if o.MaxConns <= 0 {
		o.MaxConns = DefaultMaxConns
	}
	if o.spacing <= 0 {
		o.spacing = idleSpacing
	}
	ln := o.Listener
	if ln == nil {
		var err error
		if ln, err = net.Listen("tcp", o.Addr); err != nil {
			return nil, fmt.Errorf("peer: %w", err)
		}
	}
	if o.TLS != nil {
		ln = tls.NewListener(ln, o.TLS)
	}
	return &Server{o: o, ln: ln, slots: make(chan struct{}, o.MaxConns), donations: make(chan struct{}, maxDonations), attending: make(map[string]*attention)}, nil
}

// Addr is the address the server listens on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Close stops listening; Run then ends. It is safe to call more than once.
func (s *Server) Close() error {
	if err := s.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("peer: %w", err)
	}
	return nil
}

// Run serves until ctx ends or Close is called, then ends every connection and
// waits for their goroutines. It returns nil in both cases; any other error means
// that the listener failed.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { s.Close() })()
	defer s.Close()
	for {
		c, err := s.ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Out of file descriptors, or a connection that died in the queue:
			// it passes.
			s.o.Logger.Warn().Err(err).Msg("peer channel: accept failed")
			if pause.For(ctx, 50*time.Millisecond) != nil {
				return nil
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			s.o.Logger.Warn().Stringer("remote", c.RemoteAddr()).Msg("peer channel: too many connections")
			c.Close()
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-s.slots }()
			s.serve(ctx, rawnet.Conn(c))
		}()
	}
}

// serve owns one connection. Whatever goes wrong ends this connection only.
func (s *Server) serve(ctx context.Context, nc net.Conn) {
	defer nc.Close()
	defer closeOnDone(ctx, nc)()
	c := newConn(nc, s.o.Timeout)
	log := s.o.Logger.With().Stringer("remote", nc.RemoteAddr()).Logger()
	if s.o.Admit != nil {
		if err := s.o.Admit(ctx, nc.RemoteAddr()); err != nil {
			log.Warn().Err(err).Msg("peer channel: connection refused")
			return
		}
	}
	if s.o.Alive != nil && !s.o.Alive() {
		return // an answer would be a sign of life
	}
	member, login, err := s.handshake(c)
	if err != nil {
		log.Warn().Err(err).Msg("peer channel: connection refused")
		return
	}
	log = log.With().Str("member", member).Logger()
	if login == frameRowsLogin {
		if err := s.donate(ctx, c, member); err != nil && ctx.Err() == nil {
			log.Warn().Err(err).Msg("peer channel: not all transactions were sent")
		}
		return
	}
	log.Debug().Msg("peer channel: subscriber connected")
	g, gctx := errgroup.WithContext(ctx)
	defer closeOnDone(gctx, nc)() // the first goroutine that ends takes the others along
	sub := s.o.Source.Subscribe()
	defer sub.Close()
	g.Go(func() error { return c.heartbeats(gctx, s.o.Heartbeat, s.o.State, s.o.Alive) })
	att := attention{idle: s.o.spacing, kick: make(chan struct{}, 1)}
	defer s.attend(member, &att)()
	g.Go(func() error { return push(gctx, c, sub, &att) })
	g.Go(func() error { return s.requests(gctx, c, &att) })
	err = g.Wait()
	if ctx.Err() == nil {
		log.Debug().Err(err).Msg("peer channel: subscriber gone")
	}
}

// handshake returns the id of the member that connected and with which kind of
// login. All of it must be over within one timeout, however slowly bytes arrive.
func (s *Server) handshake(c *conn) (string, frameType, error) {
	deadline := time.AfterFunc(c.timeout, func() { c.Close() })
	defer deadline.Stop()
	mine := hello{version: Version, nonce: newNonce(), member: s.o.MemberID}
	if err := c.writeFrame(frameGreeting, mine.append); err != nil {
		return "", 0, err
	}
	typ, p, err := c.read(maxHello)
	if err != nil {
		return "", 0, err
	}
	if typ != frameLogin && typ != frameRowsLogin {
		return "", 0, fmt.Errorf("%w: type %d instead of a login", ErrFrame, typ)
	}
	theirs, err := parseHello(p, 32)
	if err != nil {
		return "", 0, err
	}
	tokens := []string{s.o.Token}
	if typ == frameRowsLogin {
		tokens = append(tokens, s.o.Earlier...)
	}
	for _, token := range tokens {
		if hmac.Equal(theirs.proof, proof(token, clientRole(typ), mine, theirs)) {
			return theirs.member, typ, c.writeFrame(frameWelcome, func(b []byte) []byte {
				return append(b, proof(token, "server", mine, theirs)...)
			})
		}
	}
	return "", 0, ErrAuth
}

// requests reads from c until it fails, and answers. It returns after every
// handler it started has returned.
func (s *Server) requests(ctx context.Context, c *conn, att *attention) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	slots := make(chan struct{}, maxRequests)
	for {
		typ, p, err := c.read(MaxFrame)
		if err != nil {
			return err
		}
		switch typ {
		case frameHeartbeat:
		case frameNotices:
			att.renew()
			if err := parseNotices(p, s.notice); err != nil {
				return err
			}
		case frameRequest:
			q, err := parseRequest(p)
			if err != nil {
				return err
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer func() { <-slots }()
				s.answer(ctx, c, q)
			}()
		default:
			return fmt.Errorf("%w: type %d", ErrFrame, typ)
		}
	}
}

func (s *Server) notice(text string) {
	if s.o.OnNotice != nil {
		s.o.OnNotice(text)
	}
}
