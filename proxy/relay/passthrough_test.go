package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cohort/internal/wire"
)

// passthrough is the smallest server there can be on relay: every command goes
// through unchanged.
type passthrough struct {
	t    *testing.T
	l    net.Listener
	addr string
	acc  *Acceptor
	dial Dialer
	w    *Watch

	// respOpts are used for every response.
	respOpts *ResponseOptions
	events   func(r *Relay) WatchEvents
	onRelay  func(r *Relay)

	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	errs   []error
	last   *Relay
}

func dialTo(network, addr string) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
}

// elsewhere makes connections look as if they led to another host.
func elsewhere(dial Dialer) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return remoteConn{c}, nil
	}
}

type remoteConn struct{ net.Conn }

func (remoteConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 3306} }

func testTLS(t testing.TB) *tls.Config {
	t.Helper()
	cert, err := wire.SelfSigned("127.0.0.1", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

func startPassthrough(t *testing.T, network string, opt Options, dial Dialer) *passthrough {
	t.Helper()
	acc, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "p.sock")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &passthrough{t: t, l: l, addr: l.Addr().String(), acc: acc, dial: dial, cancel: cancel,
		conns: make(map[net.Conn]struct{}), w: NewWatch(50 * time.Millisecond)}
	p.wg.Go(func() { p.w.Run(ctx) })
	p.wg.Go(func() { p.accept(ctx) })
	t.Cleanup(p.close)
	return p
}

func (p *passthrough) close() {
	p.cancel()
	p.l.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *passthrough) accept(ctx context.Context) {
	for {
		nc, err := p.l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns[nc] = struct{}{}
		p.mu.Unlock()
		p.wg.Go(func() {
			err := p.serve(ctx, nc)
			nc.Close()
			p.mu.Lock()
			delete(p.conns, nc)
			if err != nil && !(errors.Is(err, ErrClient) && IsGone(err)) {
				p.errs = append(p.errs, err)
			}
			p.mu.Unlock()
		})
	}
}

func (p *passthrough) serve(ctx context.Context, nc net.Conn) error {
	r, err := p.acc.Accept(ctx, nc, p.dial)
	if err != nil {
		return err
	}
	defer r.Close()
	p.mu.Lock()
	p.last = r
	p.mu.Unlock()
	if p.onRelay != nil {
		p.onRelay(r)
	}
	if p.events != nil {
		defer p.w.Add(r, p.events(r)).Remove()
	}
	for {
		cmd, err := r.ReadCommand()
		if err != nil {
			return err
		}
		code := cmd.Code
		switch code {
		case wire.ComQuit:
			return nil
		case wire.ComChangeUser:
			if _, err := r.ChangeUser(p.respOpts); err != nil {
				return err
			}
			continue
		case wire.ComBinlogDump, wire.ComBinlogDumpGTID, wire.ComClone:
			return r.Tunnel()
		}
		if err := r.Forward(); err != nil {
			return err
		}
		if _, err := r.Response(code, p.respOpts); err != nil {
			return err
		}
	}
}

// lastRelay is the relay of the newest connection.
func (p *passthrough) lastRelay() *Relay {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// noErrors fails the test if a connection ended in an error that was not the
// client's leaving.
func (p *passthrough) noErrors(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.errs {
		t.Errorf("session: %v", e)
	}
	p.errs = nil
}
