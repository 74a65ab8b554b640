package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"cohort/internal/mysqld"
	"cohort/internal/sandbox"
)

const sandboxUsage = `cohort sandbox: a whole group on this machine

usage:
  cohort sandbox [FLAGS]                     start a group, run until interrupted
  cohort sandbox start --detach [FLAGS]      start a group and leave it running
  cohort sandbox status [--dir DIR] [--json]
  cohort sandbox stop    [--dir DIR] [MEMBER [mysqld|proxy]]   end in order
  cohort sandbox kill    [--dir DIR] [MEMBER [mysqld|proxy]]   end with SIGKILL
  cohort sandbox restart [--dir DIR] [MEMBER [mysqld|proxy]]   end in order, start
  cohort sandbox add     [--dir DIR]         one more member, up to 9
  cohort sandbox destroy [--dir DIR]         end everything, remove the data

flags of start:
  --dir DIR                   the group's directory (default: sandbox); it keeps
                              its data for the next start
  --members N                 1 to 9 (default: 3, or what the directory has)
  --mysqld-option NAME=VALUE  a line for every mysqld's my.cnf; may be repeated
  --member-option NAME=VALUE  a key for every member's configuration; repeatable
  --detach                    return once all members are ONLINE
  --timeout DURATION          how long they may take (default: 3m)
  --mysqld PATH               the mysqld to use (default: found or fetched)

restart waits for ONLINE when it restarts the whole group; for a single member
only with --wait. Accounts: app (password app) with all privileges, and plain
(password plain) with all privileges on the schema plain.
`

// sandboxFlags are those of all the subcommands.
type sandboxFlags struct {
	dir, mysqld           string
	settings              sandbox.Settings
	detach, jsonOut, wait bool
	timeout               time.Duration
	member                string
	part                  sandbox.Part
}

var errUsage = errors.New("see cohort sandbox --help")

// sandboxCommand runs `cohort sandbox ARGS` and returns the exit status.
func sandboxCommand(args []string, stdout, stderr io.Writer) int {
	verb := "start"
	if len(args) > 0 && len(args[0]) > 0 && args[0][0] != '-' {
		verb, args = args[0], args[1:]
	}
	f, err := parseSandbox(verb, args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, sandboxUsage)
		return 0
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		err = f.run(ctx, stop, verb, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "cohort sandbox %s: %v\n", verb, err)
		if errors.Is(err, errUsage) {
			return 2
		}
		return 1
	}
	return 0
}

func parseSandbox(verb string, args []string) (*sandboxFlags, error) {
	f := &sandboxFlags{}
	fs := flag.NewFlagSet("sandbox", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&f.dir, "dir", "sandbox", "")
	switch verb {
	case "start", "restart", "add":
		fs.StringVar(&f.mysqld, "mysqld", "", "")
		fs.DurationVar(&f.timeout, "timeout", 3*time.Minute, "")
		if verb == "add" {
			break
		}
		if verb == "restart" {
			fs.BoolVar(&f.wait, "wait", false, "")
			break
		}
		fs.BoolVar(&f.detach, "detach", false, "")
		fs.IntVar(&f.settings.Members, "members", 0, "")
		fs.Func("mysqld-option", "", appendTo(&f.settings.MysqldOptions))
		fs.Func("member-option", "", appendTo(&f.settings.MemberOptions))
	case "status":
		fs.BoolVar(&f.jsonOut, "json", false, "")
	case "stop", "kill", "destroy":
	case "help":
		return nil, flag.ErrHelp
	default:
		return nil, fmt.Errorf("no such command: %w", errUsage)
	}
	// Flags may stand before, between and after the member's name.
	var names []string
	for {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			return nil, err
		} else if err != nil {
			return nil, fmt.Errorf("%w: %w", err, errUsage)
		}
		if fs.NArg() == 0 {
			break
		}
		names, args = append(names, fs.Arg(0)), fs.Args()[1:]
	}
	most := 0
	if verb == "stop" || verb == "kill" || verb == "restart" {
		most = 2
	}
	if len(names) > most {
		return nil, fmt.Errorf("unexpected argument %q: %w", names[most], errUsage)
	}
	if len(names) > 0 {
		f.member = names[0]
	}
	if len(names) > 1 {
		if f.part = sandbox.Part(names[1]); f.part != sandbox.Mysqld && f.part != sandbox.Proxy {
			return nil, fmt.Errorf("%q is neither mysqld nor proxy: %w", names[1], errUsage)
		}
	}
	return f, nil
}

func appendTo(list *[]string) func(string) error {
	return func(v string) error { *list = append(*list, v); return nil }
}

func (f *sandboxFlags) run(ctx context.Context, stop func(), verb string, stdout, stderr io.Writer) error {
	if verb == "start" {
		return f.start(ctx, stop, stdout, stderr)
	}
	s, err := sandbox.Open(f.dir)
	if err != nil {
		return err
	}
	switch verb {
	case "status":
		ms := s.Status(ctx)
		if !f.jsonOut {
			sandbox.WriteTable(stdout, ms)
			return nil
		}
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Members []sandbox.Member `json:"members"`
		}{ms})
	case "stop":
		return s.Stop(ctx, f.member, f.part)
	case "kill":
		return s.Kill(ctx, f.member, f.part)
	case "destroy":
		return s.Destroy(ctx)
	case "add":
		return f.add(ctx, s, stdout, stderr)
	default: // restart
		return f.restart(ctx, s, stderr)
	}
}

func (f *sandboxFlags) find(ctx context.Context, stderr io.Writer) (*mysqld.Installation, error) {
	return mysqld.Find(ctx, mysqld.FindOptions{Path: f.mysqld, Progress: stderr})
}

// add starts one more member, which joins the group.
func (f *sandboxFlags) add(ctx context.Context, s *sandbox.Sandbox, stdout, stderr io.Writer) error {
	in, err := f.find(ctx, stderr)
	if err != nil {
		return err
	}
	name, err := s.Add(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	table := sandbox.NewTable(stderr, s)
	if _, err := s.Start(ctx, name, sandbox.Both, sandbox.StartOptions{Installation: in, Progress: table.Doing}); err != nil {
		return err
	}
	if err := s.WaitOnline(ctx, name, table.Seen); err != nil {
		return err
	}
	fmt.Fprintln(stdout, name)
	return nil
}

func (f *sandboxFlags) restart(ctx context.Context, s *sandbox.Sandbox, stderr io.Writer) error {
	in, err := f.find(ctx, stderr)
	if err != nil {
		return err
	}
	if err := s.Stop(ctx, f.member, f.part); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	table := sandbox.NewTable(stderr, s)
	if _, err := s.Start(ctx, f.member, f.part, sandbox.StartOptions{Installation: in, Progress: table.Doing}); err != nil {
		return err
	}
	// A single member cannot come ONLINE while a majority is down.
	if f.member != "" && !f.wait {
		return nil
	}
	return s.WaitOnline(ctx, f.member, table.Seen)
}

func (f *sandboxFlags) start(ctx context.Context, stop func(), stdout, stderr io.Writer) error {
	in, err := f.find(ctx, stderr)
	if err != nil {
		return err
	}
	s, err := sandbox.OpenOrCreate(ctx, f.dir, f.settings)
	if err != nil {
		return err
	}
	table := sandbox.NewTable(stdout, s)
	wait, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	started, err := s.Start(wait, "", sandbox.Both, sandbox.StartOptions{Installation: in, Progress: table.Doing})
	if err == nil {
		err = s.WaitOnline(wait, "", table.Seen)
	}
	if err == nil {
		table.Final(s.Status(ctx))
	}
	if f.detach {
		if err != nil {
			err = fmt.Errorf("%w\n(what was started still runs; cohort sandbox stop --dir %s ends it)", err, s.Dir())
		}
		return err
	}
	if err == nil {
		fmt.Fprintf(stdout, "\nThe group is up. Connect to any member, for example:\n  %s --host=127.0.0.1 --port=%d --user=app --password=app\nCtrl-C stops it; its data stay in %s.\n",
			in.Programs["mysql"], s.Status(ctx)[0].Port, s.Dir())
		f.watch(ctx, s, table)
	}
	interrupted := ctx.Err() != nil
	stop() // a second Ctrl-C ends this process at once
	if interrupted || err != nil {
		fmt.Fprintln(stderr, "\nstopping …")
	}
	if stopErr := s.StopStarted(context.WithoutCancel(ctx), started); stopErr != nil {
		return errors.Join(err, stopErr)
	}
	if interrupted {
		return nil
	}
	return err
}

// watch shows changes until ctx ends.
func (f *sandboxFlags) watch(ctx context.Context, s *sandbox.Sandbox, table *sandbox.Table) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	table.Detach()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if ms := s.Status(ctx); ctx.Err() == nil {
				table.Seen(ms)
			}
		}
	}
}
