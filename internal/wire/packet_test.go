package wire

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// pipe returns two ends of a real socket: net.Pipe would hide short reads.
func pipe(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestPacketRoundTrip(t *testing.T) {
	algos := map[string]Algorithm{"plain": NoCompression, "zlib": Zlib, "zstd": Zstd}
	for name, algo := range algos {
		t.Run(name, func(t *testing.T) {
			na, nb := pipe(t)
			a, b := NewConn(na), NewConn(nb)
			a.EnableCompression(algo, 0)
			b.EnableCompression(algo, 5)
			sizes := []int{0, 1, 49, 50, 251, 1 << 10, 16<<10 - 4, 16 << 10, 16<<10 + 1, 1 << 16, 1 << 20,
				MaxPayload - 1, MaxPayload, MaxPayload + 1, 2 * MaxPayload, 40 << 20}
			sent := make(chan error, 1)
			go func() {
				for _, n := range sizes {
					a.Seq = 0
					if err := a.WritePacket(bytes.Repeat([]byte("abcdefghij"), n/10+1)[:n]); err != nil {
						sent <- err
						return
					}
				}
				sent <- a.Flush()
			}()
			for _, n := range sizes {
				p, err := b.ReadPacket(1 << 30)
				if err != nil {
					t.Fatalf("%d: %v", n, err)
				}
				if !bytes.Equal(p, bytes.Repeat([]byte("abcdefghij"), n/10+1)[:n]) {
					t.Errorf("%d: %d bytes, other content", n, len(p))
				}
				if want := byte(n/MaxPayload + 1); b.Seq != want {
					t.Errorf("%d: number %d, want %d", n, b.Seq, want)
				}
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	na, nb := pipe(t)
	a, b := NewConn(na), NewConn(nb)
	if err := a.WritePacket(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := a.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadPacket(999); !errors.Is(err, ErrPacketTooLarge) {
		t.Errorf("%v", err)
	}
	// A header that promises much and a peer that leaves: no memory, an error.
	a.WriteRaw(make([]byte, 0))
	na.Close()
	if _, err := b.ReadPacket(1 << 30); err != nil {
		t.Errorf("the packet that was there: %v", err)
	}
	if _, err := b.ReadPacket(1 << 30); err != io.EOF {
		t.Errorf("%v", err)
	}
	na, nb = pipe(t)
	b = NewConn(nb)
	na.Write([]byte{0xFE, 0xFF, 0xFF, 0, 1, 2, 3})
	na.Close()
	if _, err := b.ReadPacket(1 << 30); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	if len(b.buf) > 64<<10 {
		t.Errorf("a length in a header cost %d bytes", len(b.buf))
	}
}

func TestReleaseKeepsWhatIsUnread(t *testing.T) {
	na, nb := pipe(t)
	a, b := NewConn(na), NewConn(nb)
	a.WritePacket([]byte("one"))
	a.WritePacket([]byte("two"))
	if err := a.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := b.WaitIdle(14); err != nil {
		t.Fatal(err)
	}
	if p, err := b.ReadPacket(10); err != nil || string(p) != "one" {
		t.Fatalf("%q %v", p, err)
	}
	b.Release()
	if p, err := b.ReadPacket(10); err != nil || string(p) != "two" {
		t.Fatalf("%q %v", p, err)
	}
	b.Release()
	if b.buf != nil || b.pooled != nil {
		t.Error("buffers are kept")
	}
}

func TestLenenc(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 70000), rapid.Uint64Range(1<<24-2, 1<<24+2)).Draw(t, "v")
		b := AppendLenencInt(nil, v)
		got, rest, ok := ReadLenencInt(append(b, 7))
		if !ok || got != v || len(rest) != 1 {
			t.Fatalf("%d: %d %v", v, got, ok)
		}
		for i := range b {
			if _, _, ok := ReadLenencInt(b[:i]); ok {
				t.Fatalf("%d: read from %d of %d bytes", v, i, len(b))
			}
		}
	})
}

func drawOK(t *rapid.T) OK {
	ok := OK{
		AffectedRows: rapid.Uint64().Draw(t, "rows"), InsertID: rapid.Uint64().Draw(t, "id"),
		Status:   Status(rapid.Uint16().Draw(t, "status")) &^ StatusSessionStateChanged,
		Warnings: rapid.Uint16().Draw(t, "warnings"),
	}
	if info := rapid.SliceOf(rapid.Byte()).Draw(t, "info"); len(info) > 0 {
		ok.Info = info
	}
	if rapid.Bool().Draw(t, "tracked") {
		ok.Trackers = AppendTracker(ok.Trackers, TrackGTIDs, rapid.String().Draw(t, "gtid"))
		ok.Trackers = AppendTracker(ok.Trackers, TrackTxState, "T_______")
		ok.Status |= StatusSessionStateChanged
	}
	return ok
}

func TestOKRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ok := drawOK(t)
		for _, h := range []byte{HeaderOK, HeaderEOF} {
			got, err := ParseOK(AppendOK(nil, h, &ok, SessionTrack), SessionTrack)
			if err != nil || !reflect.DeepEqual(normal(got), normal(ok)) {
				t.Fatalf("%+v\n%+v\n%v", ok, got, err)
			}
			plain := ok
			plain.Trackers, plain.Status = nil, ok.Status&^StatusSessionStateChanged
			if got, err = ParseOK(AppendOK(nil, h, &ok, 0), 0); err != nil || !reflect.DeepEqual(normal(got), normal(plain)) {
				t.Fatalf("%+v\n%+v\n%v", plain, got, err)
			}
		}
		eof, err := ParseEnd(AppendEOF(nil, &ok, 0), 0)
		if err != nil || eof.Status != ok.Status&^StatusSessionStateChanged || eof.Warnings != ok.Warnings {
			t.Fatalf("%+v %v", eof, err)
		}
	})
}

func normal(ok OK) OK {
	ok.Info = append([]byte{}, ok.Info...)
	ok.Trackers = append(Trackers{}, ok.Trackers...)
	return ok
}

func TestTrackers(t *testing.T) {
	var tr Trackers
	tr = AppendTracker(tr, TrackSchema, "d")
	tr = AppendTracker(tr, TrackGTIDs, "uuid:7")
	tr = AppendTracker(tr, TrackTxState, "T_R_____")
	vars := AppendLenencString(AppendLenencString(nil, "autocommit"), "OFF")
	vars = AppendLenencString(AppendLenencString(vars, "time_zone"), "UTC")
	tr = AppendLenencString(append(tr, byte(TrackSystemVariables)), vars)
	if g := tr.GTID(); g != "uuid:7" {
		t.Error(g)
	}
	if s, ok := tr.Schema(); s != "d" || !ok {
		t.Error(s)
	}
	if s, ok := tr.SysVar("AUTOCOMMIT"); s != "OFF" || !ok {
		t.Error(s)
	}
	if s, ok := tr.TxState(); s != "T_R_____" || !ok {
		t.Error(s)
	}
	rest := tr.AppendWithout(nil, TrackGTIDs.Set()|TrackTxState.Set())
	if rest.GTID() != "" || rest.Types() != TrackSchema.Set()|TrackSystemVariables.Set() {
		t.Errorf("%q", rest)
	}
	for i := range tr {
		for range tr[:i].All() { // must neither panic nor run on
		}
		tr[:i].GTID()
	}
}

func TestErrorRoundTrip(t *testing.T) {
	for _, e := range []*ServerError{{1062, "23000", "Duplicate entry"}, {1040, "", "Too many connections"}, {1, "HY000", ""}} {
		got, err := ParseERR(AppendERR(nil, e))
		if err != nil || *got != *e {
			t.Errorf("%v %v", got, err)
		}
	}
	if ErrorCode(errors.Join(io.EOF, NewError(1213, "40001", "x"))) != 1213 || ErrorCode(io.EOF) != 0 {
		t.Error("ErrorCode")
	}
}

func TestHandshakeRoundTrip(t *testing.T) {
	g := &Greeting{ServerVersion: "9.7.4", ThreadID: 77, Salt: []byte("0123456789abcdefghij"), Charset: 255,
		Caps: Protocol41 | PluginAuth | SecureConnection | SessionTrack, Status: 2, AuthPlugin: PluginCachingSHA2}
	got, err := ParseGreeting(g.Append(nil))
	if err != nil || !reflect.DeepEqual(got, g) {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := ParseGreeting(AppendERR(nil, NewError(1040, "", "Too many connections"))); ErrorCode(err) != 1040 {
		t.Errorf("%v", err)
	}
	for _, caps := range []Capability{
		Protocol41 | PluginAuth | SecureConnection,
		Protocol41 | PluginAuth | SecureConnection | PluginAuthLenenc | ConnectWithDB | ConnectAttrs | ZstdCompression,
		Protocol41 | ConnectWithDB,
	} {
		r := &HandshakeResponse{Caps: caps, MaxPacket: 1 << 24, Charset: 45, User: "u", AuthResponse: []byte("answer")}
		if caps.Has(ConnectWithDB) {
			r.DB = "d"
		}
		if caps.Has(PluginAuth) {
			r.AuthPlugin = PluginNative
		}
		if caps.Has(ConnectAttrs) {
			r.Attributes = AppendAttribute(nil, "program_name", "x")
			r.ZstdLevel = 7
		}
		p := r.Append(nil)
		got, err := ParseHandshakeResponse(p, ^Capability(0))
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v\n%+v\n%v", got, r, err)
		}
		for i := range p {
			ParseHandshakeResponse(p[:i], ^Capability(0))
		}
		if !IsSSLRequest(r.AppendSSLRequest(nil)) || IsSSLRequest(p) {
			t.Error("SSL request")
		}
	}
	cu := &ChangeUser{User: "u", AuthResponse: []byte("a"), DB: "d", Charset: 255, AuthPlugin: PluginSHA256, Attributes: AppendAttribute(nil, "a", "b")}
	caps := SecureConnection | PluginAuth | ConnectAttrs
	if got, err := ParseChangeUser(cu.Append(nil, caps), caps); err != nil || !reflect.DeepEqual(got, cu) {
		t.Errorf("%+v %v", got, err)
	}
	if m := ParseAttributes(cu.Attributes); m["a"] != "b" {
		t.Error(m)
	}
}

func TestScrambles(t *testing.T) {
	salt, pw := []byte("0123456789abcdefghij"), []byte("päss")
	h1 := sha256.Sum256(pw)
	s := ScrambleSHA256(salt, pw)
	if !bytes.Equal(s, ScrambleSHA256Hash(salt, h1)) {
		t.Error("scramble from hash differs")
	}
	if got, ok := RecoverSHA256(s, salt, sha256.Sum256(h1[:])); !ok || got != h1 {
		t.Error("hash not recovered")
	}
	if _, ok := RecoverSHA256(ScrambleSHA256(salt, []byte("other")), salt, sha256.Sum256(h1[:])); ok {
		t.Error("recovered from another password")
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := EncodePublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ParsePublicKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := EncryptPassword(pw, salt, pub)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecryptPassword(enc, salt, key); err != nil || !bytes.Equal(got, pw) {
		t.Errorf("%q %v", got, err)
	}
	if _, err := ParsePublicKey([]byte("no key")); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestTLSUpgradeWithBytesInTheBuffer(t *testing.T) {
	cert, err := SelfSigned("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	na, nb := pipe(t)
	a, b := NewConn(na), NewConn(nb)
	done := make(chan error, 1)
	go func() {
		// Request and ClientHello leave without a pause.
		if err := a.WritePacket([]byte("tls please")); err != nil {
			done <- err
			return
		}
		if err := a.Flush(); err != nil {
			done <- err
			return
		}
		err := a.ClientTLS(context.Background(), &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			err = a.WritePacket([]byte(strings.Repeat("secret", 1000)))
		}
		if err == nil {
			err = a.Flush()
		}
		done <- err
	}()
	if err := b.Fill(100); err != nil { // more than the request
		t.Fatal(err)
	}
	if p, err := b.ReadPacket(100); err != nil || string(p) != "tls please" {
		t.Fatalf("%q %v", p, err)
	}
	if err := b.ServerTLS(context.Background(), &tls.Config{Certificates: []tls.Certificate{cert}}); err != nil {
		t.Fatal(err)
	}
	if p, err := b.ReadPacket(1 << 20); err != nil || len(p) != 6000 {
		t.Fatalf("%d %v", len(p), err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if b.TLSState() == nil || !b.Secure() || NewConn(na).Secure() {
		t.Error("security is misjudged")
	}
}

func TestSplitQuery(t *testing.T) {
	if _, sql, err := SplitQuery([]byte("SELECT 1"), 0); err != nil || string(sql) != "SELECT 1" {
		t.Errorf("%q %v", sql, err)
	}
	arg := []byte{0, 1, 'S'}
	if attrs, sql, err := SplitQuery(arg, QueryAttributes); err != nil || string(sql) != "S" || len(attrs) != 2 {
		t.Errorf("%q %q %v", attrs, sql, err)
	}
	arg = []byte{3, 1, 0b010, 1}
	arg = append(AppendLenencString(append(arg, TypeVarString, 0), "a"), 0x06, 0)
	arg = AppendLenencString(arg, "b")
	arg = AppendLenencString(append(arg, 0x0C, 0), "c")
	arg = AppendLenencString(arg, "value of a")
	arg = append(arg, 4, 1, 2, 3, 4)
	arg = append(arg, "SELECT 1"...)
	attrs, sql, err := SplitQuery(arg, QueryAttributes)
	if err != nil || string(sql) != "SELECT 1" || !bytes.Equal(append(attrs[:len(attrs):len(attrs)], sql...), arg) {
		t.Errorf("%q %q %v", attrs, sql, err)
	}
	for i := range len(arg) - len("SELECT 1") {
		if _, _, err := SplitQuery(arg[:i], QueryAttributes); err == nil {
			t.Errorf("no error for %d bytes", i)
		}
	}
}
