package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"cohort/internal/mysqld"
	"cohort/internal/proc"
)

// StartOptions says how members are started.
type StartOptions struct {
	// Program is the cohort program; empty: the running one.
	Program string
	// Installation is the stock server.
	Installation *mysqld.Installation
	// Progress, if not nil, is told what is being done, per member; it may be
	// called concurrently.
	Progress func(member, doing string)
}

func (o *StartOptions) say(m memberSpec, doing string) {
	if o.Progress != nil {
		o.Progress(m.Name, doing)
	}
}

// Started names the processes that a call of Start started.
type Started struct {
	Member string
	Part   Part
}

// Start starts what does not run yet of the member called name ("": of all):
// mysqlds first, initialising them if need be, then members. It returns when
// every mysqld accepts connections and every member's process runs; WaitOnline
// waits for the rest. What was started is returned also with an error.
func (s *Sandbox) Start(ctx context.Context, name string, part Part, o StartOptions) ([]Started, error) {
	ms, err := s.pick(name)
	if err != nil {
		return nil, err
	}
	if _, err := part.parts(); err != nil {
		return nil, err
	}
	if o.Program == "" {
		if o.Program, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("sandbox: %w", err)
		}
	}
	unlock, err := lock(ctx, s.dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var (
		mu      sync.Mutex
		started []Started
		errs    = make([]error, len(ms))
		wg      sync.WaitGroup
	)
	// All mysqlds come first: members look for each other as soon as they run.
	for _, p := range []Part{Mysqld, Proxy} {
		if part != Both && part != p {
			continue
		}
		for i, m := range ms {
			wg.Go(func() {
				var did bool
				if p == Mysqld {
					did, errs[i] = s.startMysqld(ctx, m, &o)
				} else {
					did, errs[i] = s.startProxy(m, &o)
				}
				if did {
					mu.Lock()
					started = append(started, Started{m.Name, p})
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return started, err
		}
	}
	return started, nil
}

func (s *Sandbox) startMysqld(ctx context.Context, m memberSpec, o *StartOptions) (bool, error) {
	if _, ok := s.running(m, Mysqld); ok {
		return false, nil
	}
	opts := s.mysqldOptions(m)
	fresh := filepath.Join(s.memberDir(m), ".new")
	if _, err := os.Stat(opts.Datadir()); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.memberDir(m), 0o700); err != nil {
			return false, fmt.Errorf("sandbox: %w", err)
		}
		if err := os.WriteFile(fresh, nil, 0o600); err != nil {
			return false, fmt.Errorf("sandbox: %w", err)
		}
	}
	// The mark stays until the accounts are there, so whatever interrupts this
	// is repaired by beginning anew: no user data can be in it yet.
	_, err := os.Stat(fresh)
	isFresh := err == nil
	if isFresh {
		o.say(m, "initialising mysqld")
		if err := os.RemoveAll(opts.Datadir()); err != nil {
			return false, fmt.Errorf("sandbox: %w", err)
		}
		if err := o.Installation.InitializeFromTemplate(ctx, opts); err != nil {
			return false, fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	o.say(m, "starting mysqld")
	p, err := o.Installation.Start(ctx, opts)
	if err != nil {
		return false, fmt.Errorf("%s: %w", m.Name, err)
	}
	if err := s.writeRecord(m, Mysqld, p.ID); err != nil {
		return true, errors.Join(err, p.Kill())
	}
	if isFresh {
		if err := createAccounts(ctx, p.Socket); err != nil {
			return true, fmt.Errorf("%s: %w", m.Name, err)
		}
		if err := os.Remove(fresh); err != nil {
			return true, fmt.Errorf("sandbox: %w", err)
		}
	}
	o.say(m, "mysqld runs")
	return true, nil
}

// accounts exist on every mysqld from the start, without a GTID, so that the
// group's history begins with the user's first statement.
var accounts = []string{
	"CREATE DATABASE plain",
	"CREATE USER app IDENTIFIED BY 'app'",
	"GRANT ALL ON *.* TO app WITH GRANT OPTION",
	"CREATE USER plain IDENTIFIED BY 'plain'",
	"GRANT ALL ON plain.* TO plain",
}

func createAccounts(ctx context.Context, socket string) error {
	db, err := mysqld.Open(socket, "root", "")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	c, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("create accounts: %w", err)
	}
	defer func() { _ = c.Close() }()
	return mysqld.Unlogged(ctx, c, accounts...)
}

func (s *Sandbox) startProxy(m memberSpec, o *StartOptions) (bool, error) {
	if _, ok := s.running(m, Proxy); ok {
		return false, nil
	}
	o.say(m, "starting the member")
	if err := os.MkdirAll(s.memberDir(m), 0o700); err != nil {
		return false, fmt.Errorf("sandbox: %w", err)
	}
	if err := s.writeMemberConfig(m); err != nil {
		return false, err
	}
	log, err := os.OpenFile(s.memberLog(m), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return false, fmt.Errorf("sandbox: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(o.Program, "serve", "--config="+s.memberConfigFile(m))
	cmd.Dir = s.memberDir(m)
	cmd.Stdout, cmd.Stderr = log, log
	// The sandbox's environment configures the sandbox, not its members.
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "COHORT_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	// A session of its own: Ctrl-C reaches the sandbox, which stops members in
	// order, and a detached group outlives its terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("sandbox: start %s: %w", m.Name, err)
	}
	id, err := proc.Of(cmd.Process.Pid)
	// Reaps the child if it ends before this process does.
	go func() { _ = cmd.Wait() }()
	if err != nil {
		return false, fmt.Errorf("sandbox: %s ended at once: %s", m.Name, lastLine(s.memberLog(m)))
	}
	if err := s.writeRecord(m, Proxy, id); err != nil {
		return true, errors.Join(err, id.Kill())
	}
	return true, nil
}
