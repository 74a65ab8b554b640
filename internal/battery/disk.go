package battery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"cohort/internal/pause"
)

// diskSize is what a member's small disk holds; the file behind it is sparse.
const diskSize = 4 << 30

// disk is a file system of a member's own.
type disk struct{ image, dir string }

func mountDisk(ctx context.Context, image, dir string) (*disk, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("mounting needs root")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close()); err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-m", "0", "-F", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w: %s", args[0], err, out), os.Remove(image))
		}
	}
	return &disk{image, dir}, nil
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill leaves no free block.
func (d *disk) fill() error {
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var at int64
	for step := int64(1 << 30); step >= 4096; {
		err := syscall.Fallocate(int(f.Fd()), 0, at, step)
		switch {
		case err == nil:
			at += step
		case errors.Is(err, syscall.ENOSPC):
			step /= 2
		case !errors.Is(err, syscall.EINTR):
			return err
		}
	}
	return nil
}

func (d *disk) empty() error {
	if err := os.Remove(d.ballast()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d *disk) unmount(ctx context.Context) error {
	var err error
	for range 20 { // killed processes may hold files for a moment
		var out []byte
		if out, err = exec.CommandContext(ctx, "umount", d.dir).CombinedOutput(); err == nil {
			return os.Remove(d.image)
		}
		err = fmt.Errorf("umount: %w: %s", err, out)
		_ = pause.For(ctx, 250*time.Millisecond)
	}
	return err
}

// slowDisk makes the fsyncs of a directory's disk wait behind others: two
// writers that write and fsync without pause.
type slowDisk struct {
	dir    string
	mu     sync.Mutex
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func (s *slowDisk) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		return
	}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	for i := range 2 {
		s.wg.Go(func() { s.churn(ctx, filepath.Join(s.dir, fmt.Sprintf("churn-%d", i))) })
	}
}

func (s *slowDisk) churn(ctx context.Context, name string) {
	f, err := os.Create(name)
	if err != nil {
		return
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(name)
	}()
	block := make([]byte, 64<<10)
	for i := 0; ctx.Err() == nil; i++ {
		// A full disk ends the load, which is as good as any other end.
		if _, err := f.WriteAt(block, int64(i%64)*int64(len(block))); err != nil {
			return
		}
		if f.Sync() != nil {
			return
		}
	}
}

func (s *slowDisk) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
		s.wg.Wait()
		s.cancel = nil
	}
}
