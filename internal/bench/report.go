package bench

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Way is a row of a table: one system (its label) through one endpoint.
type Way struct{ System, Endpoint string }

type key struct {
	workload    string
	way         Way
	connections int
}

// Report writes the cells as Markdown: one table of rates and latencies and
// one of CPU time for each workload; ratios are of the two given ways. With several rounds each figure is the
// median of its rounds.
func Report(out io.Writer, cells []Cell, direct, routed Way) error {
	w := &errWriter{w: out}
	var workloads []string
	var ways []Way
	var loads []int
	grouped := map[key][]Cell{}
	for _, c := range cells {
		if !slices.Contains(workloads, c.Workload) {
			workloads = append(workloads, c.Workload)
		}
		if c.Failed != "" {
			w.printf("not measured: %s, %s, %s, %d connections: %s\n\n", c.Workload, c.System, c.Endpoint, c.Connections, c.Failed)
			continue
		}
		k := key{c.Workload, Way{c.System, c.Endpoint}, c.Connections}
		if !slices.Contains(ways, k.way) {
			ways = append(ways, k.way)
		}
		if !slices.Contains(loads, c.Connections) {
			loads = append(loads, c.Connections)
		}
		grouped[k] = append(grouped[k], c)
	}
	slices.Sort(loads)
	for _, workload := range workloads {
		at := func(v Way, n int) (Cell, bool) { return median(grouped[key{workload, v, n}]) }
		rates(w, workload, ways, loads, at, direct, routed)
		processes(w, ways, loads, at)
	}
	return w.err
}

func rates(w *errWriter, workload string, ways []Way, loads []int, at func(Way, int) (Cell, bool), direct, routed Way) {
	w.printf("### %s\n\n", workload)
	w.printf("| connections | system | through | tx/s applied everywhere | answered/s | p50 ms | p99 ms | of %s | of %s | backlog at start, end | retried | processors busy elsewhere |\n", direct.Endpoint, routed.Endpoint)
	w.printf("|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, n := range loads {
		for _, v := range ways {
			c, ok := at(v, n)
			if !ok {
				continue
			}
			ratio := func(of Way) string {
				if ref, ok := at(of, n); ok && ref.Sustained > 0 {
					return fmt.Sprintf("%.2f", c.Sustained/ref.Sustained)
				}
				return "–"
			}
			w.printf("| %d | %s | %s | %.0f | %.0f | %s | %s | %s | %s | %d, %d | %d | %.1f |\n",
				n, c.System, c.Endpoint, c.Sustained, c.Rate, ms(c.P50), ms(c.P99),
				ratio(direct), ratio(routed), c.BacklogStart, c.BacklogEnd, c.Retried, c.Foreign)
		}
	}
	w.printf("\n")
}

// processes shows where the CPU time goes.
func processes(w *errWriter, ways []Way, loads []int, at func(Way, int) (Cell, bool)) {
	groups := map[string]bool{}
	for _, v := range ways {
		for _, n := range loads {
			if c, ok := at(v, n); ok {
				for g := range c.CPU {
					groups[g] = true
				}
			}
		}
	}
	names := slices.Sorted(maps.Keys(groups))
	if len(names) == 0 {
		return
	}
	w.printf("CPU time per transaction, µs:\n\n| connections | system | through | %s | all |\n", strings.Join(names, " | "))
	w.printf("|---:|---|---|%s\n", strings.Repeat("---:|", len(names)+1))
	for _, n := range loads {
		for _, v := range ways {
			c, ok := at(v, n)
			if !ok {
				continue
			}
			w.printf("| %d | %s | %s |", n, c.System, c.Endpoint)
			var all time.Duration
			for _, g := range names {
				if used, ok := c.CPU[g]; ok {
					w.printf(" %d |", used.Microseconds())
					all += used
				} else {
					w.printf(" |")
				}
			}
			w.printf(" %d |\n", all.Microseconds())
		}
	}
	w.printf("\n")
}

// median picks the round whose sustained rate is the middle one, so that the
// figures of a row belong together.
func median(rounds []Cell) (Cell, bool) {
	if len(rounds) == 0 {
		return Cell{}, false
	}
	sorted := slices.SortedFunc(slices.Values(rounds), func(a, b Cell) int { return cmp.Compare(a.Sustained, b.Sustained) })
	return sorted[(len(sorted)-1)/2], true
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond))
}

type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) printf(format string, args ...any) {
	if e.err == nil {
		_, e.err = fmt.Fprintf(e.w, format, args...)
	}
}
