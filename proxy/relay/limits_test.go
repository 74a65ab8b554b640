package relay

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"cohort/internal/mysqldtest"
	"cohort/internal/wire"
)

// testTooLarge: a command beyond max_allowed_packet gets the server's own answer.
func testTooLarge(t *testing.T, s *mysqldtest.Server) {
	s.SQL(t, "SET GLOBAL max_allowed_packet=1048576")
	defer s.SQL(t, "SET GLOBAL max_allowed_packet=1073741824")
	p := startPassthrough(t, "tcp", Options{MaxInline: 100_000}, dialTo("unix", s.Socket))
	for _, n := range []int{1 << 20, 3 << 20, 40 << 20} {
		cl, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: p.addr, User: "csha", Password: "secret one"})
		must(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_, err = cl.Exec(ctx, "SELECT '"+strings.Repeat("x", n)+"'")
		cancel()
		cl.Close()
		if wire.ErrorCode(err) != 1153 {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// testRequireSSL: REQUIRE SSL and RequireTLS.
func testRequireSSL(t *testing.T, s *mysqldtest.Server) {
	s.SQL(t, "CREATE USER ssluser IDENTIFIED BY 'pw' REQUIRE SSL")
	insecure := &tls.Config{InsecureSkipVerify: true}
	dial := func(p *passthrough, user, pw string, tc *tls.Config) error {
		cl, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: p.addr, User: user, Password: pw, TLS: tc})
		if err == nil {
			cl.Close()
		}
		return err
	}
	p := startPassthrough(t, "tcp", Options{ClientTLS: testTLS(t), BackendTLS: insecure}, dialTo("unix", s.Socket))
	if err := dial(p, "ssluser", "pw", insecure); err != nil {
		t.Error(err)
	}
	if err := dial(p, "ssluser", "pw", nil); wire.ErrorCode(err) != 1045 {
		t.Error(err)
	}
	if nb, err := p.acc.OpenBackend(context.Background(), p.dial, &Login{User: "ssluser", TLS: true,
		Caps: forcedCaps | wire.PluginAuth, Secret: Secret{Known: true, Password: []byte("pw")}}); err != nil {
		t.Error(err)
	} else {
		nb.Close()
	}
	// By a loopback address as by a socket, and where mysqld wants TLS there.
	p = startPassthrough(t, "tcp", Options{ClientTLS: testTLS(t), BackendTLS: insecure}, dialTo("tcp", s.Addr))
	if err := dial(p, "ssluser", "pw", insecure); err != nil {
		t.Error(err)
	}
	if err := dial(p, "ssluser", "pw", nil); wire.ErrorCode(err) != 1045 {
		t.Error(err)
	}
	s.SQL(t, "SET GLOBAL require_secure_transport = ON")
	if nb, err := p.acc.OpenBackend(context.Background(), p.dial, &Login{User: "csha",
		Caps: forcedCaps | wire.PluginAuth, Secret: Secret{Known: true, Password: []byte("secret one")}}); err != nil {
		t.Error(err)
	} else {
		nb.Close()
	}
	s.SQL(t, "SET GLOBAL require_secure_transport = OFF")
	p = startPassthrough(t, "tcp", Options{ClientTLS: testTLS(t), RequireTLS: func() bool { return true }}, dialTo("unix", s.Socket))
	if err := dial(p, "csha", "secret one", nil); wire.ErrorCode(err) != 3159 {
		t.Error(err)
	}
	if err := dial(p, "csha", "secret one", insecure); err != nil {
		t.Error(err)
	}
}
