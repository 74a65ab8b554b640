package main

import (
	"runtime"
	"testing"
)

func TestShareProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(before)
	shareProcessors(func(string) string { return "4" })
	if n := runtime.GOMAXPROCS(0); n != 4 {
		t.Errorf("%d processors, though GOMAXPROCS was set", n)
	}
	for _, want := range []int{2, 1, 1} {
		shareProcessors(func(string) string { return "" })
		if n := runtime.GOMAXPROCS(0); n != want {
			t.Errorf("%d processors instead of %d", n, want)
		}
	}
}
