package transport

import (
	"context"
	"net"
)

// Call connects to the member at target for something beside the log: the other
// side's Options.Called serves it. Both have been told who the other is as for the
// log, under the same TLS. The connection ends with the transport.
func (t *Transport) Call(ctx context.Context, target string) (net.Conn, error) {
	c, err := t.connect(ctx, target, forCalls)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(t.ctx, func() { c.Close() })
	return &call{Conn: &peeked{c.Conn, c.r}, stop: stop}, nil
}

type call struct {
	net.Conn
	stop func() bool
}

// Close implements net.Conn.
func (c *call) Close() error {
	c.stop()
	return c.Conn.Close()
}
