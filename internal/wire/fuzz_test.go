package wire

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// stream is a connection whose peer has said everything already.
type stream struct{ r io.Reader }

func (s stream) Read(b []byte) (int, error)       { return s.r.Read(b) }
func (s stream) Write(b []byte) (int, error)      { return len(b), nil }
func (s stream) Close() error                     { return nil }
func (s stream) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s stream) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s stream) SetDeadline(time.Time) error      { return nil }
func (s stream) SetReadDeadline(time.Time) error  { return nil }
func (s stream) SetWriteDeadline(time.Time) error { return nil }

func FuzzPayloads(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 0, 0, 0}, uint32(SessionTrack))
	f.Add((&Greeting{Salt: make([]byte, 20), Caps: ^Capability(0), AuthPlugin: "p"}).Append(nil), uint32(0))
	f.Add((&HandshakeResponse{Caps: ^Capability(0), User: "u"}).Append(nil), ^uint32(0))
	f.Add((&ChangeUser{User: "u"}).Append(nil, ^Capability(0)), ^uint32(0))
	f.Add([]byte{1, 1, 0, 1, TypeVarString, 0, 1, 'a', 1, 'b', 'S'}, ^uint32(0))
	f.Fuzz(func(t *testing.T, p []byte, c uint32) {
		caps := Capability(c)
		if ok, err := ParseOK(p, caps); err == nil {
			again, err := ParseOK(AppendOK(nil, HeaderOK, &ok, caps), caps)
			if err != nil || again.AffectedRows != ok.AffectedRows || !bytes.Equal(again.Info, ok.Info) ||
				!bytes.Equal(again.Trackers, ok.Trackers) {
				t.Errorf("%+v became %+v, %v", ok, again, err)
			}
			ok.Trackers.GTID()
			ok.Trackers.SysVar("x")
			ok.Trackers.AppendWithout(nil, TrackGTIDs.Set())
		}
		if e, err := ParseERR(p); err == nil {
			if again, err := ParseERR(AppendERR(nil, e)); err != nil || e.State != "" && *again != *e {
				t.Errorf("%+v became %+v", e, again)
			}
		}
		ParseEOF(p)
		ParseEnd(p, caps)
		if g, err := ParseGreeting(p); err == nil {
			g.Append(nil)
		}
		if r, err := ParseHandshakeResponse(p, caps); err == nil {
			if r.Caps&^caps != 0 {
				t.Error("capabilities that were not offered")
			}
			r.Append(nil)
		}
		if r, err := ParseChangeUser(p, caps); err == nil {
			r.Append(nil, caps)
		}
		ParseAuthSwitch(p)
		ParseAttributes(p)
		ParseColumn(p)
		ParseColumnCount(p, caps)
		ParseTextRow(p, 5, nil)
		ParsePublicKey(p)
		if attrs, sql, err := SplitQuery(p, caps); err == nil && len(attrs)+len(sql) != len(p) {
			t.Error("bytes lost")
		}
		IsSSLRequest(p)
		for range Trackers(p).All() {
		}
	})
}

// FuzzStream feeds bytes to the packet reader, over each compression.
func FuzzStream(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 3}, byte(0))
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3}, byte(1))
	for algo := Zlib; algo <= Zstd; algo++ {
		var b bytes.Buffer
		c := NewConn(rw{&b})
		c.EnableCompression(algo, 0)
		c.WritePacket(bytes.Repeat([]byte("x"), 3000))
		c.Flush()
		f.Add(b.Bytes(), byte(algo))
	}
	f.Fuzz(func(t *testing.T, in []byte, algo byte) {
		c := NewConn(stream{bytes.NewReader(in)})
		c.EnableCompression(Algorithm(algo%3), 0)
		for range 100 {
			if _, err := c.ReadPacket(1 << 20); err != nil {
				break
			}
		}
		if algo%3 == 0 && len(c.buf) > 4*len(in)+128<<10 {
			t.Errorf("%d bytes of input cost a buffer of %d", len(in), len(c.buf))
		}
	})
}

// rw writes to a buffer.
type rw struct{ *bytes.Buffer }

func (rw) Close() error                     { return nil }
func (rw) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (rw) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (rw) SetDeadline(time.Time) error      { return nil }
func (rw) SetReadDeadline(time.Time) error  { return nil }
func (rw) SetWriteDeadline(time.Time) error { return nil }

// FuzzReply feeds bytes to a Client as the answer to a query.
func FuzzReply(f *testing.F) {
	f.Add([]byte{7, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0}, uint32(SessionTrack|DeprecateEOF))
	f.Fuzz(func(t *testing.T, in []byte, caps uint32) {
		cl := NewClient(NewConn(stream{bytes.NewReader(in)}), Capability(caps), &Greeting{})
		var r Reply
		if err := cl.readReply(&r, nil); err == nil && r.Err == nil && r.OK.Status&StatusMoreResults != 0 {
			t.Error("ended although more was announced")
		}
		cl = NewClient(NewConn(stream{bytes.NewReader(in)}), Capability(caps), &Greeting{Salt: make([]byte, 20)})
		cl.changeUser(&Config{User: "u", Password: "p"}, PluginCachingSHA2)
	})
}
