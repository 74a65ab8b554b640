//go:build !linux

package fsync

import (
	"errors"
	"syscall"
)

// Syncer is not to be had here.
type Syncer struct{}

// New fails.
func New() (*Syncer, error) { return nil, errors.ErrUnsupported }

// Sync is never called.
func (*Syncer) Sync(syscall.Conn) error { return errors.ErrUnsupported }

// Close is never called.
func (*Syncer) Close() error { return errors.ErrUnsupported }
