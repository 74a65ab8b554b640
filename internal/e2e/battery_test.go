package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/battery"
	"cohort/internal/skip"
)

// A short round of the battery (docs/robustness.md): every workload and checker,
// a few faults of a fixed seed. Only an anomaly fails it, or a group that does
// not come back at all.
func TestBattery(t *testing.T) {
	dir, err := os.MkdirTemp("", "cohort-battery-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	g, err := battery.StartGroup(ctx, battery.GroupOptions{Dir: dir, Members: 3, Net: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := g.Close(ctx, false); err != nil {
			t.Error(err)
		}
	}()
	for _, m := range g.Missing() {
		skip.Note(t, m)
	}
	p := battery.Plan{
		Seed: 20, Faults: 4, Hold: 3 * time.Second, Apart: time.Second, Patience: patience, Logger: zerolog.Nop(),
		Only: []string{"kill mysqld", "kill proxy", "kill both", "stop both", "switchover", "isolate", "kill everything"},
	}
	r, err := battery.RunRound(ctx, g, p, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Struck {
		t.Logf("%8.3fs to %8.3fs  %s  %s", f.At.Seconds(), f.Until.Seconds(), f.Name, f.What)
	}
	t.Logf("acknowledged: %v of %v", r.Acked, r.Total)
	for _, f := range r.Findings[:min(len(r.Findings), 10)] {
		t.Errorf("%.2000s", f)
	}
	if keep := os.Getenv("COHORT_E2E_LOGS"); keep != "" && t.Failed() {
		where := filepath.Join(keep, "battery")
		if err := r.Save(where); err != nil {
			t.Error(err)
		}
		if err := g.SaveLogs(ctx, where); err != nil {
			t.Error(err)
		}
	}
}
