package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

func TestJSONIsTheDefaultWithoutTerminal(t *testing.T) {
	var out bytes.Buffer
	l, err := New(Options{Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	c := Component(l, "feed")
	c.Info().Uint64("n", 7).Msg("one\ntwo")
	c.Debug().Msg("not at this level")
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Fatalf("%d lines in %q", n, out.String())
	}
	var e map[string]any
	if err := json.Unmarshal(out.Bytes(), &e); err != nil {
		t.Fatal(err)
	}
	if e["component"] != "feed" || e["message"] != "one\ntwo" || e["level"] != "info" || e["n"] != 7.0 || len(e["time"].(string)) != len(timeFormat) {
		t.Errorf("event %v", e)
	}
}

func TestConsoleIsOneReadableLine(t *testing.T) {
	var out bytes.Buffer
	l, err := New(Options{Output: &out, Format: Console, Level: "debug"})
	if err != nil {
		t.Fatal(err)
	}
	c := Component(l, "proxy")
	c.Debug().Str("sql", "a\nb\x1b[31m").Msg("two\nlines\x1b[2J")
	l.Warn().Msg("no component")
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines in %q", len(lines), out.String())
	}
	if !strings.Contains(lines[0], "proxy") || !strings.Contains(lines[0], `two\nlines`) || strings.ContainsRune(out.String(), 0x1b) {
		t.Errorf("line %q", lines[0])
	}
	if strings.Count(lines[0], "proxy") != 1 {
		t.Errorf("component shown twice: %q", lines[0])
	}
	if !strings.Contains(lines[1], "no component") || strings.Contains(lines[1], "nil") {
		t.Errorf("line %q", lines[1])
	}
}

func TestLevels(t *testing.T) {
	for word, want := range map[string]zerolog.Level{"": zerolog.InfoLevel, "trace": zerolog.TraceLevel, "WARN": zerolog.WarnLevel, "error": zerolog.ErrorLevel} {
		l, err := New(Options{Output: new(bytes.Buffer), Level: word})
		if err != nil || l.GetLevel() != want {
			t.Errorf("%q: %v %v", word, l.GetLevel(), err)
		}
	}
}

func TestUnknownWords(t *testing.T) {
	if _, err := New(Options{Level: "loud"}); !errors.Is(err, ErrLevel) {
		t.Errorf("level: %v", err)
	}
	if _, err := New(Options{Format: "xml"}); !errors.Is(err, ErrFormat) {
		t.Errorf("format: %v", err)
	}
}

func TestFileIsNoTerminal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if isTerminal(f) {
		t.Error("a file is taken for a terminal")
	}
}
