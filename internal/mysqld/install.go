// Package mysqld finds, initialises, starts and administers one stock mysqld.
// It owns the server's process and settings, and the privileged account that a
// member uses on it. It must never decide about the group, nor write user data.
package mysqld

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"cohort/scripts"
)

// ErrNoServer says that no stock mysqld was found and none could be fetched.
var ErrNoServer = errors.New("no MySQL server")

// Installation is a stock MySQL server's programs.
type Installation struct {
	// Bin is the directory of the programs (wrappers that exec them).
	Bin string `json:"bin"`
	// Version is the server's, as 9.7.4.
	Version string `json:"version"`
	// Basedir, PluginDir, LCMessagesDir and CharacterSetsDir are the values
	// of the options of these names; the mysqld wrapper already passes them.
	Basedir          string `json:"basedir"`
	PluginDir        string `json:"plugin_dir"`
	LCMessagesDir    string `json:"lc_messages_dir"`
	CharacterSetsDir string `json:"character_sets_dir"`
	// TestDir is the directory of MySQL's test suite, empty if not asked for.
	TestDir string `json:"mysql_test_dir"`
	// Programs maps a program's name to its path.
	Programs map[string]string `json:"programs"`
}

// Extras that Find can provide beside the server and its clients.
const (
	WithRouter    = "router"
	WithTestsuite = "testsuite"
	WithSysbench  = "sysbench"
	// WithClock is a mysqld whose clock can be set: program ClockMysqld.
	WithClock = "clock"
)

// ClockMysqld is a mysqld that takes a clock of its own from the file clock in the
// directory that it is started in: +3600 has it an hour ahead. Without the file the
// clock is the machine's.
const ClockMysqld = "mysqld-clock"

// FindOptions says how to look for a server.
type FindOptions struct {
	// Path is a mysqld to use; empty: look in the usual places, then fetch.
	Path string
	// With names extras.
	With []string
	// NoFetch forbids the network.
	NoFetch bool
	// Progress gets one line a step; nil: nothing is shown.
	Progress io.Writer
}

// Find returns a stock mysqld: the given one, one of this machine, or one
// fetched with the distribution's package tool into a private directory.
// Concurrent calls, also of other processes, wait for one another.
// The error wraps ErrNoServer when there is none.
func Find(ctx context.Context, o FindOptions) (*Installation, error) {
	args := []string{"-c", scripts.Mysqld, "mysqld.sh", "--json"}
	for _, w := range o.With {
		args = append(args, "--with", w)
	}
	if o.NoFetch {
		args = append(args, "--no-fetch")
	}
	cmd := exec.CommandContext(ctx, "bash", args...)
	cmd.WaitDelay = 5 * time.Second
	if o.Path != "" {
		cmd.Env = append(os.Environ(), "COHORT_MYSQLD="+o.Path)
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if o.Progress != nil {
		cmd.Stderr = io.MultiWriter(&said, o.Progress)
	}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s (%w)", ErrNoServer, lastLine(said.String()), err)
	}
	in := new(Installation)
	if err := json.Unmarshal(out.Bytes(), in); err != nil {
		return nil, fmt.Errorf("%w: unexpected answer %q: %w", ErrNoServer, out.String(), err)
	}
	return in, nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return strings.TrimPrefix(s[strings.LastIndexByte(s, '\n')+1:], "mysqld.sh: ")
}

// Program returns the path of a client program such as mysqldump.
func (in *Installation) Program(name string) (string, error) {
	if p, ok := in.Programs[name]; ok {
		return p, nil
	}
	return "", fmt.Errorf("MySQL %s in %s has no program %s", in.Version, in.Bin, name)
}

func (in *Installation) mysqld() string { return filepath.Join(in.Bin, "mysqld") }

// CacheDir is the directory that keeps fetched servers and templates between
// runs: $COHORT_CACHE, or cohort below $XDG_CACHE_HOME or ~/.cache.
func CacheDir() string {
	if d := os.Getenv("COHORT_CACHE"); d != "" {
		return d
	}
	if d := os.Getenv("XDG_CACHE_HOME"); d != "" {
		return filepath.Join(d, "cohort")
	}
	home := os.Getenv("HOME")
	if home == "" {
		home = "/tmp"
	}
	return filepath.Join(home, ".cache", "cohort")
}
