package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"cohort/internal/config"
	"cohort/internal/logging"
)

// serveCommand runs one member until it is interrupted.
func serveCommand(args []string, stdout, stderr io.Writer) int {
	cfg, err := config.Load(args, os.Environ())
	if err != nil {
		fmt.Fprintln(stderr, "cohort serve:", err)
		return 2
	}
	switch {
	case cfg.Help:
		fmt.Fprint(stdout, "usage: cohort serve --config FILE [--key=value ...]\n\nEvery key of the file may be given as a flag, or in the environment as COHORT_<KEY>.\n--print-config prints a sample file with every key explained.\n")
		return 0
	case cfg.PrintConfig:
		if err := config.WriteSample(stdout); err != nil {
			fmt.Fprintln(stderr, "cohort serve:", err)
			return 1
		}
		return 0
	}
	if err := cfg.Validate(); err != nil {
		fmt.Fprintln(stderr, "cohort serve:", err)
		return 2
	}
	log, err := logging.New(logging.Options{Level: cfg.LogLevel, Format: cfg.LogFormat, Output: stderr})
	if err != nil {
		fmt.Fprintln(stderr, "cohort serve:", err)
		return 2
	}
	for _, w := range cfg.Warnings {
		log.Warn().Msg(w)
	}
	for _, k := range cfg.Deferred() {
		log.Warn().Str("key", k.Name).Str("needs", k.Later).Msg("this setting has no effect yet")
	}
	shareProcessors(os.Getenv)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, cfg.Config, log); err != nil && !errors.Is(err, context.Canceled) {
		log.Error().Err(err).Msg("member stopped")
		return 1
	}
	log.Info().Msg("member stopped")
	return 0
}

// shareProcessors leaves half of the processors to the mysqld that the member
// runs beside. A Go program that is idle for moments only, as between the steps of
// a commit, spends them looking for work on every processor it may use; on two
// that was a tenth of all CPU of a commit. GOMAXPROCS in the environment counts
// instead.
func shareProcessors(getenv func(string) string) {
	if getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}
