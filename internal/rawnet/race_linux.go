//go:build linux && race

package rawnet

import (
	"net"
	"syscall"
)

// Conn returns nc.
func Conn(nc net.Conn) net.Conn { return nc }

// TryRead reads from a descriptor of package net that its syscall.RawConn gave.
func TryRead(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
