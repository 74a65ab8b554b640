package netlab

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"cohort/internal/skip"
)

// TestMain makes the test binary a prober too: a refused connection is an answer.
func TestMain(m *testing.M) {
	if addr := os.Getenv("NETLAB_PROBE"); addr != "" {
		_, err := net.DialTimeout("tcp", addr+":9", 3*time.Second)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// reaches says whether one host's packets and their answers get through.
func reaches(t *testing.T, l *Lab, from, to int) bool {
	t.Helper()
	args := append(l.Command(from), os.Args[0])
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "NETLAB_PROBE="+l.Hosts()[to])
	return cmd.Run() == nil
}

// A cut in either direction loses the question or its answer; other pairs do not
// notice, and healing brings everything back.
func TestCut(t *testing.T) {
	l, err := New(t.Context(), 3)
	if errors.Is(err, ErrNotPermitted) {
		skip.For(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	expect := func(when string, from, to int, want bool) {
		t.Helper()
		if reaches(t, l, from, to) != want {
			t.Errorf("%s: %d reaches %d: want %v", when, from, to, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expect("new", 0, 1, true)
	do(l.Cut(t.Context(), 0, 1))
	expect("0 to 1 cut", 0, 1, false)
	expect("0 to 1 cut", 0, 2, true)
	do(l.Heal(t.Context()))
	expect("healed", 0, 1, true)
	do(l.Cut(context.Background(), 1, 0))
	expect("1 to 0 cut", 0, 1, false)
	do(l.Isolate(t.Context(), 2))
	expect("2 alone", 0, 2, false)
	expect("2 alone", 2, 1, false)
	do(l.Heal(t.Context()))
	for i := range 3 {
		expect("healed", i, (i+1)%3, true)
	}
}
