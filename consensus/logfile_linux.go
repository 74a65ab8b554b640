package consensus

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// allocate takes room for a file, whose size stays as it is.
func allocate(f syscall.Conn, size int64) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = rc.Control(func(fd uintptr) { ferr = unix.Fallocate(int(fd), unix.FALLOC_FL_KEEP_SIZE, 0, size) })
	if errors.Is(ferr, unix.EOPNOTSUPP) {
		ferr = nil
	}
	return errors.Join(err, ferr)
}
