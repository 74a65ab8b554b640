package bench

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	peer, ours := Way{"Group Replication 1/1", EndpointDirect}, Way{"cohort 1/1", EndpointPrimary}
	routed := Way{"Group Replication 1/1", EndpointRouter}
	cell := func(w Way, n int, rate float64) Cell {
		return Cell{
			Workload: "update", System: w.System, Endpoint: w.Endpoint, Connections: n,
			Rate: rate * 2, Sustained: rate, P50: time.Millisecond, P99: 2500 * time.Microsecond,
			BacklogStart: 1, BacklogEnd: 2, CPU: map[string]time.Duration{"a": 10 * time.Microsecond, "b": 5 * time.Microsecond},
		}
	}
	var b strings.Builder
	err := Report(&b, []Cell{
		cell(peer, 64, 1000), cell(routed, 64, 500), cell(ours, 64, 900), cell(ours, 64, 1500), cell(ours, 64, 1100),
		{Workload: "update", System: "x", Endpoint: "y", Connections: 1, Failed: "it broke"},
	}, peer, routed)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"### update",
		"not measured: update, x, y, 1 connections: it broke",
		"| 64 | Group Replication 1/1 | direct | 1000 | 2000 | 1.00 | 2.50 | 1.00 | 2.00 | 1, 2 | 0 | 0.0 |",
		"| 64 | cohort 1/1 | primary's member | 1100 | 2200 | 1.00 | 2.50 | 1.10 | 2.20 | 1, 2 | 0 | 0.0 |", // the median of three
		"| 64 | cohort 1/1 | primary's member | 10 | 5 | 15 |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no line %q in\n%s", want, b.String())
		}
	}
}

func TestEdge(t *testing.T) {
	e := edge{applied: []uint64{10, 7, 9}}
	if e.least() != 7 || e.most() != 10 || e.backlog() != 3 {
		t.Errorf("%d %d %d", e.least(), e.most(), e.backlog())
	}
}

func TestCPUTime(t *testing.T) {
	if _, err := cpuTime(os.Getpid()); err != nil {
		t.Error(err)
	}
	if _, err := cpuTime(1 << 30); err == nil {
		t.Error("a process that is not there used CPU time")
	}
}
