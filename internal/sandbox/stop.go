package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"cohort/internal/proc"
)

// stopGrace is how long a process may take to end by itself before it is killed.
const stopGrace = 60 * time.Second

// Stop ends what runs of the member called name ("": of all) in an orderly way:
// members first, then mysqlds.
func (s *Sandbox) Stop(ctx context.Context, name string, part Part) error {
	ms, err := s.pick(name)
	if err != nil {
		return err
	}
	ps, err := part.parts()
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, s.dir)
	if err != nil {
		return err
	}
	defer unlock()
	var errs []error
	for _, p := range ps {
		errs = append(errs, s.endAll(ctx, ms, p))
	}
	return errors.Join(errs...)
}

// StopStarted stops just the processes in list.
func (s *Sandbox) StopStarted(ctx context.Context, list []Started) error {
	unlock, err := lock(ctx, s.dir)
	if err != nil {
		return err
	}
	defer unlock()
	var errs []error
	for _, p := range []Part{Proxy, Mysqld} {
		var ms []memberSpec
		for _, st := range list {
			if st.Part == p {
				m, err := s.pick(st.Member)
				errs = append(errs, err)
				ms = append(ms, m...)
			}
		}
		errs = append(errs, s.endAll(ctx, ms, p))
	}
	return errors.Join(errs...)
}

func (s *Sandbox) endAll(ctx context.Context, ms []memberSpec, p Part) error {
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	errs := make([]error, len(ms))
	var wg sync.WaitGroup
	for i, m := range ms {
		wg.Go(func() { errs[i] = s.end(ctx, m, p, false) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Kill ends what runs of the member called name ("": of all) with SIGKILL, all
// at the same moment as far as that can be, and returns when it is gone.
func (s *Sandbox) Kill(ctx context.Context, name string, part Part) error {
	ms, err := s.pick(name)
	if err != nil {
		return err
	}
	ps, err := part.parts()
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, s.dir)
	if err != nil {
		return err
	}
	defer unlock()
	var errs []error
	for _, p := range ps {
		for _, m := range ms {
			if id, ok := s.running(m, p); ok {
				if err := id.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, proc.ErrGone) {
					errs = append(errs, fmt.Errorf("sandbox: %s of %s: %w", p, m.Name, err))
				}
			}
		}
	}
	for _, p := range ps {
		for _, m := range ms {
			errs = append(errs, s.end(ctx, m, p, true))
		}
	}
	return errors.Join(errs...)
}

// Destroy kills what runs and removes the sandbox's files, and the directory if
// it holds nothing else.
func (s *Sandbox) Destroy(ctx context.Context) error {
	if err := s.Kill(ctx, "", Both); err != nil {
		return err
	}
	unlock, err := lock(ctx, s.dir)
	if err != nil {
		return err
	}
	defer unlock()
	var errs []error
	for _, m := range s.spec.Members {
		o := s.mysqldOptions(m)
		errs = append(errs, o.RemoveSocketLink(), os.RemoveAll(s.memberDir(m)))
	}
	for _, f := range []string{specFile, specFile + ".new", lockFile} {
		if err := os.Remove(filepath.Join(s.dir, f)); err != nil && !os.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	// Only an empty directory goes: what the user put there stays.
	if es, err := os.ReadDir(s.dir); err == nil && len(es) == 0 {
		errs = append(errs, os.Remove(s.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sandbox: destroy %s: %w", s.dir, err)
	}
	return nil
}
