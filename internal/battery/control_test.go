package battery

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/mysqldtest"
)

func control(t *testing.T, settings ...string) *Single {
	t.Helper()
	s, err := StartSingle(t.Context(), mysqldtest.Installation(t), t.TempDir(), settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background(), true); err != nil {
			t.Error(err)
		}
	})
	return s
}

func plan() Plan {
	return Plan{Seed: 4, Faults: 3, Hold: time.Second, Apart: time.Second, Patience: 2 * time.Minute, Logger: zerolog.Nop()}
}

// A stock server that is killed and stopped under load shows no anomaly: the
// checkers accuse nobody wrongly, and what a group shows is not MySQL's.
func TestControl(t *testing.T) {
	s := control(t)
	r, err := RunRound(t.Context(), s, plan(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		t.Error(f)
	}
	if len(r.Struck) != 3 {
		t.Errorf("faults: %+v", r.Struck)
	}
	for name, v := range r.Verdicts {
		if v.Stale > 0 || len(v.Undecided) > 0 {
			t.Errorf("%s: a single server has no stale reads: %+v", name, v)
		}
	}
}

// The same server without isolation is found out, by the bank and by the graph.
func TestControlWithoutIsolation(t *testing.T) {
	s := control(t, "transaction_isolation=READ-UNCOMMITTED")
	p := plan()
	p.Faults, p.Workloads = 0, []string{"append", "bank"}
	found := map[string]bool{}
	for round := 1; !found["append"] || !found["bank"]; round++ {
		if round > 20 {
			t.Fatalf("not found in %d rounds: %v", round, found)
		}
		r, err := RunRound(t.Context(), s, p, round)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range r.Findings {
			found[f.Workload] = true
		}
	}
}
