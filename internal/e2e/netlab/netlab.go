// Package netlab gives each member of a group a network of its own on one
// machine, so that a test can cut any of them from any other, in one direction
// or both. It owns the namespaces, links and the bridge that it makes, and must
// touch no other.
package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNotPermitted says that this machine does not let us make networks.
var ErrNotPermitted = errors.New("netlab: network namespaces are not permitted here")

// nowhere is a hardware address that no link has: what is sent there is lost
// without a word, as on a cut line.
const nowhere = "02:00:00:00:00:fe"

// Lab is one bridge with a namespace for each host. This process is on the
// bridge too and is never cut off.
type Lab struct {
	tag    string // prefix of all names
	bridge string
	hosts  []string // addresses

	mu  sync.Mutex
	cut map[[2]int]bool // from, to
}

var labs atomic.Int32

// New makes a lab of n hosts, or returns an error that wraps ErrNotPermitted.
func New(ctx context.Context, n int) (*Lab, error) {
	for _, program := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotPermitted, err)
		}
	}
	l := &Lab{tag: fmt.Sprintf("c%d%c", os.Getpid(), 'a'+labs.Add(1)%26), cut: map[[2]int]bool{}}
	l.bridge = l.tag
	net, err := freeNet()
	if err != nil {
		return nil, err
	}
	var commands []string
	add := func(format string, args ...any) { commands = append(commands, fmt.Sprintf(format, args...)) }
	add("link add name %s type bridge", l.bridge)
	add("addr add %s.254/24 dev %s", net, l.bridge)
	add("link set %s up", l.bridge)
	for i := range n {
		l.hosts = append(l.hosts, fmt.Sprintf("%s.%d", net, i+1))
		ns, link := l.namespace(i), l.link(i)
		add("netns add %s", ns)
		add("link add %s type veth peer name eth0 netns %s", link, ns)
		add("link set %s master %s up", link, l.bridge)
		add("-n %s addr add %s/24 dev eth0", ns, l.hosts[i])
		add("-n %s link set lo up", ns)
		add("-n %s link set eth0 up", ns)
	}
	for _, c := range commands {
		if err := ip(ctx, c); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w", ErrNotPermitted, err), l.Close())
		}
	}
	return l, nil
}

// freeNet is the prefix of a /24 that no interface of this machine is in.
func freeNet() (string, error) {
	taken, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("netlab: %w", err)
	}
	for i := range 250 {
		prefix := fmt.Sprintf("10.213.%d", (os.Getpid()+i)%250)
		free := true
		for _, a := range taken {
			if n, ok := a.(*net.IPNet); ok && n.Contains(net.ParseIP(prefix+".254")) || strings.HasPrefix(a.String(), prefix+".") {
				free = false
			}
		}
		if free {
			return prefix, nil
		}
	}
	return "", fmt.Errorf("%w: no free addresses", ErrNotPermitted)
}

func ip(ctx context.Context, args string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("netlab: ip %s: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}

func (l *Lab) namespace(i int) string { return fmt.Sprintf("%sn%d", l.tag, i) }
func (l *Lab) link(i int) string      { return fmt.Sprintf("%sv%d", l.tag, i) }

// Hosts are the addresses of the hosts.
func (l *Lab) Hosts() []string { return l.hosts }

// Command is the beginning of a command line that runs on a host.
func (l *Lab) Command(host int) []string {
	return []string{"nsenter", "--net=/run/netns/" + l.namespace(host)}
}

// Cut loses from now on what one host sends to another. The other direction
// stays as it is.
func (l *Lab) Cut(ctx context.Context, from, to int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from == to || l.cut[[2]int{from, to}] {
		return nil
	}
	if err := ip(ctx, fmt.Sprintf("-n %s neigh replace %s lladdr %s nud permanent dev eth0", l.namespace(from), l.hosts[to], nowhere)); err != nil {
		return err
	}
	l.cut[[2]int{from, to}] = true
	return nil
}

// Isolate cuts a host from all others, both ways.
func (l *Lab) Isolate(ctx context.Context, host int) error {
	var errs []error
	for i := range l.hosts {
		errs = append(errs, l.Cut(ctx, host, i), l.Cut(ctx, i, host))
	}
	return errors.Join(errs...)
}

// Heal undoes all cuts.
func (l *Lab) Heal(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for c := range l.cut {
		err := ip(ctx, fmt.Sprintf("-n %s neigh del %s dev eth0", l.namespace(c[0]), l.hosts[c[1]]))
		if err == nil {
			delete(l.cut, c)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Close removes everything. What still runs on a host keeps its namespace, and
// loses its link.
func (l *Lab) Close() error {
	ctx := context.Background()
	var errs []error
	remove := func(format string, args ...any) {
		err := ip(ctx, fmt.Sprintf(format, args...))
		// A lab that was only half made lacks some.
		if err != nil && !strings.Contains(err.Error(), "Cannot find") && !strings.Contains(err.Error(), "No such") {
			errs = append(errs, err)
		}
	}
	for i := range l.hosts {
		remove("link del %s", l.link(i))
		remove("netns del %s", l.namespace(i))
	}
	remove("link del %s", l.bridge)
	return errors.Join(errs...)
}
