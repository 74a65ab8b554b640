// Package allowlist decides from which addresses members are accepted, as
// group_replication_ip_allowlist says.
//
// It is a first filter, not authentication: whoever can send from an accepted
// address passes. It must never accept what it could not check.
package allowlist

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// ErrRefused is wrapped by every refusal of Check.
var ErrRefused = errors.New("address is not in the IP allowlist")

// Automatic is the list that stands for the private networks of this host.
const Automatic = "AUTOMATIC"

// lookupTimeout bounds the name lookups of one Check.
const lookupTimeout = 3 * time.Second

// Resolver looks names up; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

// Options say what is accepted. All but Entries have defaults.
type Options struct {
	// Entries is AUTOMATIC, or addresses, networks, names and names/bits,
	// separated by commas. Empty means nobody but Members.
	Entries string
	// Members returns host:port of the members of the group, who are accepted
	// whatever Entries says, as in Group Replication. May be nil.
	Members func() []string
	// Resolver defaults to the system's, Interfaces to net.InterfaceAddrs.
	Resolver   Resolver
	Interfaces func() ([]net.Addr, error)
	Logger     zerolog.Logger
}

// List is safe for concurrent use. Names are looked up at each Check: what they
// mean may change.
type List struct {
	o         Options
	automatic bool
	nets      []netip.Prefix
	names     []nameEntry
}

// nameEntry is a host name; bits is -1 without a mask.
type nameEntry struct {
	name string
	bits int
}

// New parses the entries.
func New(o Options) (*List, error) {
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Interfaces == nil {
		o.Interfaces = net.InterfaceAddrs
	}
	l := &List{o: o}
	for e := range strings.SplitSeq(o.Entries, ",") {
		if e = strings.TrimSpace(e); e == "" {
			continue
		}
		if err := l.add(e); err != nil {
			return nil, err
		}
	}
	if l.automatic && (len(l.nets) > 0 || len(l.names) > 0) {
		return nil, errors.New("allowlist: AUTOMATIC stands alone")
	}
	return l, nil
}

func (l *List) add(e string) error {
	if strings.EqualFold(e, Automatic) {
		l.automatic = true
		return nil
	}
	if strings.Contains(e, "%") {
		return fmt.Errorf("allowlist: %q: zones have no meaning here", e)
	}
	if a, err := netip.ParseAddr(e); err == nil {
		a = plain(a)
		l.nets = append(l.nets, netip.PrefixFrom(a, a.BitLen()))
		return nil
	}
	host, mask, masked := strings.Cut(e, "/")
	bits := -1
	if masked {
		n, err := strconv.Atoi(mask)
		if err != nil || n < 0 || n > 128 {
			return fmt.Errorf("allowlist: %q: bad mask", e)
		}
		bits = n
	}
	if a, err := netip.ParseAddr(host); err == nil {
		p := netip.PrefixFrom(a, bits)
		if a.Is4In6() && bits >= 96 {
			p = netip.PrefixFrom(a.Unmap(), bits-96)
		}
		if !p.IsValid() {
			return fmt.Errorf("allowlist: %q: bad network", e)
		}
		l.nets = append(l.nets, p.Masked())
		return nil
	}
	if host == "" || strings.Trim(host, "0123456789.") == "" || strings.ContainsAny(host, ": \t[]") {
		return fmt.Errorf("allowlist: %q is neither an address nor a name", e)
	}
	l.names = append(l.names, nameEntry{strings.TrimSuffix(strings.ToLower(host), "."), bits})
	return nil
}

// plain is an address without zone and without the IPv4-in-IPv6 form.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// Networks returns the accepted networks as they are now, without names and
// members.
func (l *List) Networks() []netip.Prefix {
	if !l.automatic {
		return slices.Clone(l.nets)
	}
	// Loopback always; of the interfaces' networks only the private ones, so a
	// host on the internet does not accept its whole provider.
	nets := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	addrs, err := l.o.Interfaces()
	if err != nil {
		l.o.Logger.Warn().Err(err).Msg("ip_allowlist=AUTOMATIC: the addresses of this host are not known; only loopback is accepted")
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		ip := plain(p.Addr())
		if p = netip.PrefixFrom(ip, p.Bits()).Masked(); ip.IsPrivate() || ip.IsLinkLocalUnicast() && ip.Is6() {
			if !slices.Contains(nets, p) {
				nets = append(nets, p)
			}
		}
	}
	return nets
}

// Check returns nil if connections from remote are accepted. It may look names
// up, so it is called on the connection's own goroutine.
func (l *List) Check(ctx context.Context, remote net.Addr) error {
	ap, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		return fmt.Errorf("%w: %q is no address", ErrRefused, remote)
	}
	ip := plain(ap.Addr())
	for _, p := range l.Networks() {
		if p.Contains(ip) {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	if l.member(ctx, ip) {
		return nil
	}
	for _, n := range l.names {
		if l.named(ctx, n, ip) {
			return nil
		}
	}
	return fmt.Errorf("connection attempt from IP address %s refused: %w", ip, ErrRefused)
}

func (l *List) member(ctx context.Context, ip netip.Addr) bool {
	if l.o.Members == nil {
		return false
	}
	for _, m := range l.o.Members() {
		host, _, err := net.SplitHostPort(m)
		if err != nil {
			continue
		}
		if slices.Contains(l.lookup(ctx, host), ip) {
			return true
		}
	}
	return false
}

// named checks forward and reverse: the entry's name has the address (or one in
// the same network), and the address has a name that leads back to it, so that
// neither zone alone can let an address in.
func (l *List) named(ctx context.Context, n nameEntry, ip netip.Addr) bool {
	if !slices.ContainsFunc(l.lookup(ctx, n.name), func(a netip.Addr) bool {
		if n.bits < 0 || a.BitLen() != ip.BitLen() {
			return a == ip
		}
		p, err := a.Prefix(n.bits)
		return err == nil && p.Contains(ip)
	}) {
		return false
	}
	names, err := l.o.Resolver.LookupAddr(ctx, ip.String())
	if err != nil {
		l.o.Logger.Warn().Err(err).Stringer("address", ip).Str("entry", n.name).Msg("ip_allowlist: the address has no name that confirms it")
		return false
	}
	for _, name := range names {
		if slices.Contains(l.lookup(ctx, strings.TrimSuffix(name, ".")), ip) {
			return true
		}
	}
	l.o.Logger.Warn().Strs("names", names).Stringer("address", ip).Str("entry", n.name).Msg("ip_allowlist: the address's names do not lead back to it")
	return false
}

// lookup returns the addresses of a name or address; none if it is not known.
func (l *List) lookup(ctx context.Context, host string) []netip.Addr {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{plain(a)}
	}
	addrs, err := l.o.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		l.o.Logger.Warn().Err(err).Str("name", host).Msg("ip_allowlist: the name cannot be resolved and is left out")
		return nil
	}
	for i, a := range addrs {
		addrs[i] = plain(a)
	}
	return addrs
}
