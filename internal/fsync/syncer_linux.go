package fsync

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Syncer runs one fsync at a time.
type Syncer struct {
	mu   sync.Mutex // guards the rest
	ctx  uintptr
	done *os.File // an eventfd: tells the runtime's poller when an fsync is over
	wait syscall.RawConn
	look func(uintptr) bool
	cb   iocb // of the fsync under way; the kernel reads it in io_submit only
	ev   event
	err  error // of looking
}

// iocb and event are of the kernel's include/uapi/linux/aio_abi.h. What has no name
// is 0: key and flags of a read or write, priority, buffer, its length and offset.
type iocb struct {
	data         uint64
	_            [2]uint32
	opcode       uint16
	_            int16
	fd           uint32
	_            [4]uint64
	flags, resFD uint32
}

type event struct {
	data uint64
	_    uint64 // address of the iocb
	res  int64
	_    int64
}

const (
	cmdFsync  = 2 // IOCB_CMD_FSYNC
	flagResFD = 1 // IOCB_FLAG_RESFD
)

// New fails where the kernel has no asynchronous I/O, or no more (fs.aio-max-nr).
func New() (*Syncer, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	s := &Syncer{
		done: os.NewFile(uintptr(fd), "eventfd"),
		cb:   iocb{opcode: cmdFsync, flags: flagResFD, resFD: uint32(fd)},
	}
	s.look = s.reap
	if s.wait, err = s.done.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("fsync: %w", err), s.done.Close())
	}
	if _, _, errno := syscall.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&s.ctx)), 0); errno != 0 {
		return nil, errors.Join(os.NewSyscallError("io_setup", errno), s.done.Close())
	}
	return s, nil
}

// Sync returns when everything that was written to f is on stable storage, or why
// that is not known to be so. It must not be called after Close.
func (s *Syncer) Sync(f syscall.Conn) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := false
	// The descriptor stays open until the kernel has a reference to the file.
	cerr := rc.Control(func(fd uintptr) {
		if taken = s.submit(uint32(fd)); !taken {
			err = os.NewSyscallError("fsync", unix.Fsync(int(fd)))
		}
	})
	if !taken {
		return errors.Join(cerr, err)
	}
	s.err = nil
	if err := s.wait.Read(s.look); err != nil {
		return fmt.Errorf("fsync: %w", err)
	}
	if s.err == nil && s.ev.res != 0 {
		return os.NewSyscallError("fsync", syscall.Errno(-s.ev.res))
	}
	return s.err
}

// submit reports whether the kernel takes it. It does not block: a thread of the
// kernel's runs the fsync.
func (s *Syncer) submit(fd uint32) bool {
	s.cb.data++
	s.cb.fd = fd
	list := [1]*iocb{&s.cb}
	n, _, errno := syscall.RawSyscall(unix.SYS_IO_SUBMIT, s.ctx, 1, uintptr(unsafe.Pointer(&list)))
	return errno == 0 && n == 1
}

// reap looks whether the fsync is over. The eventfd is never read: each end is a new
// edge to the poller, which is told of those after the last look.
func (s *Syncer) reap(uintptr) bool {
	var none unix.Timespec
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_IO_GETEVENTS, s.ctx, 0, 1,
			uintptr(unsafe.Pointer(&s.ev)), uintptr(unsafe.Pointer(&none)), 0)
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			s.err = os.NewSyscallError("io_getevents", errno)
			return true
		case n == 0:
			return false
		case s.ev.data == s.cb.data: // not one whose wait failed
			return true
		}
	}
}

// Close gives the kernel's part back.
func (s *Syncer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if _, _, errno := syscall.Syscall(unix.SYS_IO_DESTROY, s.ctx, 0, 0); errno != 0 {
		err = os.NewSyscallError("io_destroy", errno)
	}
	return errors.Join(err, s.done.Close())
}
