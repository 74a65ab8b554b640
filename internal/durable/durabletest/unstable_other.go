//go:build !linux

package durabletest

import (
	"testing"

	"cohort/internal/skip"
)

// Dir skips the test.
func Dir(t testing.TB) string {
	Unstable(t, "")
	return ""
}

// Unstable skips the test.
func Unstable(t testing.TB, _ string) int {
	skip.For(t, "only Linux says what is not on the disk")
	return 0
}
