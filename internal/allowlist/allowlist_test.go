package allowlist

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/rs/zerolog"
)

// names is a Resolver with fixed answers.
type names struct {
	forward map[string][]string
	reverse map[string][]string
}

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, a := range n.forward[host] {
		out = append(out, netip.MustParseAddr(a))
	}
	if out == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return out, nil
}

func (n names) LookupAddr(_ context.Context, addr string) ([]string, error) {
	if out := n.reverse[addr]; out != nil {
		return out, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}
}

func interfaces(cidrs ...string) func() ([]net.Addr, error) {
	return func() ([]net.Addr, error) {
		var out []net.Addr
		for _, c := range cidrs {
			ip, n, err := net.ParseCIDR(c)
			if err != nil {
				return nil, err
			}
			out = append(out, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return out, nil
	}
}

func TestCheck(t *testing.T) {
	dns := names{
		forward: map[string][]string{
			"db1.example.com":    {"198.51.100.7", "2001:db8::7"},
			"liar.example.com":   {"198.51.100.8"},
			"mapped.example.com": {"::ffff:198.51.100.9"},
			"rack.example.com":   {"203.0.113.10"},
			"other.example.com":  {"203.0.113.77"},
			"mute.example.com":   {"203.0.113.200"},
			"seed.example.com":   {"192.0.2.1"},
		},
		reverse: map[string][]string{
			"198.51.100.7": {"db1.example.com."},
			"2001:db8::7":  {"alias.example.com.", "db1.example.com."},
			"198.51.100.8": {"somebody.else.example."},
			"198.51.100.9": {"mapped.example.com."},
			"203.0.113.77": {"other.example.com."},
		},
	}
	hosts := interfaces("127.0.0.1/8", "::1/128", "10.1.2.3/24", "192.168.7.1/16", "8.8.4.4/24", "2001:db8:1::5/64", "fd00:1::2/64", "fe80::1/64")
	for _, c := range []struct {
		entries string
		from    string
		want    bool
	}{
		{"AUTOMATIC", "127.0.0.1", true},
		{"AUTOMATIC", "127.3.4.5", true},
		{"automatic", "::1", true},
		{"AUTOMATIC", "10.1.2.200", true},
		{"AUTOMATIC", "::ffff:10.1.2.200", true},
		{"AUTOMATIC", "10.1.3.1", false},
		{"AUTOMATIC", "192.168.200.1", true},
		{"AUTOMATIC", "8.8.4.5", false},
		{"AUTOMATIC", "2001:db8:1::6", false},
		{"AUTOMATIC", "fd00:1::77", true},
		{"AUTOMATIC", "fd00:2::77", false},
		{"AUTOMATIC", "fe80::1234%eth0", true},
		{"AUTOMATIC", "172.16.0.1", false},
		{"10.0.0.1", "10.0.0.1", true},
		{"10.0.0.1", "10.0.0.2", false},
		{"10.0.0.1", "127.0.0.1", false}, // nothing is added to a list that was given
		{"10.0.0.77/24", "10.0.0.2", true},
		{"10.0.0.0/24", "10.0.1.2", false},
		{"0.0.0.0/0", "2001:db8::1", false},
		{"0.0.0.0/0", "8.8.8.8", true},
		{"::/0", "8.8.8.8", false},
		{"2001:db8::/32", "2001:db8:ffff::1", true},
		{"2001:db8::1", "2001:DB8:0::1", true},
		{"::ffff:10.0.0.1", "10.0.0.1", true},
		{"::ffff:10.0.0.0/120", "10.0.0.9", true},
		{" 10.0.0.1 , 10.0.0.2 ", "10.0.0.2", true},
		{"", "127.0.0.1", false},
		{"db1.example.com", "198.51.100.7", true},
		{"DB1.example.com.", "2001:db8::7", true},
		{"db1.example.com", "198.51.100.8", false},
		{"mapped.example.com", "198.51.100.9", true},
		{"liar.example.com", "198.51.100.8", false},    // its address's name leads nowhere
		{"mute.example.com", "203.0.113.200", false},   // its address has no name
		{"gone.example.com", "198.51.100.7", false},    // not known
		{"rack.example.com", "203.0.113.77", false},    // another host
		{"rack.example.com/24", "203.0.113.77", true},  // of the same network, with a name of its own
		{"rack.example.com/24", "203.0.113.78", false}, // without one
		{"rack.example.com/24", "203.0.114.77", false},
		{"gone.example.com,10.0.0.1", "10.0.0.1", true},
	} {
		l, err := New(Options{Entries: c.entries, Resolver: dns, Interfaces: hosts, Logger: zerolog.Nop()})
		if err != nil {
			t.Errorf("%s: %v", c.entries, err)
			continue
		}
		err = l.Check(t.Context(), net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.from), 4000)))
		if got := err == nil; got != c.want || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%q from %s: %v", c.entries, c.from, err)
		}
	}
	l, err := New(Options{Entries: "10.0.0.1", Resolver: dns, Logger: zerolog.Nop(),
		Members: func() []string {
			return []string{"192.0.2.9:1", "[2001:db8::99]:1", "seed.example.com:1", "gone.example.com:1", "nonsense"}
		}})
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]bool{"192.0.2.9": true, "2001:db8::99": true, "192.0.2.1": true, "192.0.2.2": false, "10.0.0.1": true} {
		err := l.Check(t.Context(), net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 4000)))
		if (err == nil) != want {
			t.Errorf("member %s: %v", from, err)
		}
	}
	if l.Check(t.Context(), &net.UnixAddr{Name: "/x"}) == nil {
		t.Error("a unix socket was accepted")
	}
}

func TestInterfacesUnknown(t *testing.T) {
	l, err := New(Options{Entries: Automatic, Interfaces: func() ([]net.Addr, error) { return nil, errors.New("no") }, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(l.Networks()); got != "[127.0.0.0/8 ::1/128]" {
		t.Fatal(got)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, e := range []string{"AUTOMATIC,10.0.0.1", "10.0.0.300", "10.0.0.1/33", "10.0.0.1/x", "10.0.0.1/-1", "/24", "name/129", "::1%lo/64", "[::1]", "a b"} {
		if _, err := New(Options{Entries: e}); err == nil {
			t.Errorf("%q was accepted", e)
		}
	}
}
