// Package skip keeps a list of what tests leave out on this machine, so that
// `make test` can end with it. It must never decide that something is left out.
package skip

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// listEnv names the file of the list, to which a line is added; unset: none.
const listEnv = "COHORT_TEST_SKIPS"

// For skips a test that this machine does not permit, or lacks something for.
func For(t testing.TB, why ...any) {
	t.Helper()
	Note(t, why...)
	t.Skip(why...)
}

// Note says what a test goes on without.
func Note(t testing.TB, why ...any) {
	t.Helper()
	name := os.Getenv(listEnv)
	if name == "" {
		return
	}
	if err := add(name, fmt.Sprintf("%s: %s\n", t.Name(), fmt.Sprint(why...))); err != nil {
		t.Error(err)
	}
}

func add(name, line string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}
