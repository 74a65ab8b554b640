package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"
)

// prefixed hands out bytes that were read too early before the connection's.
type prefixed struct {
	net.Conn
	head []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// takeBuffered empties the read buffer and returns the transport with what was
// in it put in front: a peer may send on without waiting for our part.
func (c *Conn) takeBuffered() net.Conn {
	if c.r == c.w {
		c.Release()
		return c.nc
	}
	head := append([]byte(nil), c.Buffered()...)
	c.r = c.w
	c.Release()
	return &prefixed{Conn: c.nc, head: head}
}

// ServerTLS makes c the server of a TLS connection from here on.
func (c *Conn) ServerTLS(ctx context.Context, cfg *tls.Config) error {
	return c.upgrade(ctx, tls.Server(c.takeBuffered(), cfg))
}

// ClientTLS makes c the client of a TLS connection from here on.
func (c *Conn) ClientTLS(ctx context.Context, cfg *tls.Config) error {
	return c.upgrade(ctx, tls.Client(c.takeBuffered(), cfg))
}

func (c *Conn) upgrade(ctx context.Context, t *tls.Conn) error {
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.nc, c.stream = t, t
	return nil
}

// TLSState returns the TLS state, nil without TLS.
func (c *Conn) TLSState() *tls.ConnectionState {
	if t, ok := c.nc.(*tls.Conn); ok {
		s := t.ConnectionState()
		return &s
	}
	return nil
}

// Encrypted reports whether c is under TLS: what sha256_password asks for before
// it takes a password in clear.
func (c *Conn) Encrypted() bool {
	_, ok := c.nc.(*tls.Conn)
	return ok
}

// Secure reports whether a password may cross c in clear by the rule of
// caching_sha2_password: TLS, or a Unix socket.
func (c *Conn) Secure() bool {
	if c.Encrypted() {
		return true
	}
	switch c.raw.LocalAddr().Network() {
	case "unix", "unixgram", "unixpacket":
		return true
	}
	return false
}

// SelfSigned makes a certificate for a listener that was given none, valid for
// ten years for the given names or addresses.
func SelfSigned(hosts ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("generate key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("generate serial: %w", err)
	}
	now := time.Now()
	tmpl := x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "cohort auto-generated server certificate"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, &tmpl, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("create certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
