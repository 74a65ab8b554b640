// Package durabletest tells tests what a crash of the machine would take away.
package durabletest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"cohort/internal/skip"
)

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
