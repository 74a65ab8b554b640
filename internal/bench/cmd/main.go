// Command cmd runs the comparison of package bench and prints its tables.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/bench"
	"cohort/internal/loadgen"
	"cohort/internal/mysqld"
	"cohort/internal/tool"
)

func main() { tool.Main("bench", run) }

func run(ctx context.Context, logger zerolog.Logger) (err error) {
	var (
		systems     = flag.String("systems", "single,gr,cohort,cohort-relaxed", "what to compare: single, single-relaxed, gr, gr-relaxed, cohort, cohort-relaxed")
		workloads   = flag.String("workloads", "update,begin-update-commit,point-select,oltp-read-write", "workloads, in this order")
		connections = flag.String("connections", "1,16,64", "numbers of client connections")
		protocol    = flag.String("protocol", "prepared", "prepared or text")
		rows        = flag.Int("rows", 20000, "rows of the table")
		warmup      = flag.Duration("warmup", 15*time.Second, "load before each window of writes")
		window      = flag.Duration("window", 30*time.Second, "window of writes; the figures that count need at least 30s")
		readWarmup  = flag.Duration("read-warmup", 3*time.Second, "load before each window of reads")
		readWindow  = flag.Duration("read-window", 10*time.Second, "window of reads")
		rounds      = flag.Int("rounds", 1, "repeat all of it and print the medians")
		program     = flag.String("cohort", "", "path of the cohort program (default $COHORT_BIN or bin/cohort)")
		server      = flag.String("mysqld", "", "path of the mysqld to use (default: one of this machine, or fetched)")
		scratch     = flag.String("dir", "", "directory for the servers' data (default: a temporary one)")
		out         = flag.String("json", "", "also write the figures as JSON to this file")
	)
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}

	plan := bench.Plan{
		Rows: *rows, Warmup: *warmup, Window: *window, ReadWarmup: *readWarmup, ReadWindow: *readWindow,
		Rounds: *rounds, Drain: 3 * time.Minute, Logger: logger,
	}
	if plan.Dir, err = os.MkdirTemp(*scratch, "cohort-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(plan.Dir)) }()
	if plan.Systems, err = choose(ctx, *systems, *server, *program, logger); err != nil {
		return err
	}
	for name := range strings.SplitSeq(*workloads, ",") {
		w, err := loadgen.WorkloadNamed(name)
		if err != nil {
			return err
		}
		plan.Workloads = append(plan.Workloads, w)
	}
	for text := range strings.SplitSeq(*connections, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-connections: %q is not a number of connections", text)
		}
		plan.Connections = append(plan.Connections, n)
	}
	switch *protocol {
	case "prepared":
		plan.Protocol = loadgen.Prepared
	case "text":
		plan.Protocol = loadgen.TextProtocol
	default:
		return fmt.Errorf("-protocol: %q is neither prepared nor text", *protocol)
	}

	cells, err := bench.Run(ctx, plan, func(c bench.Cell) {
		logger.Info().Str("workload", c.Workload).Str("system", c.System).Str("through", c.Endpoint).
			Int("connections", c.Connections).Float64("sustained", c.Sustained).Float64("answered", c.Rate).
			Dur("p50", c.P50).Dur("p99", c.P99).Uint64("backlog", c.BacklogEnd).Str("failed", c.Failed).Msg("measured")
	})
	// What was measured before an interrupt is worth having.
	fmt.Printf("Windows of %s after %s (reads: %s after %s), %d rows, %s protocol; ratios are taken of Group Replication at %s.\n\n",
		*window, *warmup, *readWindow, *readWarmup, *rows, *protocol, bench.Strict)
	peer := bench.System{Name: bench.NamePeer, Durability: bench.Strict}.Label()
	reportErr := bench.Report(os.Stdout, cells,
		bench.Way{System: peer, Endpoint: bench.EndpointDirect}, bench.Way{System: peer, Endpoint: bench.EndpointRouter})
	if *out != "" {
		text, jsonErr := json.MarshalIndent(cells, "", "  ")
		reportErr = errors.Join(reportErr, jsonErr, os.WriteFile(*out, append(text, '\n'), 0o644))
	}
	if slices.ContainsFunc(cells, func(c bench.Cell) bool { return c.Failed != "" }) {
		reportErr = errors.Join(reportErr, errors.New("some cells have no figure"))
	}
	return errors.Join(err, reportErr)
}

// choose makes the systems and finds the programs that they need.
func choose(ctx context.Context, names, server, program string, logger zerolog.Logger) ([]bench.System, error) {
	in, err := mysqld.Find(ctx, mysqld.FindOptions{Path: server, With: []string{mysqld.WithRouter}, Progress: os.Stderr})
	if err != nil {
		return nil, err
	}
	var systems []bench.System
	for name := range strings.SplitSeq(names, ",") {
		base, relaxed := strings.CutSuffix(name, "-relaxed")
		d := bench.Strict
		if relaxed {
			d = bench.Relaxed
		}
		switch base {
		case "single":
			systems = append(systems, bench.Single(in, d))
		case "gr":
			systems = append(systems, bench.Peer(in, d, logger))
		case "cohort":
			systems = append(systems, bench.Cohort(program, d))
		default:
			return nil, fmt.Errorf("-systems: no system %q", name)
		}
	}
	return systems, nil
}
