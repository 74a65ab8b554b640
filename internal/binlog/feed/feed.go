package feed

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

	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/pause"
	"cohort/internal/rawnet"
)

// ErrOptions means that New was given options that cannot work.
var ErrOptions = errors.New("feed: invalid options")

// errReplaced ends a stream whose receiver has connected again.
var errReplaced = errors.New("receiver connected again")

// errClosed ends streams at CloseStreams and at the end of Run.
var errClosed = errors.New("stream closed")

// Options configure a Feed.
type Options struct {
	// Store is what is fed. Required.
	Store *groupbinlog.Store
	// GroupUUID is the UUID part of the group's GTIDs. Required.
	GroupUUID string
	// ServerID is what the source says its server_id is; it must differ from the
	// receiver's. Default binlog.RenderedServerID.
	ServerID uint32
	// ServerUUID is what the source says its server_uuid is; it must differ from
	// the receiver's. Required.
	ServerUUID string
	// ServerVersion is the version in the greeting and in the format
	// description, as "9.7.4". Required; not above the receiver's.
	ServerVersion string
	// Listen is the TCP address to listen on. Default "127.0.0.1:0".
	Listen string
	// User and Password are what a receiver must present. Required.
	User, Password string
	// TLS, if not nil, is offered to receivers; they may go on without.
	TLS *tls.Config
	// Skip says whether transaction n is left out; nil leaves out nothing. It is
	// called from the streams' goroutines when n is about to be sent, once per
	// stream and n, and must not block.
	Skip func(n uint64) bool
	// Failed is told of an error in the group binlog that no repetition mends.
	// May be nil.
	Failed func(error)
	// HandshakeTimeout bounds the time until a connection asks for a dump.
	// Default 30 s.
	HandshakeTimeout time.Duration
	Logger           zerolog.Logger
}

// Feed serves receivers on one address.
type Feed struct {
	opt   Options
	group binlog.UUID
	ln    net.Listener
	fde   []byte // the stream's format description

	connections atomic.Uint32

	mu       sync.Mutex
	sessions map[*session]struct{}
	closed   bool
	wg       sync.WaitGroup // sessions
}

// New checks the options and opens the listening socket; Run serves it.
func New(opt Options) (*Feed, error) {
	group, err := binlog.ParseUUID(opt.GroupUUID)
	if err != nil {
		return nil, fmt.Errorf("%w: group: %w", ErrOptions, err)
	}
	if _, err := binlog.ParseUUID(opt.ServerUUID); err != nil {
		return nil, fmt.Errorf("%w: server: %w", ErrOptions, err)
	}
	if opt.Store == nil || opt.User == "" || opt.Password == "" || opt.ServerVersion == "" {
		return nil, fmt.Errorf("%w: store, user, password and server version are required", ErrOptions)
	}
	if opt.ServerID == 0 {
		opt.ServerID = binlog.RenderedServerID
	}
	if opt.Listen == "" {
		opt.Listen = "127.0.0.1:0"
	}
	if opt.HandshakeTimeout <= 0 {
		opt.HandshakeTimeout = 30 * time.Second
	}
	if opt.Skip == nil {
		opt.Skip = func(uint64) bool { return false }
	}
	ln, err := net.Listen("tcp", opt.Listen)
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	return &Feed{
		opt: opt, group: group, ln: ln, sessions: make(map[*session]struct{}),
		fde: binlog.AppendFormatDescription(nil, 0, opt.ServerVersion, 0),
	}, nil
}

// Addr is the address that receivers dial.
func (f *Feed) Addr() net.Addr { return f.ln.Addr() }

// Run accepts receivers until ctx is done or Close is called, and returns when
// every session has ended: nil then, an error if listening failed.
func (f *Feed) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	defer f.wg.Wait()
	defer cancel(errClosed)
	for {
		nc, err := f.ln.Accept()
		if err != nil {
			if f.isClosed() {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() || errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("feed: %w", err)
			}
			f.opt.Logger.Warn().Err(err).Msg("feed cannot accept a connection")
			if pause.For(ctx, 100*time.Millisecond) != nil { // out of descriptors, most likely
				return nil
			}
			continue
		}
		f.serve(ctx, rawnet.Conn(nc))
	}
}

func (f *Feed) serve(ctx context.Context, nc net.Conn) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := newSession(f, nc, f.connections.Add(1), cancel)
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		cancel(errClosed)
		_ = nc.Close()
		return
	}
	f.sessions[s] = struct{}{}
	f.wg.Add(1)
	f.mu.Unlock()
	go func() {
		defer f.wg.Done()
		defer cancel(nil)
		// The only way to end a blocked read or write is to close the socket.
		stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
		err := s.run(ctx)
		stop()
		_ = nc.Close()
		f.mu.Lock()
		delete(f.sessions, s)
		f.mu.Unlock()
		s.log(err, context.Cause(ctx))
	}()
}

// CloseStreams drops the receivers that are being served now. They dial again.
func (f *Feed) CloseStreams() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.sessions {
		s.cancel(errClosed)
	}
}

// replace ends the other streams of the receiver with this uuid: it has
// connected again, even if its old connection does not know yet.
func (f *Feed) replace(s *session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.streaming = true
	for other := range f.sessions {
		if other != s && other.streaming && other.uuid == s.uuid && s.uuid != "" {
			other.cancel(errReplaced)
		}
	}
}

// Stream describes one receiver.
type Stream struct {
	// Remote is its address, UUID and ServerID what it says of itself.
	Remote   string
	UUID     string
	ServerID uint32
	// SentN is the highest transaction sent or left out.
	SentN uint64
}

// Streams lists the receivers that are in a dump.
func (f *Feed) Streams() []Stream {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Stream
	for s := range f.sessions {
		if s.streaming {
			out = append(out, Stream{Remote: s.nc.RemoteAddr().String(), UUID: s.uuid, ServerID: s.serverID, SentN: s.sentN.Load()})
		}
	}
	return out
}

// Close stops listening and drops every session; Run returns then.
func (f *Feed) Close() error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	f.closed = true
	f.mu.Unlock()
	f.CloseStreams()
	return f.ln.Close()
}

func (f *Feed) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}
