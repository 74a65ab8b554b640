package consensus

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"cohort/internal/grouptls"
	"cohort/internal/grouptls/tlstest"
)

// Questions are under the TLS of the log: who shows no certificate of the group's
// authority gets no answer, nor does who asks in clear text, or who is, under
// VERIFY_IDENTITY, not at the address that it gives. And nobody believes the answer of
// a member whose certificate is another authority's.
func TestQuestionsUnderTLS(t *testing.T) {
	group, other := tlstest.NewCA(t), tlstest.NewCA(t)
	load := func(mode grouptls.Mode, by *tlstest.CA, host string) *grouptls.Config {
		cert, key := by.Issue(t, time.Now().Add(time.Hour), host)
		c, err := grouptls.Load(grouptls.Options{Mode: mode, CA: group.File, Cert: cert, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	mode, by, at := grouptls.VerifyIdentity, group, ""
	c := newEntered(t, 2, func(cfg *Config) {
		host := at
		if host == "" {
			host, _, _ = net.SplitHostPort(cfg.LocalAddress)
		}
		cfg.TLS = load(mode, by, host)
	})
	first := c.addrs[1]

	stranger := func() *Node {
		m := c.add()
		c.members = c.members[:len(c.members)-1]
		t.Cleanup(func() { c.close(m) })
		return m.node
	}
	q := question{Op: askInfo, Settings: "a=1\nb=2\n", UUID: "x", ServerID: 9, Nonce: 1}
	known := stranger()
	if a, err := known.ask(c.ctx(), first, q); err != nil || a.Code != "" {
		t.Errorf("with a certificate: %+v, %v", a, err)
	}
	known.cfg.TLS = nil
	if a, err := known.ask(c.ctx(), first, q); err == nil || !strings.Contains(err.Error(), "group_replication_ssl_mode") {
		t.Errorf("in clear text: %+v, %v", a, err)
	}
	at = "db9.example.com"
	if a, err := stranger().ask(c.ctx(), first, q); err != nil || !strings.Contains(a.Text, "certificate") || a.Code == "" {
		t.Errorf("from another host than that of the certificate: %+v, %v", a, err)
	}
	mode, by, at = grouptls.VerifyCA, other, ""
	n := stranger()
	if a, err := n.ask(c.ctx(), first, q); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with a certificate of another authority: %+v, %v", a, err)
	}
	if id, _, err := n.seek(c.ctx(), Entrance{UUID: "x", ServerID: 9, Settings: "a=1\nb=2\n"}, 1); !errors.Is(err, ErrNoSeed) {
		t.Errorf("it was let in: %+v, %v", id, err)
	}
	// The other way about: it is asked. It has a log of its own, so it listens.
	if err := n.adopt(identity{Replica: 1, Founder: true}, true); err != nil {
		t.Fatal(err)
	}
	if a, err := c.members[1].node.ask(c.ctx(), n.cfg.LocalAddress, q); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("of a member of another authority: %+v, %v", a, err)
	}
}
