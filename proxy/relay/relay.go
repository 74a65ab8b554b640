package relay

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"cohort/internal/wire"
)

// Errors tell whose connection failed; the cause is wrapped beside them.
var (
	// ErrClient marks a failure of the client's connection.
	ErrClient = errors.New("client connection")
	// ErrBackend marks a failure of the backend's connection.
	ErrBackend = errors.New("backend connection")
	// ErrNoResponse says that Response was called with no command outstanding.
	ErrNoResponse = errors.New("no command is outstanding")
)

func clientErr(err error) error  { return fmt.Errorf("%w: %w", ErrClient, err) }
func backendErr(err error) error { return fmt.Errorf("%w: %w", ErrBackend, err) }

// Dialer opens the transport to a backend. A *[wire.ServerError] from it is
// shown to the client as it is.
type Dialer func(ctx context.Context) (net.Conn, error)

// Options are common to the connections of a listener.
type Options struct {
	// ClientTLS serves TLS on the client leg; nil offers none.
	ClientTLS *tls.Config
	// BackendTLS is used towards a backend that offers TLS: always on another
	// host, on this one (a Unix socket or a loopback address) where the client
	// itself came over TLS, so that accounts with REQUIRE SSL are answered as
	// mysqld would answer them. nil never uses TLS there.
	BackendTLS *tls.Config
	// RequireTLS says whether clients without TLS that are not on a Unix socket are
	// refused, nil that they are not. The server's own require_secure_transport
	// cannot see how the client came.
	RequireTLS func() bool
	// RSAKey lets clients without TLS send their password; made if nil.
	RSAKey *rsa.PrivateKey
	// Compression offers zlib and zstd on the client leg.
	Compression bool
	// Secrets remembers passwords seen in passing; nil remembers none.
	Secrets *Secrets
	// DemandPassword makes a client whose password is unknown send it even
	// where the backend was content with the fast path, so that the session
	// can be opened again elsewhere.
	DemandPassword bool
	// DemandQuietly is DemandPassword for those clients only that send it without
	// being configured to fetch a public key: over TLS, over a Unix socket, and
	// with drivers that are known to fetch the key by themselves.
	DemandQuietly bool
	// ConnectTimeout bounds the connection phase, 0 for 10 s.
	ConnectTimeout time.Duration
	// IdleTimeout bounds the wait for a command, 0 for none. It may fire up to
	// a sixteenth early.
	IdleTimeout time.Duration
	// MaxInline is the longest command held in memory as a whole, in bytes;
	// longer ones are streamed. 0 for 1 MiB.
	MaxInline int
	// Authenticated, if not nil, runs when the backend has accepted the client
	// and before the client is told. It may use r.Backend for statements of
	// its own and change the closing OK. An error (a *[wire.ServerError] is
	// shown) ends the connection.
	Authenticated func(ctx context.Context, r *Relay, ok *wire.OK) error
}

// Acceptor makes Relays out of client connections.
type Acceptor struct {
	opt    Options
	pubKey []byte // PEM
	// busy is how many responses of backends are waited for.
	busy atomic.Int32
}

// New checks the options and fills in defaults. It may take a moment to make an
// RSA key.
func New(opt Options) (*Acceptor, error) {
	if opt.RSAKey == nil {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, fmt.Errorf("generate RSA key: %w", err)
		}
		opt.RSAKey = key
	}
	if opt.ConnectTimeout == 0 {
		opt.ConnectTimeout = 10 * time.Second
	}
	if opt.MaxInline == 0 {
		opt.MaxInline = 1 << 20
	}
	opt.MaxInline = min(opt.MaxInline, wire.MaxPayload-1)
	pub, err := wire.EncodePublicKey(&opt.RSAKey.PublicKey)
	if err != nil {
		return nil, err
	}
	return &Acceptor{opt: opt, pubKey: pub}, nil
}

// Login is what it takes to open the client's session on another backend.
type Login struct {
	User       string
	DB         string // as asked for at login or by COM_CHANGE_USER
	Charset    byte
	MaxPacket  uint32
	Attributes []byte          // connection attributes as on the wire
	Caps       wire.Capability // what the backend agreed on
	TLS        bool            // the client came over TLS
	Secret     Secret
}

// Relay is a client joined to a backend.
type Relay struct {
	// Client is the client's connection, ClientCaps what it agreed on.
	Client     *wire.Conn
	ClientCaps wire.Capability
	// Backend is the present backend; change it with SetBackend only.
	Backend *wire.Client
	// Login is kept up to date through COM_CHANGE_USER.
	Login Login
	// Status is the server status the client was told last.
	Status wire.Status

	acc *Acceptor

	cmd      Command
	cmdLen   int // physical length of the command's first packet; -1: consumed
	expect   []byte
	keep     []byte // memory of the last Outcome's slices
	enc      []byte
	deadline time.Time
	sc       scanner
	out      Outcome
	shown    Outcome // what the client sees of out

	// active counts up when a response is begun and again when it is there: odd
	// while the backend works. Read by Watch.
	active  atomic.Uint64
	rawBack atomic.Pointer[net.Conn]
	// salt of the client's login, in use again for COM_CHANGE_USER.
	salt   []byte
	plugin string
	// moved: the backend is not the one whose greeting the client saw.
	moved bool
	// begun: a part of a response that broke off is with the client; torn: its
	// end cannot be an ERR packet.
	begun, torn bool
}

// SetBackend puts another backend in the place of the present one, which the
// caller closes. No response may be outstanding that somebody still wants.
func (r *Relay) SetBackend(b *wire.Client) {
	r.moved = r.Backend != nil
	r.Backend = b
	r.expect = r.expect[:0]
	raw := b.Conn.RawConn()
	r.rawBack.Store(&raw)
}

// ThreadID is the id of the session on the present backend.
func (r *Relay) ThreadID() uint32 { return r.Backend.ThreadID() }

// Begun reports whether a part of the response that broke off last is with the
// client, so that the command cannot be run again.
func (r *Relay) Begun() bool { return r.begun }

// Close closes both connections. It may be called from any goroutine; a backend
// that SetBackend puts in place meanwhile stays open.
func (r *Relay) Close() error {
	err := r.Client.Close()
	if raw := r.rawBack.Load(); raw != nil {
		err = errors.Join(err, (*raw).Close())
	}
	return err
}

// OpenBackend opens another backend connection for the user of login, with the
// same capabilities, so that r.SetBackend can take it.
func (a *Acceptor) OpenBackend(ctx context.Context, dial Dialer, login *Login) (*wire.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, a.opt.ConnectTimeout)
	defer cancel()
	if !login.Secret.Usable() {
		return nil, ErrNoSecret
	}
	nc, err := dial(ctx)
	if err != nil {
		return nil, backendErr(err)
	}
	cfg := wire.Config{
		User: login.User, DB: login.DB, Charset: login.Charset, MaxPacket: login.MaxPacket,
		RawAttrs: login.Attributes, ExactCaps: login.Caps, TLSPreferred: true,
		Password: string(login.Secret.Password), PasswordSHA256: login.Secret.SHA256,
	}
	if a.backendTLS(nc, login.TLS) {
		cfg.TLS = a.opt.BackendTLS
	}
	cl, err := wire.Login(ctx, newEager(nc, &a.busy, 1), &cfg)
	if wire.ErrorCode(err) == errSecureTransport && cfg.TLS == nil && a.opt.BackendTLS != nil {
		// A session that began on a Unix socket is not to end for want of TLS on a
		// loopback address.
		nc.Close()
		if nc, err = dial(ctx); err != nil {
			return nil, backendErr(err)
		}
		cfg.TLS = a.opt.BackendTLS
		cl, err = wire.Login(ctx, newEager(nc, &a.busy, 1), &cfg)
	}
	if err != nil {
		nc.Close()
		return nil, backendErr(err)
	}
	return cl, nil
}

// errSecureTransport is what mysqld with require_secure_transport answers to a
// login over plain TCP.
const errSecureTransport = 3159

// backendTLS reports whether to use TLS on nc if the server offers it.
func (a *Acceptor) backendTLS(nc net.Conn, clientTLS bool) bool {
	return a.opt.BackendTLS != nil && (clientTLS || !staysHere(nc))
}

// staysHere says that what goes over nc does not leave this host.
func staysHere(nc net.Conn) bool {
	switch addr := nc.RemoteAddr().(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return addr.IP.IsLoopback()
	}
	return false
}
