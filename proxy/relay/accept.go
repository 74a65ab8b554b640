package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"cohort/internal/wire"
)

const (
	maxAuthPacket = 1 << 18

	errBadHandshake  = 1043
	errOutOfOrder    = 1156
	errCannotConnect = 2003
	stateComm        = "08S01"
)

// forcedCaps is on towards every backend that has it: the encodings that relay
// itself reads. None of them changes what the server does.
const forcedCaps = wire.Protocol41 | wire.SecureConnection | wire.PluginAuthLenenc |
	wire.Transactions | wire.SessionTrack | wire.DeprecateEOF

// ownCaps belongs to a leg by itself and is never taken over from the other.
const ownCaps = wire.SSL | wire.Compress | wire.ZstdCompression | wire.CapabilityExtension

// Accept takes a client through the connection phase: it dials the backend,
// shows its greeting, relays the authentication, and returns when the client has
// been told that it is in. The client has been told about any error that could
// be told; the caller closes nc in that case.
func (a *Acceptor) Accept(ctx context.Context, nc net.Conn, dial Dialer) (*Relay, error) {
	ctx, cancel := context.WithTimeout(ctx, a.opt.ConnectTimeout)
	defer cancel()
	r := &Relay{Client: wire.NewConn(newEager(nc, &a.busy, 0)), acc: a, cmdLen: -1}
	defer deadlineOnDone(ctx, nc)()
	back, err := dial(ctx)
	if err != nil {
		var se *wire.ServerError
		if !errors.As(err, &se) {
			se = wire.NewError(errCannotConnect, "HY000", "Can't connect to remote MySQL server")
		}
		return nil, errors.Join(backendErr(err), r.tell(se))
	}
	defer deadlineOnDone(ctx, back)()
	if err := r.connect(ctx, back); err != nil {
		back.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return nil, err
	}
	if ctx.Err() != nil {
		// The deadline may have hit the connections already.
		back.Close()
		return nil, context.Cause(ctx)
	}
	return r, nil
}

// deadlineOnDone makes blocked I/O on nc fail when ctx ends.
func deadlineOnDone(ctx context.Context, nc net.Conn) (stop func()) {
	s := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	return func() { s() }
}

// tell sends the client an ERR packet in reply to whatever came last.
func (r *Relay) tell(e *wire.ServerError) error {
	err := r.Client.WritePacket(wire.AppendERR(nil, e))
	if err == nil {
		err = r.Client.Flush()
	}
	if err != nil {
		return clientErr(err)
	}
	return nil
}

func (r *Relay) connect(ctx context.Context, nc net.Conn) error {
	b := wire.NewConn(newEager(nc, &r.acc.busy, 1))
	p, err := b.ReadPacket(maxAuthPacket)
	if err != nil {
		return errors.Join(backendErr(err),
			r.tell(wire.NewError(errCannotConnect, "HY000", "Lost connection to the server at reading initial communication packet")))
	}
	g, err := wire.ParseGreeting(p)
	if err != nil {
		var se *wire.ServerError
		if errors.As(err, &se) {
			// Too many connections, host blocked: the server's own words.
			return errors.Join(backendErr(err), r.tell(se))
		}
		return errors.Join(backendErr(err), r.tell(wire.NewError(errBadHandshake, stateComm, "Bad handshake")))
	}
	if !g.Caps.Has(forcedCaps) {
		return errors.Join(backendErr(errors.New("server is too old")),
			r.tell(wire.NewError(errBadHandshake, stateComm, "Bad handshake")))
	}
	hello, err := r.meetClient(ctx, g)
	if err != nil {
		return err
	}
	caps := r.agree(hello, g)
	r.SetBackend(wire.NewClient(b, caps, g))
	auth := authRelay{r: r, b: b, plugin: hello.AuthPlugin, salt: g.Salt}
	if auth.plugin == "" {
		auth.plugin = wire.PluginNative // what a client that names none uses
	}
	toBackend := *hello
	toBackend.Caps = caps
	if g.Caps.Has(wire.SSL) && r.acc.backendTLS(nc, r.Login.TLS) {
		if err := wire.StartClientTLS(ctx, b, &toBackend, r.acc.opt.BackendTLS); err != nil {
			return errors.Join(backendErr(err), r.tell(wire.NewError(errCannotConnect, "HY000", "Can't connect to remote MySQL server")))
		}
	}
	if toBackend.AuthResponse, err = auth.answer(hello.AuthResponse); err != nil {
		return err
	}
	if err := send(b, toBackend.Append(nil)); err != nil {
		return backendErr(err)
	}
	ok, err := auth.run(caps)
	if err != nil {
		return err
	}
	r.Login.Secret = auth.secret
	r.salt, r.plugin = auth.salt, auth.plugin
	return r.welcome(ctx, hello, &ok)
}

// meetClient shows the greeting and reads the answer, over TLS if asked.
func (r *Relay) meetClient(ctx context.Context, g *wire.Greeting) (*wire.HandshakeResponse, error) {
	shown := *g
	shown.Caps = g.Caps&^ownCaps | wire.SessionTrack | wire.DeprecateEOF
	if r.acc.opt.ClientTLS != nil {
		shown.Caps |= wire.SSL
	}
	if r.acc.opt.Compression {
		shown.Caps |= wire.Compress | wire.ZstdCompression
	}
	if err := send(r.Client, shown.Append(nil)); err != nil {
		return nil, clientErr(err)
	}
	bad := func(err error) error {
		return errors.Join(clientErr(err), r.tell(wire.NewError(errBadHandshake, stateComm, "Bad handshake")))
	}
	p, err := r.Client.ReadPacket(maxAuthPacket)
	if err != nil {
		return nil, clientErr(err)
	}
	if r.Client.Seq != 2 {
		return nil, bad(wire.ErrSequence)
	}
	if wire.IsSSLRequest(p) {
		if r.acc.opt.ClientTLS == nil {
			return nil, bad(errors.New("TLS was not offered"))
		}
		if err := r.Client.ServerTLS(ctx, r.acc.opt.ClientTLS); err != nil {
			return nil, clientErr(err)
		}
		if p, err = r.Client.ReadPacket(maxAuthPacket); err != nil {
			return nil, clientErr(err)
		}
		if r.Client.Seq != 3 {
			return nil, bad(wire.ErrSequence)
		}
	}
	if need := r.acc.opt.RequireTLS; need != nil && need() && !r.Client.Secure() {
		return nil, errors.Join(clientErr(errors.New("TLS is required")), r.tell(wire.NewError(errSecureTransport, "HY000",
			"Connections using insecure transport are prohibited while --require_secure_transport=ON.")))
	}
	hello, err := wire.ParseHandshakeResponse(p, shown.Caps)
	if err != nil {
		return nil, bad(err)
	}
	r.ClientCaps = hello.Caps
	return hello, nil
}

// agree sets what the backend leg will speak and records the login.
func (r *Relay) agree(hello *wire.HandshakeResponse, g *wire.Greeting) wire.Capability {
	caps := (hello.Caps&^ownCaps | forcedCaps) & g.Caps
	r.Login = Login{
		User: hello.User, DB: hello.DB, Charset: hello.Charset, MaxPacket: hello.MaxPacket,
		Attributes: hello.Attributes, Caps: caps, TLS: r.Client.Encrypted(),
	}
	return caps
}

// welcome tells the client that it is in.
func (r *Relay) welcome(ctx context.Context, hello *wire.HandshakeResponse, ok *wire.OK) error {
	if hook := r.acc.opt.Authenticated; hook != nil {
		if err := hook(ctx, r, ok); err != nil {
			var se *wire.ServerError
			if errors.As(err, &se) {
				return errors.Join(err, r.tell(se))
			}
			return err
		}
	}
	r.Status = ok.Status
	if err := send(r.Client, wire.AppendOK(nil, wire.HeaderOK, ok, r.ClientCaps)); err != nil {
		return clientErr(err)
	}
	switch {
	case r.ClientCaps.Has(wire.Compress):
		r.Client.EnableCompression(wire.Zlib, 0)
	case r.ClientCaps.Has(wire.ZstdCompression):
		r.Client.EnableCompression(wire.Zstd, int(hello.ZstdLevel))
	}
	r.Client.Release()
	r.Backend.Conn.Release()
	return nil
}

// send writes one packet at once.
func send(c *wire.Conn, payload []byte) error {
	if err := c.WritePacket(payload); err != nil {
		return err
	}
	return c.Flush()
}
