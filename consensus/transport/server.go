package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/rs/zerolog"

	"cohort/internal/pause"
	"cohort/internal/rawnet"
)

// accept serves whoever connects until Close.
func (t *Transport) accept() {
	for {
		c, err := t.ln.Accept()
		if err != nil {
			if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, or a connection that died in the queue:
			// it passes.
			t.o.Logger.Warn().Err(err).Msg("log connection: accept failed")
			_ = pause.For(t.ctx, 50*time.Millisecond)
			continue
		}
		select {
		case t.slots <- struct{}{}:
		default:
			t.o.Logger.Warn().Stringer("remote", c.RemoteAddr()).Msg("log connection: too many connections")
			c.Close()
			continue
		}
		if !t.spawn(func() { defer func() { <-t.slots }(); t.serve(rawnet.Conn(c)) }) {
			c.Close()
			return
		}
	}
}

// serve owns one accepted connection. Whatever goes wrong ends this one only.
func (t *Transport) serve(nc net.Conn) {
	defer nc.Close()
	defer context.AfterFunc(t.ctx, func() { nc.Close() })()
	log := t.o.Logger.With().Stringer("remote", nc.RemoteAddr()).Logger()
	if t.o.Allowlist != nil {
		// Before a byte is read.
		if err := t.o.Allowlist.Check(t.ctx, nc.RemoteAddr()); err != nil {
			t.logRefusal(log, nc, err)
			return
		}
	}
	in, err := t.secure(nc)
	if err == nil && t.o.Asked != nil {
		if b, err := in.r.Peek(1); err == nil && b[0] == t.o.AskedBy {
			_, _ = in.r.Discard(1)
			t.o.Asked(t.ctx, &peeked{in.Conn, in.r}, func(address string) error { return t.verify(in.state, address) })
			return
		}
	}
	var h hello
	if err == nil {
		h, err = t.welcome(in)
	}
	if err != nil {
		// Who hung up was not refused: whoever asks several members needs one answer.
		if t.ctx.Err() == nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.logRefusal(log, nc, err)
		}
		return
	}
	if h.purpose == forCalls {
		t.o.Called(t.ctx, &peeked{in.Conn, in.r})
		return
	}
	log = log.With().Uint64("replica", h.replica).Str("address", h.address).Logger()
	err = t.receive(in, h)
	switch {
	case t.ctx.Err() != nil:
	case errors.Is(err, ErrFrame), errors.Is(err, errFenced):
		log.Warn().Err(err).Msg("log connection: ended")
	default:
		log.Debug().Err(err).Msg("log connection: ended")
	}
}

// Whoever is refused tries again a few times a second, for as long as it lives:
// the same about the same host is logged once in refusalInterval.
const (
	refusalInterval = 30 * time.Second
	maxRefusals     = 1000 // kept; a stranger could invent more
)

func (t *Transport) logRefusal(log zerolog.Logger, nc net.Conn, err error) {
	host, _, _ := net.SplitHostPort(nc.RemoteAddr().String())
	what := host + " " + reason(err)
	t.mu.Lock()
	last, now := t.refused[what], time.Now()
	again := now.Sub(last) < refusalInterval
	if !again {
		if len(t.refused) >= maxRefusals {
			clear(t.refused)
		}
		t.refused[what] = now
	}
	t.mu.Unlock()
	if again {
		log.Debug().Err(err).Msg("log connection: refused")
		return
	}
	log.Warn().Err(err).Msg("log connection: refused")
}

// inConn is a connection that was accepted; state is that of its TLS, or nil.
type inConn struct {
	net.Conn
	r     *bufio.Reader
	state *tls.ConnectionState
}

// secure begins with whoever connects: in clear text or under TLS, as this member
// wants it, whatever it is to be used for. All until it is let in must be over within
// handshakeTimeout, however slowly bytes arrive.
func (t *Transport) secure(nc net.Conn) (*inConn, error) {
	if err := nc.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	first := bufio.NewReaderSize(nc, readBuffer)
	// What a TLS handshake begins with; a hello's length is less than 5 times 256.
	b, err := first.Peek(1)
	if err != nil {
		return nil, err
	}
	switch encrypted := b[0] == 22; {
	case encrypted && t.o.TLS == nil:
		return nil, errors.New("it uses TLS and group_replication_ssl_mode is DISABLED here")
	case !encrypted && t.o.TLS != nil:
		if t.o.Asked == nil || b[0] != t.o.AskedBy {
			nc.Write(appendReply(nil, "group_replication_ssl_mode is not DISABLED there"))
		}
		return nil, errors.New("it does not use TLS, and group_replication_ssl_mode here wants it")
	}
	if t.o.TLS == nil {
		return &inConn{Conn: nc, r: first}, nil
	}
	c := tls.Server(&peeked{nc, first}, t.o.TLS.Server())
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	state := c.ConnectionState()
	return &inConn{Conn: c, r: bufio.NewReaderSize(c, readBuffer), state: &state}, nil
}

// verify says why who connects cannot be at the address that it gives.
func (t *Transport) verify(state *tls.ConnectionState, address string) error {
	if state == nil {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	return t.o.TLS.VerifyHost(*state, host)
}

// welcome hears who connects and answers.
func (t *Transport) welcome(in *inConn) (hello, error) {
	p, err := readBlock(in.r)
	if err != nil {
		return hello{}, err
	}
	h, err := parseHello(p)
	if err != nil {
		return hello{}, err
	}
	refusal := t.judge(h, in.state)
	reason := ""
	if refusal != nil {
		reason = refusal.Error()
	}
	if _, err := in.Write(appendReply(nil, reason)); err != nil {
		return hello{}, err
	}
	if refusal != nil {
		return hello{}, refusal
	}
	return h, in.SetDeadline(time.Time{})
}

// judge says why the other side is not let in.
func (t *Transport) judge(h hello, state *tls.ConnectionState) error {
	switch {
	case h.version != version:
		return fmt.Errorf("it speaks version %d of the protocol, this member %d", h.version, version)
	case h.group != t.o.Group:
		return fmt.Errorf("it is a member of group %q, this one of group %q", h.group, t.o.Group)
	case h.replica == t.o.Replica:
		return fmt.Errorf("it says that it is replica %d, as this member is", h.replica)
	}
	if err := t.verify(state, h.address); err != nil {
		return err
	}
	switch {
	case h.purpose == forCalls && t.o.Called == nil:
		return errors.New("this member takes no calls")
	case h.purpose == forCalls:
		// Members whose memberships differ have to talk about just that.
		return nil
	case t.o.Closed:
		return errClosedLog
	case h.generation != t.o.Generation:
		return fmt.Errorf("%w: %s there, %s here", errGeneration, generation(h.generation), generation(t.o.Generation))
	}
	if !t.allowed(h.replica) {
		return fenced(h.replica)
	}
	return t.checkClaim(h.replica, h.address)
}

var errFenced = errors.New("replica is not a member any more")

var (
	errClosedLog  = errors.New("its log is closed while a membership is forced upon the group (group_replication_force_members)")
	errGeneration = errors.New("another membership was forced upon the group (group_replication_force_members)")
)

// generation names a membership.
func generation(g uint64) string {
	if g == 0 {
		return "an unforced membership"
	}
	return fmt.Sprintf("membership %x", g)
}

func fenced(replica uint64) error { return fmt.Errorf("%w: %d", errFenced, replica) }

// receive hands on what arrives until the connection ends.
func (t *Transport) receive(in *inConn, h hello) error {
	fr := &frameReader{r: in.r, sum: t.o.TLS == nil}
	for {
		typ, p, err := fr.next()
		if err != nil {
			return err
		}
		// A replica that is removed while its connection is up is fenced too.
		if !t.allowed(h.replica) {
			return fenced(h.replica)
		}
		answer := ack
		switch {
		case typ&^flagAsk == frameBatch && h.purpose == forMessages:
			err = t.batch(p, h)
		case typ == frameChunk|flagAsk && h.purpose == forChunks:
			var taken bool
			if taken, err = t.chunk(p, h); !taken {
				answer = nack
			}
		default:
			err = fmt.Errorf("%w: type %d", ErrFrame, typ)
		}
		if err != nil {
			return err
		}
		if typ&flagAsk == 0 {
			continue
		}
		if err := in.SetWriteDeadline(time.Now().Add(ackTimeout)); err != nil {
			return err
		}
		if _, err := in.Write([]byte{answer}); err != nil {
			return err
		}
	}
}

func (t *Transport) batch(p []byte, h hello) error {
	var b raftpb.MessageBatch
	if err := b.Unmarshal(p); err != nil {
		return fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if err := checkBatch(&b, t.o.Shard, h.replica); err != nil {
		return err
	}
	b.SourceAddress = h.address // checked, see checkClaim
	t.messages(b)
	return nil
}

func (t *Transport) chunk(p []byte, h hello) (taken bool, err error) {
	var c raftpb.Chunk
	if err := c.Unmarshal(p); err != nil {
		return false, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if err := checkChunk(&c, t.o.Shard, h.replica, t.o.Replica); err != nil {
		return false, err
	}
	return t.chunks(c), nil
}

// peeked is a connection whose first bytes were read already.
type peeked struct {
	net.Conn
	r io.Reader
}

// Read implements net.Conn.
func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }
