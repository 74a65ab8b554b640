//go:build !linux

package rawnet

import "net"

// Conn returns nc.
func Conn(nc net.Conn) net.Conn { return nc }
