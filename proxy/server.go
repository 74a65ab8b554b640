// Package proxy serves clients: it owns their connections and sessions, hides
// that their transactions are XA transactions on the primary's mysqld which end
// with the group's verdict, and holds back the reply of everything else that
// writes until the group has ordered it.
//
// It must never decide about the group, never tell a client that something
// committed before the group said so, and never tell it that something was
// rolled back unless that is proven.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/rawnet"
	"cohort/internal/wire"
	"cohort/proxy/relay"
)

// DefaultMaxConnections is used where Options.MaxConnections is 0: twice
// max_connections' usual value and a reserve, as a proxy of its kind has it.
const DefaultMaxConnections = 1040

// Options configure a Server.
type Options struct {
	// Listener accepts clients; if nil, Listen is opened, "host:port".
	Listener net.Listener
	Listen   string
	// Group is required; Admin may be nil.
	Group Group
	Admin Admin
	// Compliance tells which tables may not be written; nil is none.
	Compliance Compliance
	// TLS serves TLS to clients, nil offers none; BackendTLS is used towards
	// remote servers that offer it, nil never.
	TLS        *tls.Config
	BackendTLS *tls.Config
	// RequireTLS is mysqld's require_secure_transport, nil is OFF.
	RequireTLS func() bool
	// MaxConnections bounds clients; IdleTimeout ends a client that sends no
	// command for so long, 0 for never (the server's own wait_timeout applies).
	MaxConnections int
	IdleTimeout    time.Duration
	// ConnectTimeout bounds the wait for a primary and the login, 0 for 10 s.
	ConnectTimeout time.Duration
	// LostWait bounds the wait for a verdict on a transaction that the group may
	// never hear of, because the server went away around XA PREPARE; 0 for 30 s.
	LostWait time.Duration
	// RebuildWait bounds how long a command waits for a new primary that its
	// session can be moved to, 0 for 30 s.
	RebuildWait time.Duration
	// Kill ends a session of a backend by its thread id, with a privileged
	// connection: for clients that went away during a long statement. If nil,
	// the client's own password is used where it is known.
	Kill func(ctx context.Context, b Backend, threadID uint32) error
	// WatchInterval is how soon a client that went away is noticed, 0 for 1 s.
	WatchInterval time.Duration
	Logger        zerolog.Logger

	// The constants of these names unless a test needs others.
	aloneWait, aloneTimeout, stuckAfter time.Duration
}

// Server accepts clients and serves each on a goroutine of its own.
type Server struct {
	opt   Options
	ln    net.Listener
	acc   *relay.Acceptor
	watch *relay.Watch
	calls callCache
	gate  gate
	// rebuilt counts sessions that were moved to another server.
	rebuilt atomic.Uint64

	mu       sync.Mutex
	conns    map[net.Conn]func() // closes everything about a client
	live     map[*session]struct{}
	closed   bool
	sessions sync.WaitGroup
}

// New checks the options and opens the listener. It may take a moment to make a
// key for clients that log in without TLS.
func New(opt Options) (*Server, error) {
	if opt.Group == nil {
		return nil, errors.New("proxy: Options.Group is required")
	}
	if opt.MaxConnections <= 0 {
		opt.MaxConnections = DefaultMaxConnections
	}
	if opt.ConnectTimeout <= 0 {
		opt.ConnectTimeout = 10 * time.Second
	}
	if opt.LostWait <= 0 {
		opt.LostWait = 30 * time.Second
	}
	if opt.aloneWait <= 0 {
		opt.aloneWait = aloneWait
	}
	if opt.aloneTimeout <= 0 {
		opt.aloneTimeout = aloneTimeout
	}
	if opt.stuckAfter <= 0 {
		opt.stuckAfter = stuckAfter
	}
	if opt.RebuildWait <= 0 {
		opt.RebuildWait = 30 * time.Second
	}
	acc, err := relay.New(relay.Options{
		ClientTLS: opt.TLS, BackendTLS: opt.BackendTLS, RequireTLS: opt.RequireTLS, Compression: true,
		Secrets: relay.NewSecrets(), DemandQuietly: true, ConnectTimeout: 2 * opt.ConnectTimeout,
		IdleTimeout: opt.IdleTimeout, MaxInline: wire.MaxPayload - 1,
	})
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	ln := opt.Listener
	if ln == nil {
		if ln, err = net.Listen("tcp", opt.Listen); err != nil {
			return nil, fmt.Errorf("proxy: listen for clients: %w", err)
		}
	}
	return &Server{opt: opt, ln: ln, acc: acc, watch: relay.NewWatch(opt.WatchInterval), conns: make(map[net.Conn]func()), live: make(map[*session]struct{}),
		gate: gate{left: make(chan struct{}, 1)}}, nil
}

// Addr is the address clients connect to.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Connections is the number of clients.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Rebuilt is how often a session was moved to another server.
func (s *Server) Rebuilt() uint64 { return s.rebuilt.Load() }

// Run serves until ctx ends or the listener fails, and returns when every
// session has ended.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.watch.Run(ctx) })
	wg.Go(func() { s.runEvict(ctx) })
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	err := s.accept(ctx)
	_ = s.Close()
	cancel(err)
	s.sessions.Wait()
	wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Close stops accepting and ends every session; Run then returns. What a client
// had prepared and not heard of is decided by the group all the same.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, end := range s.conns {
		end()
	}
	s.mu.Unlock()
	return s.ln.Close()
}

func (s *Server) accept(ctx context.Context) error {
	pause := 5 * time.Millisecond
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return net.ErrClosed
			}
			// Out of descriptors, for instance: this passes.
			s.opt.Logger.Warn().Err(err).Msg("cannot accept a client")
			select {
			case <-time.After(pause):
				pause = min(2*pause, time.Second)
				continue
			case <-ctx.Done():
				return net.ErrClosed
			}
		}
		pause = 5 * time.Millisecond
		if t, ok := nc.(*net.TCPConn); ok {
			_ = t.SetNoDelay(true)
		}
		nc = rawnet.Conn(nc)
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			_ = nc.Close()
			return net.ErrClosed
		}
		full := len(s.conns) >= s.opt.MaxConnections
		if !full {
			s.conns[nc] = func() { _ = nc.Close() }
		}
		s.mu.Unlock()
		s.sessions.Go(func() {
			defer func() { _ = nc.Close() }()
			if full {
				s.refuse(ctx, nc)
				return
			}
			s.client(ctx, nc)
			s.mu.Lock()
			delete(s.conns, nc)
			s.mu.Unlock()
		})
	}
}

// refuse tells a client that there are too many.
func (s *Server) refuse(ctx context.Context, nc net.Conn) {
	_, _ = s.acc.Accept(ctx, nc, func(context.Context) (net.Conn, error) {
		return nil, wire.NewError(erConCount, "08004", "Too many connections")
	})
}

// client serves one client to its end.
func (s *Server) client(ctx context.Context, nc net.Conn) {
	log := s.opt.Logger.With().Str("client", nc.RemoteAddr().String()).Logger()
	var backend Backend
	ready := func() {}
	defer func() { ready() }()
	r, err := s.acc.Accept(ctx, nc, func(ctx context.Context) (net.Conn, error) {
		done, err := s.gate.login(ctx)
		if err != nil {
			return nil, err
		}
		ready = sync.OnceFunc(done)
		c, b, err := s.dial(ctx)
		backend = b
		return c, err
	})
	if err != nil {
		log.Debug().Err(err).Msg("client not let in")
		return
	}
	defer func() { _ = r.Close() }()
	ss := &session{srv: s, r: r, log: log, backend: backend, multi: r.ClientCaps.Has(wire.MultiStatements)}
	ss.ctx = ctx
	ss.where.Store(&place{backend, r.ThreadID(), r.Backend.Conn.RawConn()})
	s.mu.Lock()
	closed := s.closed
	s.conns[nc] = func() { _ = r.Close() }
	s.live[ss] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.live, ss)
		s.mu.Unlock()
		s.gate.ended()
	}()
	if closed {
		return
	}
	w := s.watch.Add(r, relay.WatchEvents{
		ClientGone:  func() { s.kill(ctx, ss) },
		BackendGone: func() { s.sessions.Go(ss.backendGone) },
	})
	defer w.Remove()
	err = ss.serve(ctx, ready)
	switch {
	case err == nil, errors.Is(err, errClose), relay.IsGone(err), errors.Is(err, net.ErrClosed):
	case errors.Is(err, relay.ErrClient), errors.Is(err, ErrClientLost):
		log.Debug().Err(err).Msg("client lost")
	default:
		log.Warn().Err(err).Uint32("thread", r.ThreadID()).Msg("session ended")
	}
}

// farewellTimeout bounds reading and passing on what a server said last.
const farewellTimeout = 200 * time.Millisecond

// backendGone looks after an idle session whose server closed the connection. If
// the server ended just this session, the client's ends too, and is told what the
// server said last (that it was idle for too long, for instance). Otherwise it is
// built again elsewhere with the next command. A session at work finds out by
// itself.
func (s *session) backendGone() {
	if !s.own.TryLock() {
		return
	}
	defer s.own.Unlock()
	if s.down || s.ended {
		return
	}
	b := s.r.Backend.Conn
	_ = b.NetConn().SetReadDeadline(time.Now().Add(farewellTimeout))
	p, err := b.ReadPacket(1 << 16)
	said := err == nil && len(p) > 0 && p[0] == wire.HeaderERR
	if e, perr := wire.ParseERR(p); said && perr == nil && e.Code == erServerShutdown {
		said = false
	}
	s.down = true
	if !said && !s.alone() {
		return
	}
	s.ended = true
	defer func() { _ = s.r.Client.Close() }()
	if !said || s.r.Client.Compression() != wire.NoCompression {
		return
	}
	msg := make([]byte, wire.HeaderSize, wire.HeaderSize+len(p))
	wire.PutHeader(msg, len(p), b.Seq-1)
	nc := s.r.Client.NetConn()
	_ = nc.SetWriteDeadline(time.Now().Add(farewellTimeout))
	_, _ = nc.Write(append(msg, p...))
}

// killTimeout bounds one attempt to end a session of a client that went away.
const killTimeout = 10 * time.Second

// kill ends what the server still does for a client that went away. It runs on a
// goroutine of its own, which the server waits for.
func (s *Server) kill(ctx context.Context, ss *session) {
	s.sessions.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, killTimeout)
		defer cancel()
		var err error
		if s.opt.Kill != nil {
			at := ss.where.Load()
			err = s.opt.Kill(ctx, at.backend, at.thread)
		} else {
			err = s.killAsClient(ctx, ss)
		}
		if err != nil {
			ss.log.Debug().Err(err).Msg("cannot end the statement of a client that went away")
		}
	})
}

func (s *Server) killAsClient(ctx context.Context, ss *session) error {
	at := ss.where.Load()
	login := ss.r.Login
	login.DB = ""
	cl, err := s.acc.OpenBackend(ctx, dialer(at.backend), &login)
	if err != nil {
		return err
	}
	defer func() { _ = cl.Quit() }()
	_, err = cl.Exec(ctx, fmt.Sprintf("KILL %d", at.thread))
	return err
}

// dial opens a connection to the primary's mysqld. While there is none, or it
// does not answer, it waits up to ConnectTimeout.
func (s *Server) dial(ctx context.Context) (net.Conn, Backend, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opt.ConnectTimeout)
	defer cancel()
	pause := 10 * time.Millisecond
	var last error
	for {
		b, err := s.opt.Group.Primary(ctx)
		if err == nil {
			var c net.Conn
			if c, err = new(rawnet.Dialer).DialContext(ctx, b.Network, b.Addr); err == nil {
				return c, b, nil
			}
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 200*time.Millisecond)
		case <-ctx.Done():
			s.opt.Logger.Warn().Err(last).Msg("no connection to the primary's server")
			return nil, b, wire.NewError(2003, "HY000", "Can't connect to the group's primary MySQL server (%v)", last)
		}
	}
}
