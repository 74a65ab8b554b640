package rawnet

import (
	"context"
	"net"
)

// Dialer is a net.Dialer whose connections are Conn's.
type Dialer struct{ net.Dialer }

// DialContext connects.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := d.Dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return Conn(nc), nil
}
