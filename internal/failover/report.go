package failover

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// quantile is the smallest value that at least the given share of the values
// does not exceed. It needs one value at least.
func quantile(values []time.Duration, share float64) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	i := int(share * float64(len(sorted)))
	if float64(i) == share*float64(len(sorted)) {
		i--
	}
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// Report writes the results as one Markdown table and, below it, what was not
// measured and what went wrong.
func Report(out io.Writer, results []Result) error {
	var b strings.Builder
	b.WriteString("| system | case | runs | p50 ms | p99 ms | max ms | not recovered | max ms at the return | errors | connections dropped | acknowledged | unknown, of them written | lost | doubled | other differences |\n")
	b.WriteString("|---|---|---:|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|\n")
	var notes []string
	for _, r := range results {
		if r.NotRun != "" {
			fmt.Fprintf(&b, "| %s | %s | not run |%s\n", r.System, r.Case, strings.Repeat(" |", 12))
			notes = append(notes, fmt.Sprintf("%s, %s: not run: %s", r.System, r.Case, r.NotRun))
			continue
		}
		row(&b, r)
		if n := unrecovered(r); n > 0 {
			notes = append(notes, fmt.Sprintf("%s, %s: no recovery within %s in %d of %d runs", r.System, r.Case, r.Limit, n, len(r.Runs)))
		}
		if r.Failed != "" {
			notes = append(notes, fmt.Sprintf("%s, %s: ended early: %s", r.System, r.Case, r.Failed))
		}
	}
	if len(notes) > 0 {
		b.WriteString("\n- " + strings.Join(notes, "\n- ") + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func unrecovered(r Result) int {
	n := 0
	for _, run := range r.Runs {
		n += one(!run.Recovered)
	}
	return n
}

func row(b *strings.Builder, r Result) {
	var gaps, returns []time.Duration
	for _, run := range r.Runs {
		if run.Recovered {
			gaps, returns = append(gaps, run.Gap), append(returns, run.ReturnGap)
		}
	}
	figure := func(values []time.Duration, share float64) string {
		if len(values) == 0 {
			return "–"
		}
		return fmt.Sprintf("%.0f", float64(quantile(values, share))/float64(time.Millisecond))
	}
	fmt.Fprintf(b, "| %s | %s | %d | %s | %s | %s | %d | %s | %s | %d |",
		r.System, r.Case, len(r.Runs), figure(gaps, 0.5), figure(gaps, 0.99), figure(gaps, 1),
		unrecovered(r), figure(returns, 1), errorList(r.Errors), r.Dropped)
	if a := r.Audit; a != nil {
		fmt.Fprintf(b, " %d | %d, %d | %d | %d | %d |\n", a.Acked, a.Unknown, a.Written, a.Lost, a.Doubled, a.Ghosts+a.Differ)
	} else {
		b.WriteString(" not read | | | | |\n")
	}
}

// errorList is "none" or "1213×2, 3101×1", in the order of the numbers.
func errorList(errs map[uint16]int) string {
	var parts []string
	for _, number := range slices.Sorted(maps.Keys(errs)) {
		parts = append(parts, fmt.Sprintf("%d×%d", number, errs[number]))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
