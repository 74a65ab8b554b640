// Package tool is the frame of the development commands (bench, failover,
// battery): a logger on standard error, interrupts, the exit code.
package tool

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// Main runs a command's work until it returns or the process is told to end, and
// exits with code 1 after an error.
func Main(name string, run func(context.Context, zerolog.Logger) error) {
	logger := zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.TimeOnly}).With().Timestamp().Logger()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, logger); err != nil {
		logger.Error().Err(err).Msg(name)
		stop()
		os.Exit(1)
	}
}
