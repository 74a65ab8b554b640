// Command cmd runs the measurement of package failover and prints its table.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/failover"
	"cohort/internal/mysqld"
	"cohort/internal/tool"
)

func main() { tool.Main("failover", run) }

func run(ctx context.Context, logger zerolog.Logger) (err error) {
	var (
		runs    = flag.Int("runs", 20, "faults for each case")
		names   = flag.String("cases", "mysqld,proxy,both,stop,cut,switchover", "what happens to the primary: mysqld, proxy, both (kill -9), stop (SIGSTOP of both), cut, switchover, restart (both killed and started again at once)")
		systems = flag.String("systems", "cohort,gr", "what to measure: cohort, cohort-fast (with cohort_failure_detection=FAST), gr (Group Replication with MySQL Router; mysqld and switchover only)")
		limit   = flag.Duration("limit", time.Minute, "a run that takes longer counts as not recovered")
		watch   = flag.Duration("watch", 2*time.Second, "further load after each recovery")
		back    = flag.Duration("return", 3*time.Minute, "how long a member that was hit may take to be ONLINE again")
		program = flag.String("cohort", "", "path of the cohort program (default $COHORT_BIN or bin/cohort)")
		server  = flag.String("mysqld", "", "path of the mysqld of gr (default: one of this machine, or fetched)")
		scratch = flag.String("dir", "", "directory for the servers' data (default: a temporary one)")
		out     = flag.String("json", "", "also write the results as JSON to this file")
	)
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if *runs < 1 {
		return fmt.Errorf("-runs: %d: at least one", *runs)
	}
	var cases []failover.Case
	for name := range strings.SplitSeq(*names, ",") {
		c, err := failover.ParseCase(name)
		if err != nil {
			return err
		}
		cases = append(cases, c)
	}
	var chosen []failover.System
	for name := range strings.SplitSeq(*systems, ",") {
		switch name {
		case "cohort":
			chosen = append(chosen, failover.Cohort(name, *program))
		case "cohort-fast":
			chosen = append(chosen, failover.Cohort(name, *program, "cohort_failure_detection=FAST"))
		case "gr":
			in, err := mysqld.Find(ctx, mysqld.FindOptions{Path: *server, With: []string{mysqld.WithRouter}, Progress: os.Stderr})
			if err != nil {
				return err
			}
			chosen = append(chosen, failover.Peer(in, logger))
		default:
			return fmt.Errorf("-systems: no system %q", name)
		}
	}
	dir, err := os.MkdirTemp(*scratch, "cohort-failover-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	plan := failover.Plan{Runs: *runs, Limit: *limit, Watch: *watch, Return: *back, Logger: logger}
	var results []failover.Result
	for i, s := range chosen {
		results = append(results, failover.MeasureAll(ctx, plan, s, filepath.Join(dir, fmt.Sprint(i)), cases)...)
	}
	fmt.Printf("Up to %d runs for each case; a client of a member that survives inserts one row after the other; times without an acknowledged write.\n\n", *runs)
	err = failover.Report(os.Stdout, results)
	if *out != "" {
		text, jsonErr := json.MarshalIndent(results, "", "  ")
		err = errors.Join(err, jsonErr, os.WriteFile(*out, append(text, '\n'), 0o644))
	}
	if slices.ContainsFunc(results, failover.Result.Bad) {
		err = errors.Join(err, errors.New("some cases ended early or lost writes"))
	}
	return errors.Join(err, ctx.Err())
}
