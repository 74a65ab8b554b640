package failover

import (
	"context"
	"path/filepath"
	"strings"
	"time"
)

// MeasureAll runs the cases on one system, one after the other on the same
// group. A group that a case left broken is replaced by a new one.
func MeasureAll(ctx context.Context, p Plan, s System, dir string, cases []Case) []Result {
	var results []Result
	var g Group
	stop := func() error {
		if g == nil {
			return nil
		}
		// Also after an interrupt nothing may be left running.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		err := g.Close(ctx)
		g = nil
		return err
	}
	for _, c := range cases {
		if why := s.NotRun(c); why != "" {
			results = append(results, Result{System: s.Name, Case: c, NotRun: why})
			continue
		}
		if ctx.Err() != nil {
			results = append(results, Result{System: s.Name, Case: c, NotRun: ctx.Err().Error()})
			continue
		}
		var err error
		if g == nil {
			startCtx, cancel := context.WithTimeout(ctx, 5*time.Minute)
			g, err = s.Start(startCtx, filepath.Join(dir, string(c)))
			cancel()
		}
		if err != nil {
			results = append(results, Result{System: s.Name, Case: c, Failed: err.Error()})
			g = nil
			continue
		}
		r := Measure(ctx, p, s.Name, g, c)
		if r.Bad() {
			r.fail(stop())
		}
		results = append(results, r)
	}
	if err := stop(); len(results) > 0 {
		results[len(results)-1].fail(err)
	}
	return results
}

// fail adds an error to what went wrong already.
func (r *Result) fail(err error) {
	if err != nil {
		r.Failed = strings.TrimPrefix(r.Failed+"; "+err.Error(), "; ")
	}
}
