package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"cohort/internal/wire"
)

// said is a connection whose peer has said everything already; what we write is
// kept.
type said struct {
	r     io.Reader
	wrote bytes.Buffer
}

func (s *said) Read(b []byte) (int, error)       { return s.r.Read(b) }
func (s *said) Write(b []byte) (int, error)      { return s.wrote.Write(b) }
func (s *said) Close() error                     { return nil }
func (s *said) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *said) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *said) SetDeadline(time.Time) error      { return nil }
func (s *said) SetReadDeadline(time.Time) error  { return nil }
func (s *said) SetWriteDeadline(time.Time) error { return nil }

var fuzzAcceptor = sync.OnceValue(func() *Acceptor {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	a, err := New(Options{RSAKey: key, MaxInline: 64, Secrets: NewSecrets(), DemandPassword: true})
	if err != nil {
		panic(err)
	}
	return a
})

func packets(seq byte, payloads ...[]byte) []byte {
	var out []byte
	for _, p := range payloads {
		var h [4]byte
		wire.PutHeader(h[:], len(p), seq)
		seq++
		out = append(append(out, h[:]...), p...)
	}
	return out
}

// FuzzResponse lets a backend say anything in response to any command.
func FuzzResponse(f *testing.F) {
	okp := []byte{0, 1, 2, 2, 0, 0, 0}
	end := []byte{0xFE, 0, 0, 2, 0, 0, 0}
	f.Add(packets(1, okp), byte(wire.ComQuery), uint32(0), byte(0), []byte{})
	f.Add(packets(1, []byte{1}, []byte("\x03def"), []byte("\x01a"), end), byte(wire.ComQuery), uint32(0), byte(1), []byte{})
	f.Add(packets(1, []byte{0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0}, []byte("p"), []byte("c")), byte(wire.ComStmtPrepare), uint32(0), byte(0), []byte{})
	f.Add(packets(1, []byte{0xFB, 'x'}), byte(wire.ComQuery), ^uint32(0), byte(2), packets(2, []byte("data"), nil))
	f.Add(packets(1, []byte{0, 0, 0, 0x0A, 0, 0, 0}, okp), byte(wire.ComQuery), ^uint32(0), byte(4), []byte{})
	f.Fuzz(func(t *testing.T, backend []byte, code byte, caps uint32, mode byte, client []byte) {
		if code == wire.ComChangeUser {
			code = wire.ComQuery
		}
		b := &said{r: bytes.NewReader(backend)}
		c := &said{r: bytes.NewReader(client)}
		r := &Relay{Client: wire.NewConn(c), ClientCaps: wire.Capability(caps), acc: fuzzAcceptor(), cmdLen: -1}
		r.SetBackend(wire.NewClient(wire.NewConn(b), wire.Capability(caps)|forcedCaps, &wire.Greeting{}))
		r.Client.Seq = 1
		o := &ResponseOptions{
			Swallow: mode&1 != 0, Hold: mode&2 != 0, MoreResults: mode&4 != 0,
			DropTrackers: wire.TrackGTIDs.Set(), ClearStatus: wire.StatusInTrans,
		}
		if mode&8 != 0 {
			o.Rewrite = func(out *Outcome, last bool) bool { out.Warnings++; return true }
		}
		if err := r.Queue(code, nil); err != nil {
			t.Fatal(err)
		}
		out, err := r.Response(code, o)
		if err == nil && out.Held {
			err = r.Finish(&out, nil)
		}
		if o.Swallow && c.wrote.Len() > 0 {
			t.Errorf("swallowed, but the client was sent %q", c.wrote.Bytes())
		}
		if err != nil {
			return
		}
		// Whatever the client gets is whole packets in the right order.
		seq := byte(1)
		for w := c.wrote.Bytes(); len(w) > 0; seq++ {
			if len(w) < 4 {
				t.Fatalf("%d stray bytes", len(w))
			}
			n, s := wire.ParseHeader(w)
			if code == wire.ComQuery && len(client) == 0 && s != seq {
				t.Fatalf("number %d, want %d", s, seq)
			}
			if len(w) < 4+n {
				t.Fatalf("packet of %d cut off", n)
			}
			w = w[4+n:]
		}
	})
}

// FuzzCommands lets a client say anything in the command phase.
func FuzzCommands(f *testing.F) {
	f.Add(packets(0, []byte{wire.ComQuery, 'x'}))
	f.Add(append(packets(0, []byte{wire.ComPing}), packets(0, bytes.Repeat([]byte{3}, 100))...))
	f.Fuzz(func(t *testing.T, client []byte) {
		c := &said{r: bytes.NewReader(client)}
		b := &said{r: bytes.NewReader(nil)}
		r := &Relay{Client: wire.NewConn(c), acc: fuzzAcceptor(), cmdLen: -1}
		r.SetBackend(wire.NewClient(wire.NewConn(b), forcedCaps, &wire.Greeting{}))
		for i := range 50 {
			cmd, err := r.ReadCommand()
			if err != nil {
				return
			}
			if cmd.Code == wire.ComChangeUser {
				r.ChangeUser(nil)
				return
			}
			if i%3 == 2 {
				if err := r.DropCommand(); err != nil {
					return
				}
				continue
			}
			if err := r.Forward(); err != nil {
				return
			}
		}
	})
}

// FuzzAccept lets both sides say anything in the connection phase.
func FuzzAccept(f *testing.F) {
	g := wire.Greeting{ServerVersion: "9.7.4", Salt: make([]byte, 20), Caps: ^wire.Capability(0), AuthPlugin: wire.PluginCachingSHA2}
	h := wire.HandshakeResponse{Caps: forcedCaps | wire.PluginAuth | wire.ConnectAttrs, User: "u", AuthPlugin: wire.PluginCachingSHA2, AuthResponse: make([]byte, 32)}
	okp := []byte{0, 0, 0, 2, 0, 0, 0}
	f.Add(append(packets(0, g.Append(nil)), packets(2, []byte{1, 3}, okp)...), packets(1, h.Append(nil), []byte{2}, make([]byte, 128)))
	f.Add(append(packets(0, g.Append(nil)), packets(2, []byte{1, 4}, okp)...), packets(1, h.Append(nil), []byte{2}, make([]byte, 128)))
	f.Add(append(packets(0, g.Append(nil)), packets(2, wire.AppendAuthSwitch(nil, wire.PluginSHA256, make([]byte, 20)), okp)...), packets(1, h.Append(nil), []byte{1}, make([]byte, 128)))
	f.Fuzz(func(t *testing.T, backend, client []byte) {
		b := &said{r: bytes.NewReader(backend)}
		c := &said{r: bytes.NewReader(client)}
		r, err := fuzzAcceptor().Accept(context.Background(), c, func(context.Context) (net.Conn, error) { return b, nil })
		if (r == nil) == (err == nil) {
			t.Errorf("%v %v", r, err)
		}
	})
}
