// Package proc names a process by id and start time, so that a recorded
// process is never confused with a later one that got the same id. It owns no
// process; it must never signal one whose start time differs.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cohort/internal/pause"
)

// ErrGone says that the process no longer exists (or its id is another's now).
var ErrGone = errors.New("process is gone")

// ID is a process that lives or lived on this machine.
type ID struct {
	// Pid is the process id.
	Pid int
	// Start is the process's start time in clock ticks since boot
	// (field 22 of /proc/PID/stat).
	Start uint64
}

// Of returns the ID of a living process, or ErrGone. A zombie counts as gone.
func Of(pid int) (ID, error) {
	state, start, err := stat(pid)
	if err != nil {
		return ID{}, err
	}
	if state == 'Z' || state == 'X' {
		return ID{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	return ID{Pid: pid, Start: start}, nil
}

// stat reads state and start time. The command name, field 2, may hold spaces
// and parentheses: fields are counted from the last closing one.
func stat(pid int) (state byte, start uint64, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, 0, fmt.Errorf("process %d: malformed stat", pid)
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 {
		return 0, 0, fmt.Errorf("process %d: malformed stat", pid)
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("process %d: malformed stat: %w", pid, err)
	}
	return f[0][0], start, nil
}

// Alive reports whether the very process still runs.
func (id ID) Alive() bool {
	if id.Pid <= 0 {
		return false
	}
	now, err := Of(id.Pid)
	return err == nil && now.Start == id.Start
}

// Signal sends sig to the process, or returns ErrGone.
func (id ID) Signal(sig syscall.Signal) error {
	fd, err := id.open()
	if err != nil {
		return err
	}
	if fd >= 0 {
		defer unix.Close(fd)
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
	} else {
		err = syscall.Kill(id.Pid, sig)
	}
	if errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("process %d: %w", id.Pid, ErrGone)
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", id.Pid, err)
	}
	return nil
}

// open returns a pidfd of the very process (checked after opening, so the id
// cannot change hands in between), or -1 where the kernel has none.
func (id ID) open() (int, error) {
	fd, err := unix.PidfdOpen(id.Pid, 0)
	if err != nil {
		fd = -1
		if errors.Is(err, syscall.ESRCH) {
			return -1, fmt.Errorf("process %d: %w", id.Pid, ErrGone)
		}
	}
	if !id.Alive() {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return -1, fmt.Errorf("process %d: %w", id.Pid, ErrGone)
	}
	return fd, nil
}

// Wait returns nil once the process is gone, or the context's error.
func (id ID) Wait(ctx context.Context) error {
	fd, err := id.open()
	if errors.Is(err, ErrGone) {
		return nil
	}
	if fd >= 0 {
		defer unix.Close(fd)
	}
	const step = 50 * time.Millisecond
	for id.Alive() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("waiting for process %d: %w", id.Pid, err)
		}
		if fd >= 0 {
			// The descriptor becomes readable when the process ends.
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(step.Milliseconds()))
			continue
		}
		_ = pause.For(ctx, step)
	}
	return nil
}

// Stop sends SIGTERM and waits; when the context ends first it sends SIGKILL
// and waits for that. A process that is gone already is no error.
func (id ID) Stop(ctx context.Context) error {
	if err := id.Signal(syscall.SIGTERM); err != nil {
		if errors.Is(err, ErrGone) {
			return nil
		}
		return err
	}
	if id.Wait(ctx) == nil {
		return nil
	}
	return id.Kill()
}

// Kill sends SIGKILL and waits until the process is gone.
func (id ID) Kill() error {
	if err := id.Signal(syscall.SIGKILL); err != nil {
		if errors.Is(err, ErrGone) {
			return nil
		}
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return id.Wait(ctx)
}
