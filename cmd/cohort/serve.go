package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, cfg.Config, log); err != nil && !errors.Is(err, context.Canceled) {
		log.Error().Err(err).Msg("member stopped")
		return 1
	}
	log.Info().Msg("member stopped")
	return 0
}
