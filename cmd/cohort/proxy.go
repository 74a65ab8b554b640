package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"cohort/internal/config"
	"cohort/internal/logging"
	"cohort/internal/wire"
	"cohort/proxy"
	"cohort/recovery"
	"cohort/router"
)

// newProxy makes the client side of a member.
func newProxy(cfg *config.Config, admin proxy.Admin, rt *router.Router, member *recovery.Member, log zerolog.Logger) (*proxy.Server, error) {
	tlsConfig, err := clientTLS(cfg)
	if err != nil {
		return nil, err
	}
	return proxy.New(proxy.Options{
		Listen: cfg.BindAddress, Group: group{rt, member}, Admin: admin, Compliance: member.Compliance(), TLS: tlsConfig,
		// mysqld makes its own certificate, which nobody can verify; encryption
		// without identity is what the client's own connection would have had.
		BackendTLS:     &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		RequireTLS:     member.RequireTLS,
		MaxConnections: int(cfg.MaxConnections), IdleTimeout: cfg.WaitTimeout,
		Logger: logging.Component(log, "proxy"),
	})
}

// clientTLS is what clients are offered: the operator's certificate, or one
// made for this process.
func clientTLS(cfg *config.Config) (*tls.Config, error) {
	var cert tls.Certificate
	var err error
	if cfg.SSLCert != "" {
		cert, err = tls.LoadX509KeyPair(cfg.SSLCert, cfg.SSLKey)
	} else {
		cert, err = wire.SelfSigned(cfg.LocalHost())
	}
	if err != nil {
		return nil, fmt.Errorf("certificate for clients: %w", err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if cfg.SSLCA != "" {
		pem, err := os.ReadFile(cfg.SSLCA)
		if err != nil {
			return nil, fmt.Errorf("cohort_ssl_ca: %w", err)
		}
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("cohort_ssl_ca: %s holds no certificate", cfg.SSLCA)
		}
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return c, nil
}

// group shows the router, and what the member knows of others, to the proxy.
type group struct {
	*router.Router
	member *recovery.Member
}

// Primary implements proxy.Group.
func (g group) Primary(ctx context.Context) (proxy.Backend, error) {
	b, err := g.Router.Primary(ctx)
	return proxy.Backend(b), err
}

// Moved implements proxy.Group.
func (g group) Moved(b proxy.Backend) bool { return g.Router.Moved(router.Backend(b)) }

// Unheard implements proxy.Group.
func (g group) Unheard(b proxy.Backend) bool { return !b.Local && g.member.Unheard(b.MemberUUID) }

// Fresh implements proxy.Group.
func (g group) Fresh(b proxy.Backend, always bool) bool {
	return g.Router.Fresh(router.Backend(b), always)
}

// AwaitFresh implements proxy.Group.
func (g group) AwaitFresh(ctx context.Context, b proxy.Backend, always bool) error {
	return g.Router.AwaitFresh(ctx, router.Backend(b), always)
}

// Departure implements proxy.Group.
func (g group) Departure() proxy.Departure {
	at, gtids := g.Router.Departure()
	return proxy.Departure{At: at, GTIDs: gtids}
}

// Expect implements proxy.Group.
func (g group) Expect(xid string) proxy.Ticket { return ticket{g.Router.Expect(xid)} }

// ExpectDirect implements proxy.Group.
func (g group) ExpectDirect(gtid string) proxy.Ticket { return ticket{g.Router.ExpectDirect(gtid)} }

type ticket struct{ *router.Ticket }

// Wait implements proxy.Ticket.
func (t ticket) Wait(ctx context.Context) (proxy.Outcome, error) {
	o, err := t.Ticket.Wait(ctx)
	if errors.Is(err, router.ErrLeft) {
		err = proxy.ErrLeft
	}
	return proxy.Outcome(o), err
}
