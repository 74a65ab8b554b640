// Package logging owns how a member's log looks: structured, one line an event,
// readable on a terminal and JSON elsewhere. It must never decide what is worth
// logging, and holds no global logger: everyone is given theirs.
package logging

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
)

// Formats that New accepts; "" is Auto.
const (
	Auto    = "auto"
	Console = "console"
	JSON    = "json"
)

// ErrFormat and ErrLevel are returned for words New does not know.
var (
	ErrFormat = errors.New("logging: unknown format")
	ErrLevel  = errors.New("logging: unknown level")
)

// Options says what to log and where.
type Options struct {
	// Level is the least important level that is written: trace, debug, info,
	// warn or error; "" is info.
	Level string
	// Format is Auto, Console or JSON. Auto looks whether Output is a terminal.
	Format string
	// Output is os.Stderr when nil. It is written to by one goroutine at a time.
	Output io.Writer
}

// New returns a logger that stamps every event with the time (UTC, microseconds)
// and writes it as one line in one Write call.
func New(o Options) (zerolog.Logger, error) {
	if o.Output == nil {
		o.Output = os.Stderr
	}
	level, err := parseLevel(o.Level)
	if err != nil {
		return zerolog.Nop(), err
	}
	terminal := isTerminal(o.Output)
	switch o.Format {
	case "", Auto:
		o.Format = JSON
		if terminal {
			o.Format = Console
		}
	case Console, JSON:
	default:
		return zerolog.Nop(), fmt.Errorf("%w %q", ErrFormat, o.Format)
	}
	out := o.Output
	if o.Format == Console {
		out = console(out, terminal && os.Getenv("NO_COLOR") == "")
	}
	return zerolog.New(zerolog.SyncWriter(out)).Level(level).Hook(stamp{}), nil
}

// Component returns a logger whose events name the part of the program they
// come from.
func Component(l zerolog.Logger, name string) zerolog.Logger {
	return l.With().Str("component", name).Logger()
}

const timeFormat = "2006-01-02T15:04:05.000000Z"

// stamp adds the time itself, since zerolog's own format is a global of the
// whole process.
type stamp struct{}

// Run implements zerolog.Hook.
func (stamp) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(zerolog.TimestampFieldName, time.Now().UTC().Format(timeFormat))
}

func parseLevel(s string) (zerolog.Level, error) {
	switch strings.ToLower(s) {
	case "":
		return zerolog.InfoLevel, nil
	case "trace", "debug", "info", "warn", "error":
		return zerolog.ParseLevel(strings.ToLower(s))
	}
	return zerolog.NoLevel, fmt.Errorf("%w %q", ErrLevel, s)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// console shows time, level, component and message in columns, then the fields.
func console(out io.Writer, colour bool) io.Writer {
	return zerolog.ConsoleWriter{
		Out:     out,
		NoColor: !colour,
		FormatTimestamp: func(v any) string {
			s, _ := v.(string)
			if len(s) == len(timeFormat) {
				s = s[11:23] // the time of day, to the millisecond
			}
			return s
		},
		PartsOrder:    []string{zerolog.TimestampFieldName, zerolog.LevelFieldName, "component", zerolog.MessageFieldName},
		FieldsExclude: []string{"component"},
		FormatPartValueByName: func(v any, name string) string {
			if s, ok := v.(string); ok {
				return fmt.Sprintf("%-9s", oneLine(s))
			}
			return fmt.Sprintf("%-9s", "-")
		},
		FormatMessage: func(v any) string {
			s, _ := v.(string)
			return oneLine(s)
		},
	}
}

// oneLine keeps an event on its line whatever a client or mysqld put into it,
// and keeps control characters from the terminal.
func oneLine(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0 {
		return s
	}
	q := fmt.Sprintf("%q", s)
	return q[1 : len(q)-1]
}
