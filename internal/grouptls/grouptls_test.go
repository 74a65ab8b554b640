package grouptls

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cohort/internal/grouptls/tlstest"
)

// meet makes a connection between two members. The one that accepts is reached
// at host, the other one says that it is at host too.
func meet(t *testing.T, server, client *Config, host string) (serverErr, clientErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	b, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		defer a.Close()
		s := tls.Server(a, server.Server())
		err := s.Handshake()
		if err == nil {
			err = server.VerifyHost(s.ConnectionState(), host)
		}
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		done <- err
	}()
	c := tls.Client(b, client.Client(host))
	clientErr = c.Handshake()
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1)) // the server's refusal comes after the client's last word
	}
	b.Close()
	return <-done, clientErr
}

func TestModes(t *testing.T) {
	later := time.Now().Add(time.Hour)
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	const host = "db1.example.com"
	load := func(mode Mode, trusted *tlstest.CA, by *tlstest.CA, until time.Time, hosts ...string) *Config {
		o := Options{Mode: mode, Hosts: []string{host}}
		if trusted != nil {
			o.CA = trusted.File
		}
		if by != nil {
			o.Cert, o.Key = by.Issue(t, until, hosts...)
		}
		c, err := Load(o)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	none := load(Required, nil, nil, later)
	for name, c := range map[string]struct {
		server, client     *Config
		serverOK, clientOK bool
	}{
		"required, made here":             {none, load(Required, nil, nil, later), true, true},
		"required checks nothing":         {none, load(Required, ca, other, time.Now().Add(-time.Hour), "else"), true, true},
		"ca":                              {load(VerifyCA, ca, ca, later, "a"), load(VerifyCA, ca, ca, later, "b"), true, true},
		"ca, client's own":                {load(VerifyCA, ca, ca, later, host), load(Required, nil, nil, later), false, false},
		"ca, server's own":                {none, load(VerifyCA, ca, ca, later, host), false, false},
		"ca, other authority":             {load(VerifyCA, ca, ca, later, host), load(VerifyCA, ca, other, later, host), false, false},
		"ca, server's other authority":    {load(VerifyCA, ca, other, later, host), load(VerifyCA, ca, ca, later, host), false, false},
		"ca, client expired":              {load(VerifyCA, ca, ca, later, host), load(VerifyCA, ca, ca, time.Now().Add(-time.Hour), host), false, false},
		"ca, server expired":              {load(VerifyCA, ca, ca, time.Now().Add(-time.Hour), host), load(VerifyCA, ca, ca, later, host), false, false},
		"identity":                        {load(VerifyIdentity, ca, ca, later, host), load(VerifyIdentity, ca, ca, later, "x", host), true, true},
		"identity, server's name":         {load(VerifyIdentity, ca, ca, later, "db2.example.com"), load(VerifyIdentity, ca, ca, later, host), false, false},
		"identity, client's name":         {load(VerifyIdentity, ca, ca, later, host), load(VerifyIdentity, ca, ca, later, "db2.example.com"), false, false},
		"identity here, authority there":  {load(VerifyIdentity, ca, ca, later, host), load(VerifyCA, ca, ca, later, host), true, true},
		"identity, client's not a member": {load(VerifyIdentity, ca, ca, later, host), load(Required, nil, nil, later), false, false},
	} {
		se, ce := meet(t, c.server, c.client, host)
		if (se == nil) != c.serverOK || (ce == nil) != c.clientOK {
			t.Errorf("%s: server %v, client %v", name, se, ce)
		}
		if !c.serverOK && !errors.Is(se, ErrIdentity) && !errors.Is(ce, ErrIdentity) {
			t.Errorf("%s: nobody names the certificate: server %v, client %v", name, se, ce)
		}
	}
	// Addresses are names as well.
	ip := load(VerifyIdentity, ca, ca, later, "127.0.0.1", "::1")
	for host, want := range map[string]bool{"127.0.0.1": true, "::1": true, "127.0.0.2": false} {
		if se, ce := meet(t, ip, ip, host); (se == nil && ce == nil) != want {
			t.Errorf("%s: server %v, client %v", host, se, ce)
		}
	}
}

func TestLoad(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, time.Now().Add(time.Hour), "a")
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(Options{Mode: Disabled, Cert: "/nowhere"}); c != nil || err != nil || c.Verifies() {
		t.Fatal(c, err)
	}
	for _, o := range []Options{
		{Mode: "PREFERRED"}, {Mode: Required, Cert: "/nowhere", Key: key}, {Mode: Required, Cert: cert, Key: junk},
		{Mode: VerifyCA, Cert: cert, Key: key}, {Mode: VerifyCA, CA: ca.File}, {Mode: VerifyIdentity, CA: junk, Cert: cert, Key: key},
		{Mode: VerifyCA, CA: "/nowhere", Cert: cert, Key: key},
	} {
		if _, err := Load(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
