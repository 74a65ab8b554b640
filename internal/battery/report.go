package battery

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"cohort/internal/proc"
)

// Report prints what came of the rounds.
func Report(out io.Writer, seed uint64, rounds []*Round) error {
	var took time.Duration
	total, acked := map[string]int64{}, map[string]int64{}
	staleReads := map[string]int{}
	seen := map[string]int{}
	byFault := map[string][]time.Duration{}
	faults, findings := 0, 0
	var undecided []string
	for _, r := range rounds {
		took += r.Took
		faults += len(r.Struck)
		findings += len(r.Findings)
		for w, n := range r.Total {
			total[w] += n
			acked[w] += r.Acked[w]
		}
		for number, n := range r.Errors {
			seen[number] += n
		}
		for w, v := range r.Verdicts {
			staleReads[w] += v.Stale
			for _, u := range v.Undecided {
				undecided = append(undecided, fmt.Sprintf("round %d: %s", r.Number, u))
			}
		}
		for i, f := range r.Struck {
			byFault[f.Name] = append(byFault[f.Name], r.Gaps[i])
		}
	}
	fmt.Fprintf(out, "\nseed %d: %d rounds, %d faults, %s, %d findings\n\n", seed, len(rounds), faults, took.Round(time.Second), findings)
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "workload\toperations\tacknowledged\tstale reads (allowed)")
	for _, w := range slices.Sorted(maps.Keys(total)) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\n", w, total[w], acked[w], staleReads[w])
	}
	fmt.Fprintln(t, "\nfault\ttimes\twithout writes, p50\tmax")
	for _, f := range slices.Sorted(maps.Keys(byFault)) {
		g := byFault[f]
		slices.Sort(g)
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", f, len(g), g[len(g)/2].Round(time.Millisecond), g[len(g)-1].Round(time.Millisecond))
	}
	fmt.Fprintln(t, "\nerror\ttimes")
	for _, number := range slices.Sorted(maps.Keys(seen)) {
		fmt.Fprintf(t, "%s\t%d\n", number, seen[number])
	}
	for _, u := range undecided {
		fmt.Fprintln(t, "not decided:", u)
	}
	return t.Flush()
}

// maxShown bounds what is printed of a round's findings: one fault tends to show
// many times.
const maxShown = 10

// ReportFindings prints a round's findings and how to replay it.
func ReportFindings(out io.Writer, r *Round, where, replay string) {
	fmt.Fprintf(out, "\nround %d: %d findings\n", r.Number, len(r.Findings))
	for _, f := range r.Findings[:min(len(r.Findings), maxShown)] {
		fmt.Fprintf(out, "  %.2000s\n", f)
	}
	for _, s := range r.Struck {
		fmt.Fprintf(out, "  %8.3fs to %8.3fs  %s  %s\n", s.At.Seconds(), s.Until.Seconds(), s.Name, s.What)
	}
	fmt.Fprintf(out, "histories and logs: %s\nreplay: %s\n", where, replay)
}

// Save writes a round's faults, findings and histories to a directory.
func (r *Round) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("battery: %w", err)
	}
	files := map[string]any{"faults": r.Struck, "findings": r.Findings}
	maps.Copy(files, r.History)
	for _, name := range slices.SortedFunc(maps.Keys(files), cmp.Compare[string]) {
		text, err := json.MarshalIndent(files[name], "", " ")
		if err != nil {
			return fmt.Errorf("battery: %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".json"), text, 0o644); err != nil {
			return fmt.Errorf("battery: %w", err)
		}
	}
	return nil
}

// SaveLogs ends the members' processes, which write their stacks to their logs as
// they end, and copies all logs out of the group's directory.
func (g *Group) SaveLogs(ctx context.Context, dir string) error {
	if now, err := g.c.Status(ctx); err == nil {
		for _, m := range now {
			if id, err := proc.Of(m.Pid); m.Pid != 0 && err == nil && id.Signal(syscall.SIGQUIT) == nil {
				waitCtx, cancel := context.WithTimeout(ctx, 20*time.Second)
				_ = id.Wait(waitCtx)
				cancel()
			}
		}
	}
	for _, m := range g.members {
		for _, pattern := range []string{"*.log", "*.err", "*/*.err", "*/*.log"} {
			names, err := filepath.Glob(filepath.Join(m.Dir, pattern))
			if err != nil {
				return err
			}
			for _, name := range names {
				text, err := os.ReadFile(name)
				if err != nil {
					return fmt.Errorf("battery: %w", err)
				}
				to := m.Name + "-" + strings.ReplaceAll(strings.TrimPrefix(name, m.Dir+"/"), "/", "-")
				if err := os.WriteFile(filepath.Join(dir, to), text, 0o644); err != nil {
					return fmt.Errorf("battery: %w", err)
				}
			}
		}
	}
	return nil
}
