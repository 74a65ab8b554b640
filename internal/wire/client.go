package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"cohort/internal/rawnet"
)

// Errors of [Client].
var (
	// ErrBroken says that the connection failed or was cancelled earlier.
	ErrBroken = errors.New("connection is broken")
	// ErrInsecureAuth says that a plugin asked for the password in clear over
	// an open connection.
	ErrInsecureAuth = errors.New("refusing to send the password in clear")
	// ErrAuthPlugin says that the account's plugin is none that we know.
	ErrAuthPlugin = errors.New("unsupported authentication plugin")
)

// essentialCaps is what no connection of ours goes without.
const essentialCaps = Protocol41 | SecureConnection | PluginAuth | PluginAuthLenenc

// baseCaps is what a Client always asks for.
const baseCaps = LongPassword | LongFlag | Protocol41 | Transactions | SecureConnection |
	MultiResults | PSMultiResults | PluginAuth | PluginAuthLenenc | SessionTrack | DeprecateEOF

// Config says how to open a [Client].
type Config struct {
	Network  string // "unix" or "tcp"
	Addr     string
	User     string
	Password string
	// PasswordSHA256, if not nil, is used when the password itself is not
	// known: enough for caching_sha2_password while the server has the account
	// cached.
	PasswordSHA256 *[32]byte
	DB             string
	Charset        byte // collation id, 0 for utf8mb4_0900_ai_ci
	MaxPacket      uint32
	// TLS is used if not nil. TLSPreferred goes on without TLS if the server
	// has none; otherwise that is an error.
	TLS          *tls.Config
	TLSPreferred bool
	Caps         Capability // asked for beyond the usual, if the server has them
	// ExactCaps, if not 0, replaces the usual set: the connection has these
	// features and those without which nothing works, or Dial fails.
	ExactCaps  Capability
	Attributes [][2]string
	RawAttrs   []byte // connection attributes as on the wire, instead of Attributes
	// Dialer opens the transport, nil for net.Dialer.
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error)
	// ConnectTimeout bounds Dial, 0 for 10 s.
	ConnectTimeout time.Duration
	// MaxReply bounds one packet of a reply, 0 for 64 MiB.
	MaxReply int
}

// Client is an authenticated connection for statements of our own. It belongs
// to one goroutine at a time; Close may be called from any. After an error that
// is not a *[ServerError] it is broken for good.
type Client struct {
	Conn     *Conn
	Caps     Capability // as agreed on
	Greeting *Greeting
	LoginOK  OK // the OK that ended authentication
	MaxReply int

	broken error
	row    [][]byte
}

// NewClient wraps a connection that went through authentication elsewhere.
func NewClient(c *Conn, caps Capability, g *Greeting) *Client {
	return &Client{Conn: c, Caps: caps, Greeting: g, MaxReply: 64 << 20}
}

// Dial connects and authenticates.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	timeout := cfg.ConnectTimeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dial := cfg.Dialer
	if dial == nil {
		dial = new(rawnet.Dialer).DialContext
	}
	nc, err := dial(ctx, cfg.Network, cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", cfg.Addr, err)
	}
	cl, err := Login(ctx, nc, &cfg)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("log in to %s as %q: %w", cfg.Addr, cfg.User, err)
	}
	return cl, nil
}

// Login authenticates on a connection on which the server speaks next. Network,
// Addr, Dialer and ConnectTimeout of cfg are not used. The caller closes nc on
// an error.
func Login(ctx context.Context, nc net.Conn, cfg *Config) (*Client, error) {
	stop := closeOnDone(ctx, nc)
	defer stop()
	c := NewConn(nc)
	p, err := c.ReadPacket(maxAuthPacket)
	if err != nil {
		return nil, cause(ctx, err)
	}
	g, err := ParseGreeting(p)
	if err != nil {
		return nil, err
	}
	if !g.Caps.Has(Protocol41 | PluginAuth | SecureConnection) {
		return nil, malformed("server is too old")
	}
	r := &HandshakeResponse{
		Caps:       (baseCaps | cfg.Caps) & g.Caps,
		MaxPacket:  cfg.MaxPacket,
		Charset:    cfg.Charset,
		User:       cfg.User,
		AuthPlugin: g.AuthPlugin,
		DB:         cfg.DB,
	}
	if cfg.ExactCaps != 0 {
		r.Caps = essentialCaps | cfg.ExactCaps&^(SSL|Compress|ZstdCompression|ConnectWithDB|ConnectAttrs)
		if missing := r.Caps &^ g.Caps; missing != 0 {
			return nil, fmt.Errorf("the server lacks capabilities %#x", uint32(missing))
		}
	}
	if r.MaxPacket == 0 {
		r.MaxPacket = 1 << 30
	}
	if r.Charset == 0 {
		r.Charset = defaultCharset
	}
	if r.DB != "" {
		r.Caps |= ConnectWithDB & g.Caps
	}
	r.Attributes = cfg.RawAttrs
	for _, a := range cfg.Attributes {
		r.Attributes = AppendAttribute(r.Attributes, a[0], a[1])
	}
	if len(r.Attributes) > 0 {
		r.Caps |= ConnectAttrs & g.Caps
	}
	if cfg.TLS != nil {
		if g.Caps.Has(SSL) {
			if err := StartClientTLS(ctx, c, r, cfg.TLS); err != nil {
				return nil, cause(ctx, err)
			}
		} else if !cfg.TLSPreferred {
			return nil, errors.New("the server does not offer TLS")
		}
	}
	a := authenticator{c: c, cfg: cfg, plugin: g.AuthPlugin, salt: g.Salt}
	if !a.known() {
		// Let the server name the account's own plugin.
		a.plugin, r.AuthPlugin = PluginCachingSHA2, PluginCachingSHA2
	}
	if r.AuthResponse, err = a.first(); err != nil {
		return nil, err
	}
	if err = c.WritePacket(r.Append(nil)); err == nil {
		err = c.Flush()
	}
	if err != nil {
		return nil, cause(ctx, err)
	}
	cl := NewClient(c, r.Caps, g)
	if cfg.MaxReply > 0 {
		cl.MaxReply = cfg.MaxReply
	}
	if cl.LoginOK, err = a.run(r.Caps); err != nil {
		return nil, cause(ctx, err)
	}
	c.Release()
	if !stop() && ctx.Done() != nil {
		return nil, context.Cause(ctx)
	}
	return cl, nil
}

// StartClientTLS sends the request for TLS that belongs to the handshake
// response r, upgrades c, and sets the flag in r.
func StartClientTLS(ctx context.Context, c *Conn, r *HandshakeResponse, cfg *tls.Config) error {
	r.Caps |= SSL
	if err := c.WritePacket(r.AppendSSLRequest(nil)); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return err
	}
	return c.ClientTLS(ctx, cfg)
}

// closeOnDone makes a blocked read or write of nc fail when ctx ends.
func closeOnDone(ctx context.Context, nc net.Conn) (stop func() bool) {
	if ctx.Done() == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
}

// cause prefers the reason ctx ended over the I/O error that followed from it.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && err != nil {
		var se *ServerError
		if !errors.As(err, &se) {
			return fmt.Errorf("%w (%w)", c, err)
		}
	}
	return err
}

// Close ends the connection without a word; it may be called at any time.
func (cl *Client) Close() error { return cl.Conn.Close() }

// Quit sends COM_QUIT and closes, which spares the server a warning.
func (cl *Client) Quit() error {
	if cl.broken == nil {
		cl.Conn.NetConn().SetDeadline(time.Now().Add(time.Second))
		if WriteCommand[string](cl.Conn, ComQuit) == nil {
			cl.Conn.Flush()
		}
		cl.broken = ErrBroken
		// The server may be faster with closing: no error of this is of use.
		cl.Conn.Close()
		return nil
	}
	return cl.Conn.Close()
}

// Broken reports whether the connection can no longer be used.
func (cl *Client) Broken() bool { return cl.broken != nil }

// ThreadID is the server's id of this connection, for KILL.
func (cl *Client) ThreadID() uint32 { return cl.Greeting.ThreadID }
