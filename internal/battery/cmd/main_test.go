package main

import (
	"testing"

	"cohort/internal/battery"
)

func TestMore(t *testing.T) {
	p := battery.Plan{First: 7, Rounds: 2}
	for _, c := range []struct {
		total, n, struck int
		want             bool
	}{
		{0, 7, 0, true}, {0, 8, 900, true}, {0, 9, 0, false},
		{200, 7, 0, true}, {200, 99, 199, true}, {200, 8, 200, false},
	} {
		if got := more(p, options{total: c.total}, c.n, c.struck); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}
