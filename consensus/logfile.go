package consensus

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/lni/vfs"

	"cohort/internal/fsync"
)

// logFS is tan's file system, whose logs it brings to stable storage: without a
// thread that waits, where that can be had.
type logFS struct {
	vfs.FS
	syncer *fsync.Syncer // nil: fsync(2)
}

// logSize is what tan allocates for a log, where it knows the file for one of the
// system's: a disk that is full for a moment does not end the process at once.
const logSize = 64<<20 + 128<<10

// Create implements vfs.FS.
func (l logFS) Create(name string) (vfs.File, error) {
	f, err := l.FS.Create(name)
	if err != nil || filepath.Ext(name) != ".log" {
		return f, err
	}
	c, ok := f.(syscall.Conn)
	if !ok {
		return f, nil
	}
	if err := allocate(c, logSize); err != nil {
		return nil, errors.Join(fmt.Errorf("allocate %s: %w", name, err), f.Close())
	}
	return logFile{f, c, l.syncer}, nil
}

type logFile struct {
	vfs.File
	conn   syscall.Conn
	syncer *fsync.Syncer
}

// Sync implements vfs.File.
func (f logFile) Sync() error {
	if f.syncer == nil {
		return f.File.Sync()
	}
	return f.syncer.Sync(f.conn)
}

// Close implements vfs.File. Tan does not sync a log that is full: a commit index at
// its end could be lost, and a snapshot in the next one not.
func (f logFile) Close() error { return errors.Join(f.Sync(), f.File.Close()) }
