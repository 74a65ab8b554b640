// Package grouptls makes the TLS settings of connections between members, as
// group_replication_ssl_mode says.
//
// A member's one certificate is shown in both directions, whoever connects.
// Under REQUIRED connections are encrypted and nobody is authenticated; from
// VERIFY_CA on both sides must show a certificate of the group's authorities.
package grouptls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"cohort/internal/wire"
)

// Mode is a value of group_replication_ssl_mode.
type Mode string

// The modes, each stricter than the one before.
const (
	Disabled       Mode = "DISABLED"
	Required       Mode = "REQUIRED"
	VerifyCA       Mode = "VERIFY_CA"
	VerifyIdentity Mode = "VERIFY_IDENTITY"
)

// ErrIdentity is wrapped when the other side's certificate is not acceptable.
var ErrIdentity = errors.New("the other member's certificate is not accepted")

// Options name the files, all PEM.
type Options struct {
	Mode Mode
	// CA holds the authorities; needed from VERIFY_CA on.
	CA string
	// Cert and Key are this member's. Under REQUIRED they may be left out: a
	// self-signed one is made for this process.
	Cert, Key string
	// Hosts go into a certificate that is made.
	Hosts []string
}

// Config makes tls.Configs. A nil one means no encryption.
type Config struct {
	mode  Mode
	cert  tls.Certificate
	roots *x509.CertPool
}

// Load reads the files. It returns nil under DISABLED.
func Load(o Options) (*Config, error) {
	switch o.Mode {
	case Disabled:
		return nil, nil
	case Required, VerifyCA, VerifyIdentity:
	default:
		return nil, fmt.Errorf("ssl_mode %q is not known", o.Mode)
	}
	c := &Config{mode: o.Mode}
	var err error
	switch {
	case o.Cert != "":
		c.cert, err = tls.LoadX509KeyPair(o.Cert, o.Key)
	case c.Verifies():
		err = fmt.Errorf("ssl_mode %s needs a certificate", o.Mode)
	default:
		c.cert, err = wire.SelfSigned(o.Hosts...)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate for members: %w", err)
	}
	if !c.Verifies() {
		return c, nil
	}
	if o.CA == "" {
		return nil, fmt.Errorf("ssl_mode %s needs certificate authorities", o.Mode)
	}
	pem, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, fmt.Errorf("certificate authorities of members: %w", err)
	}
	c.roots = x509.NewCertPool()
	if !c.roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate authorities of members: %s holds no certificate", o.CA)
	}
	return c, nil
}

// Verifies reports whether members authenticate each other.
func (c *Config) Verifies() bool { return c != nil && c.mode != Required }

// Server is for the side that accepts.
func (c *Config) Server() *tls.Config {
	t := c.base()
	if c.Verifies() {
		t.ClientAuth = tls.RequireAnyClientCert // VerifyConnection does the rest
	}
	t.VerifyConnection = func(cs tls.ConnectionState) error { return c.verify(cs, "") }
	return t
}

// Client is for connecting to host, a name or an address.
func (c *Config) Client(host string) *tls.Config {
	t := c.base()
	t.ServerName = host
	t.VerifyConnection = func(cs tls.ConnectionState) error { return c.verify(cs, host) }
	return t
}

// Clients is Client as an option of those who connect, nil for no encryption.
func (c *Config) Clients() func(host string) *tls.Config {
	if c == nil {
		return nil
	}
	return c.Client
}

// VerifyHost checks, under VERIFY_IDENTITY, that the other side's certificate is
// for host. The side that accepts calls it once it was told who connects.
func (c *Config) VerifyHost(cs tls.ConnectionState, host string) error {
	if c == nil || c.mode != VerifyIdentity {
		return nil
	}
	if len(cs.PeerCertificates) == 0 {
		return fmt.Errorf("%w: there is none", ErrIdentity)
	}
	if err := cs.PeerCertificates[0].VerifyHostname(host); err != nil {
		return fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return nil
}

func (c *Config) base() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{c.cert},
		MinVersion:   tls.VersionTLS12,
		// Go's own check wants names always and the purpose "client" of whoever
		// connects; VerifyConnection replaces it, also for resumed sessions.
		InsecureSkipVerify: true,
		// One record for what is written at once.
		DynamicRecordSizingDisabled: true,
	}
}

func (c *Config) verify(cs tls.ConnectionState, host string) error {
	if !c.Verifies() {
		return nil
	}
	if len(cs.PeerCertificates) == 0 {
		return fmt.Errorf("%w: there is none", ErrIdentity)
	}
	o := x509.VerifyOptions{Roots: c.roots, Intermediates: x509.NewCertPool(), CurrentTime: time.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, i := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(i)
	}
	if _, err := cs.PeerCertificates[0].Verify(o); err != nil {
		return fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if host == "" {
		return nil
	}
	return c.VerifyHost(cs, host)
}
