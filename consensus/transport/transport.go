package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/rs/zerolog"

	"cohort/internal/allowlist"
	"cohort/internal/grouptls"
	"cohort/internal/rawnet"
)

// Sentinel errors.
var (
	// ErrFrame is wrapped by every error about bytes that are no valid frame.
	ErrFrame = errors.New("transport: malformed frame")
	// ErrRefused is wrapped when the other member did not let this one in.
	ErrRefused = errors.New("transport: refused by the other member")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("transport: closed")
)

// Times; none is for the user. A message that is not acknowledged in time ends
// its connection: kernels would go on for minutes, and after a cut wait as long
// again as it lasted before the next attempt.
const (
	ackTimeout       = 1500 * time.Millisecond
	ackRate          = 8 << 20                // bytes a second: how much longer an ack may take behind large batches
	askInterval      = 200 * time.Millisecond // between two requests for an acknowledgement
	dialSpacing      = 250 * time.Millisecond // between two SYNs of our own; the kernel's come after 1, 3, 7 s
	connectTimeout   = 2 * time.Second
	handshakeTimeout = 2 * time.Second
	holdTimeout      = 250 * time.Millisecond // how long a message waits for a connection that is being made
	minPause         = 10 * time.Millisecond  // between failed attempts, doubling
	maxPause         = 100 * time.Millisecond
	maxHungUpPause   = 250 * time.Millisecond // when somebody answers and hangs up, which may be a proxy in between
	maxRefusedPause  = time.Second            // when the other side says no
	chunkTimeout     = 30 * time.Second
)

// maxConns bounds the accepted connections: a group has at most 8 other members
// with two connections each; the rest is room for old ones that still die.
const maxConns = 64

// Options configure the transport of one replica.
type Options struct {
	// Group is the group's name. Members of another group are refused.
	Group string
	// Shard and Replica are the only ones of this process.
	Shard, Replica uint64
	// TLS encrypts; nil: plain TCP with checksums.
	TLS *grouptls.Config
	// Allowlist says which addresses may connect; nil: all of them.
	Allowlist *allowlist.List
	// Address returns the address of a replica where that is known. A replica
	// that claims another one is refused. For a replica that is not known the
	// first claim counts. It is called for each connection. May be nil.
	Address func(replica uint64) (address string, ok bool)
	// Allowed is the fence: frames of a replica for which it is false are not
	// taken. It is called for every frame and must be cheap. May be nil.
	Allowed func(replica uint64) bool
	// Asked serves a connection of which the first byte, which was read, is AskedBy:
	// no hello and no TLS handshake begins with that. It is under the same TLS as the
	// log; verify says whether who asks may be at the address that it gives. May be
	// nil.
	Asked   func(ctx context.Context, c net.Conn, verify func(address string) error)
	AskedBy byte
	// Patient reports whether the member at an address can wait some milliseconds to
	// learn how far the log is committed, if nothing else is sent to it. It is called
	// for most messages and must be cheap. nil: none can.
	Patient func(target string) bool
	// Generation is the forced membership that the replica lives in, 0 for none:
	// replicas of another one are refused. Closed: nobody's messages are taken, the
	// replica does not run.
	Generation uint64
	Closed     bool
	// Called serves a Call of another member, of whatever generation. It ends with
	// the context. May be nil.
	Called func(context.Context, net.Conn)
	Logger zerolog.Logger

	// dial replaces the network's, in tests.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Factory implements config.TransportFactory.
type Factory struct{ o Options }

var _ config.TransportFactory = (*Factory)(nil)

// NewFactory returns what dragonboat makes its transport with.
func NewFactory(o Options) *Factory {
	if o.dial == nil {
		o.dial = (&rawnet.Dialer{Dialer: net.Dialer{KeepAliveConfig: keepAlive}}).DialContext
	}
	return &Factory{o: o}
}

// keepAlive finds hosts that vanished while nothing is sent.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}

// Create implements config.TransportFactory.
func (f *Factory) Create(c config.NodeHostConfig, messages raftio.MessageHandler, chunks raftio.ChunkHandler) raftio.ITransport {
	t := &Transport{o: f.o, self: c.RaftAddress, listen: c.GetListenAddress(), messages: messages, chunks: chunks,
		claimed: make(map[uint64]string), refused: make(map[string]time.Time), slots: make(chan struct{}, maxConns)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// Validate implements config.TransportFactory: host:port, IPv6 in brackets.
func (f *Factory) Validate(address string) bool { return validAddress(address) }

func validAddress(a string) bool {
	host, port, err := net.SplitHostPort(a)
	if err != nil || host == "" || len(a) > maxAddress || strings.ContainsAny(host, " \t,/@") {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// Transport implements raftio.ITransport.
type Transport struct {
	o            Options
	self, listen string
	messages     raftio.MessageHandler
	chunks       raftio.ChunkHandler

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	ln     net.Listener
	slots  chan struct{} // one for each accepted connection

	mu      sync.Mutex // goroutines are started under it, and not after cancel
	wg      sync.WaitGroup
	claimed map[uint64]string    // by replicas that Address does not know
	refused map[string]time.Time // when what was logged about whom
}

var _ raftio.ITransport = (*Transport)(nil)

// Name implements raftio.ITransport.
func (t *Transport) Name() string { return "cohort-tcp" }

// Start listens.
func (t *Transport) Start() error {
	ln, err := (&net.ListenConfig{KeepAliveConfig: keepAlive}).Listen(t.ctx, "tcp", t.listen)
	if err != nil {
		return fmt.Errorf("transport: %w", err)
	}
	t.ln = ln
	t.spawn(t.accept)
	return nil
}

// Close ends all connections and waits for their goroutines.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.cancel()
	t.mu.Unlock()
	var err error
	if t.ln != nil {
		err = t.ln.Close()
	}
	t.wg.Wait()
	return err
}

func (t *Transport) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return false
	}
	t.wg.Go(f)
	return true
}

// GetConnection returns at once, whether or not the target can be reached: a
// failure would make dragonboat's circuit breaker drop all messages to it for
// 0.25 to 1.5 s. See link.
func (t *Transport) GetConnection(ctx context.Context, target string) (raftio.IConnection, error) {
	return newLink(t, ctx, target)
}

// GetSnapshotConnection connects.
func (t *Transport) GetSnapshotConnection(ctx context.Context, target string) (raftio.ISnapshotConnection, error) {
	c, err := t.connect(ctx, target, forChunks)
	if err != nil {
		return nil, err
	}
	return newSnapshotConn(ctx, c), nil
}

// checkClaim refuses a replica that claims another address than it has:
// dragonboat keeps the address of each replica and panics when it changes.
func (t *Transport) checkClaim(replica uint64, address string) error {
	if t.o.Address != nil {
		if known, ok := t.o.Address(replica); ok {
			if known != address {
				return fmt.Errorf("replica %d is at %s, not at %s", replica, known, address)
			}
			return nil
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.claimed[replica]; ok {
		if known != address {
			return fmt.Errorf("replica %d was at %s before, not at %s", replica, known, address)
		}
		return nil
	}
	if len(t.claimed) >= maxClaims {
		return errors.New("too many replicas that are not known")
	}
	t.claimed[replica] = address
	return nil
}

// maxClaims bounds the memory that strangers can take: replica ids are not used
// again, so each is one incarnation of a member.
const maxClaims = 4096

func (t *Transport) allowed(replica uint64) bool {
	return t.o.Allowed == nil || t.o.Allowed(replica)
}

// encrypt puts TLS on a connection; nc without TLS.
func (t *Transport) encrypt(nc net.Conn, wrap func(net.Conn) *tls.Conn) (net.Conn, *cork) {
	if t.o.TLS == nil {
		return nc, nil
	}
	k := &cork{Conn: nc}
	return wrap(k), k
}
