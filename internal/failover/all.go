package failover

import (
	"context"
	"errors"
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
	for i, c := range cases {
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
			g, err = s.Start(startCtx, dir+"."+string(rune('a'+i)))
			cancel()
		}
		if err != nil {
			results = append(results, Result{System: s.Name, Case: c, Failed: err.Error()})
			g = nil
			continue
		}
		r := Measure(ctx, p, s.Name, g, c)
		if r.Bad() {
			if err := stop(); err != nil {
				r.Failed = errors.Join(errors.New(r.Failed), err).Error()
			}
		}
		results = append(results, r)
	}
	if err := stop(); err != nil && len(results) > 0 {
		last := &results[len(results)-1]
		last.Failed = errors.Join(errors.New(last.Failed), err).Error()
	}
	return results
}
