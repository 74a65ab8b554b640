package mysqld

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

// FreePort returns a TCP port of host that nobody listens on now. It lies below
// the range from which the kernel takes the ports of outgoing connections: a
// server that is down for a while finds its port free when it comes back.
func FreePort(host string) (int, error) {
	const first, tries = 10000, 200
	last := 32767
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		var low int
		if n, _ := fmt.Sscan(string(b), &low); n == 1 && low > first+1000 {
			last = low - 1
		}
	}
	var err error
	for range tries {
		port := first + rand.IntN(last-first+1)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
			_ = l.Close()
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port on %s: %w", host, err)
}
