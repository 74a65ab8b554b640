// Package durabletest tells tests what a crash of the machine would take away.
package durabletest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cohort/internal/skip"
)

// Dir is a directory for the test whose files are on a disk, so that Unstable has
// something to count: the temporary one may be in memory, then it is beside the test.
func Dir(t testing.TB) string {
	t.Helper()
	for _, parent := range []string{t.TempDir(), "."} {
		dir, err := os.MkdirTemp(parent, "ondisk")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		name := filepath.Join(dir, "probe")
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if Unstable(t, name) > 0 {
			return dir
		}
	}
	skip.For(t, "no directory on a disk")
	return ""
}

// Unstable counts the pages of a file that are in memory only. It skips the test
// where the kernel (older than 6.5) cannot say so.
func Unstable(t testing.TB, name string) int {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s unix.Cachestat_t
	switch err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &s, 0); err {
	case nil:
	case unix.ENOSYS, unix.EOPNOTSUPP, unix.EPERM:
		skip.For(t, "cachestat(2): ", err)
	default:
		t.Fatal(err)
	}
	return int(s.Dirty + s.Writeback)
}
