package bench

import (
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/loadgen"
	"cohort/internal/mysqldtest"
)

// All workloads run on a real server with both protocols, and what the clients
// were answered is what the server counts.
func TestRunOnOneServer(t *testing.T) {
	in := mysqldtest.Installation(t)
	for name, protocol := range map[string]loadgen.Protocol{"prepared": loadgen.Prepared, "text": loadgen.TextProtocol} {
		t.Run(name, func(t *testing.T) {
			cells, err := Run(t.Context(), Plan{
				Dir: t.TempDir(), Systems: []System{Single(in, Relaxed)}, Workloads: loadgen.Workloads(), Protocol: protocol,
				Connections: []int{1, 4}, Rows: 500, Warmup: 200 * time.Millisecond, Window: time.Second,
				ReadWarmup: 200 * time.Millisecond, ReadWindow: time.Second, Drain: time.Minute, Logger: zerolog.Nop(),
			}, func(Cell) {})
			if err != nil {
				t.Fatal(err)
			}
			if want := len(loadgen.Workloads()) * 2; len(cells) != want {
				t.Fatalf("%d cells, want %d", len(cells), want)
			}
			for _, c := range cells {
				if c.Failed != "" || c.Rate <= 0 || c.P50 <= 0 || c.P99 < c.P50 {
					t.Errorf("%+v", c)
				}
				// Counted by clients and by the server over the same window, but
				// for its edges, which a busy machine blurs.
				if w, _ := loadgen.WorkloadNamed(c.Workload); w.Writes && (c.Sustained < c.Rate*0.5 || c.Sustained > c.Rate*1.9) {
					t.Errorf("%s: the server counts %.0f/s, the clients %.0f/s", c.Workload, c.Sustained, c.Rate)
				}
			}
		})
	}
}
