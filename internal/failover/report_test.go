package failover

import (
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := 100; i > 0; i-- {
		hundred = append(hundred, time.Duration(i))
	}
	for _, c := range []struct {
		values []time.Duration
		share  float64
		want   time.Duration
	}{
		{hundred, 0.5, 50}, {hundred, 0.99, 99}, {hundred, 1, 100},
		{[]time.Duration{3, 1, 2}, 0.5, 2}, {[]time.Duration{3, 1, 2}, 0.99, 3},
		{[]time.Duration{1, 2}, 0.5, 1}, {[]time.Duration{7}, 0.5, 7}, {[]time.Duration{7}, 0.99, 7},
	} {
		if got := quantile(c.values, c.share); got != c.want {
			t.Errorf("%v of %d values: %d, want %d", c.share, len(c.values), got, c.want)
		}
	}
}

func TestReport(t *testing.T) {
	ms := time.Millisecond
	var b strings.Builder
	err := Report(&b, []Result{
		{
			System: "x", Case: Mysqld, Limit: time.Minute,
			// What did not recover has no figure, whatever was last seen.
			Runs: []Run{
				{Gap: 900 * ms, Recovered: true, ReturnGap: 20 * ms}, {Gap: 5 * time.Hour},
				{Gap: 1100 * ms, Recovered: true, ReturnGap: 30 * ms}, {Gap: 1000 * ms, Recovered: true},
			},
			Errors: map[uint16]int{3101: 1, 1213: 2}, Dropped: 3,
			Audit: &Audit{Acked: 500, Unknown: 4, Written: 1, Lost: 5, Doubled: 6, Ghosts: 7, Differ: 1},
		},
		{System: "x", Case: Cut, NotRun: "no namespaces"},
		{System: "x", Case: Stop, Failed: "it broke", Limit: time.Minute, Runs: []Run{{}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| x | mysqld | 4 | 1000 | 1100 | 1100 | 1 | 30 | 1213×2, 3101×1 | 3 | 500 | 4, 1 | 5 | 6 | 8 |\n",
		"| x | cut | not run |",
		"- x, mysqld: no recovery within 1m0s in 1 of 4 runs\n",
		"- x, cut: not run: no namespaces\n",
		"| x | stop | 1 | – | – | – | 1 | – | none | 0 | not read | | | | |\n",
		"- x, stop: ended early: it broke\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	lines := strings.Split(b.String(), "\n")
	for _, l := range lines[:5] {
		if strings.Count(l, "|") != strings.Count(lines[0], "|") {
			t.Errorf("a row of another width: %s", l)
		}
	}
}

func TestBad(t *testing.T) {
	for _, c := range []struct {
		r    Result
		want bool
	}{
		{Result{Audit: &Audit{Acked: 1, Unknown: 1}}, false},
		{Result{NotRun: "no"}, false},
		{Result{Failed: "x"}, true},
		{Result{Audit: &Audit{Doubled: 1}}, true},
	} {
		if c.r.Bad() != c.want {
			t.Errorf("%+v", c.r)
		}
	}
}
