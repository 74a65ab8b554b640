package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/loadgen"
)

// Plan is what to measure.
type Plan struct {
	Dir         string // scratch directory; each system gets a fresh one below it
	Systems     []System
	Workloads   []loadgen.Workload
	Protocol    loadgen.Protocol
	Connections []int
	Rows        int
	Warmup      time.Duration // before each window of writes
	Window      time.Duration // of writes; the target figures need 30 s or more
	ReadWarmup  time.Duration // before each window of reads
	ReadWindow  time.Duration // of reads: nothing builds up behind them
	Rounds      int           // how often the whole comparison is repeated
	Drain       time.Duration // how long to wait for the members between windows
	Logger      zerolog.Logger
}

// Cell is one measurement: a system, a way in, a workload, a load.
type Cell struct {
	Round       int
	Workload    string
	System      string
	Endpoint    string
	Connections int

	Rate      float64 // answered per second
	Sustained float64 // applied by every member per second; equals Rate for reads
	Retried   uint64  // rolled back by conflicts, deadlocks and lock waits
	P50, P99  time.Duration
	Mean      time.Duration
	// Backlog is by how many transactions the slowest member was behind the
	// fastest, at the two edges of the window.
	BacklogStart, BacklogEnd uint64
	// CPU per counted transaction, by process group.
	CPU map[string]time.Duration
	// Foreign is how many processors others kept busy meanwhile: the machine
	// was quiet when it is near 0, and the figures are worth little otherwise.
	Foreign float64
	// Failed says why there is no figure.
	Failed string `json:",omitempty"`
}

// Run measures everything in the plan. A system that fails to start or a cell
// that fails is reported as such and does not end the run; each is called with
// every finished cell.
func Run(ctx context.Context, p Plan, each func(Cell)) ([]Cell, error) {
	var cells []Cell
	for round := range max(p.Rounds, 1) {
		for _, w := range p.Workloads {
			// Systems take turns within each workload, so that a change of the
			// machine's speed in the course of an hour hits all of them.
			for i := range p.Systems {
				s := p.Systems[(i+round)%len(p.Systems)]
				more, err := runSystem(ctx, p, s, w, round, each)
				cells = append(cells, more...)
				if ctx.Err() != nil {
					return cells, context.Cause(ctx)
				}
				if err != nil {
					p.Logger.Error().Err(err).Str("system", s.Label()).Str("workload", w.Name).Msg("not measured")
					failed := Cell{Round: round, Workload: w.Name, System: s.Label(), Failed: err.Error()}
					cells = append(cells, failed)
					each(failed)
				}
			}
		}
	}
	return cells, nil
}

func runSystem(ctx context.Context, p Plan, s System, w loadgen.Workload, round int, each func(Cell)) (cells []Cell, err error) {
	dir := filepath.Join(p.Dir, fmt.Sprintf("%s-%s-%d", s.slug(), w.Name, round))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	p.Logger.Info().Str("system", s.Label()).Str("workload", w.Name).Msg("starting")
	running, err := s.Start(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("bench: start %s: %w", s.Label(), err)
	}
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		stopErr := running.Stop(stopCtx)
		if stopErr == nil {
			stopErr = os.RemoveAll(dir)
		}
		err = errors.Join(err, stopErr)
	}()

	schema := loadgen.Schema{Database: "bench", Rows: p.Rows}
	if err := schema.Prepare(ctx, running.Load); err != nil {
		return nil, err
	}
	count, err := openCounters(ctx, running)
	if err != nil {
		return nil, err
	}
	defer count.close()

	for _, n := range p.Connections {
		for _, e := range running.Endpoints {
			if err := p.drained(ctx, count); err != nil {
				return cells, err
			}
			cell, err := measure(ctx, p, w, schema, e, n, count)
			cell.Round, cell.Workload, cell.System = round, w.Name, s.Label()
			if err != nil {
				if ctx.Err() != nil {
					return cells, err
				}
				cell.Failed = err.Error()
			}
			cells = append(cells, cell)
			each(cell)
		}
	}
	return cells, nil
}

func (p Plan) drained(ctx context.Context, count *counters) error {
	ctx, cancel := context.WithTimeout(ctx, p.Drain)
	defer cancel()
	return count.drain(ctx)
}

func measure(ctx context.Context, p Plan, w loadgen.Workload, schema loadgen.Schema, e Endpoint, connections int, count *counters) (Cell, error) {
	cell := Cell{Endpoint: e.Name, Connections: connections}
	o := loadgen.Options{
		Target: e.Target, Workload: w, Schema: schema, Protocol: p.Protocol,
		Connections: connections, Warmup: p.Warmup, Window: p.Window,
	}
	if !w.Writes {
		o.Warmup, o.Window = p.ReadWarmup, p.ReadWindow
	}
	var start, end edge
	var began time.Time
	var elapsed time.Duration
	o.AtStart = func(ctx context.Context) (err error) {
		start, err = count.read(ctx)
		began = time.Now()
		return err
	}
	o.AtEnd = func(ctx context.Context) (err error) {
		end, err = count.read(ctx)
		elapsed = time.Since(began)
		return err
	}
	result, err := loadgen.Run(ctx, o)
	if err != nil {
		return cell, err
	}
	cell.Rate = result.Rate()
	cell.Retried = result.Retried
	cell.P50, cell.P99, cell.Mean = result.Latency.Quantile(0.50), result.Latency.Quantile(0.99), result.Latency.Mean()
	cell.BacklogStart, cell.BacklogEnd = start.backlog(), end.backlog()

	counted := float64(result.Transactions)
	cell.Sustained = cell.Rate
	if w.Writes {
		// What the slowest member had at the end, minus what the slowest had
		// at the start: every transaction in it is applied everywhere, and a
		// backlog that was there before the window earns nobody anything.
		counted = float64(end.least() - start.least())
		cell.Sustained = counted / elapsed.Seconds()
	}
	cell.Foreign = foreign(start, end).Seconds() / elapsed.Seconds()
	cell.CPU = map[string]time.Duration{}
	for group, used := range end.cpu {
		if counted > 0 {
			cell.CPU[group] = time.Duration(float64(used-start.cpu[group]) / counted)
		}
	}
	return cell, nil
}
