package loadgen

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"cohort/internal/pause"
)

// Options describe one measurement.
type Options struct {
	Target      Target
	Workload    Workload
	Schema      Schema
	Protocol    Protocol
	Connections int
	Warmup      time.Duration // load before the window, not counted
	Window      time.Duration // what is counted
	// AtStart and AtEnd run while the load runs on, at the two edges of the
	// window: the place to read the servers' own counters. May be nil.
	AtStart, AtEnd func(context.Context) error
}

// Result is what the clients saw within the window.
type Result struct {
	Transactions uint64        // answered with success
	Retried      uint64        // rolled back by a conflict, deadlock or lock wait timeout
	Elapsed      time.Duration // between the two edges
	Latency      Histogram     // of the successful ones
}

// Rate is successful transactions per second.
func (r *Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Transactions) / r.Elapsed.Seconds()
}

// Retryable reports whether a client is expected to run the transaction again:
// deadlock, lock wait timeout, certification conflict.
func Retryable(err error) bool {
	var se *ServerError
	if !errors.As(err, &se) {
		return false
	}
	switch se.Number {
	case 1205, 1213, 3101, 1180:
		return true
	}
	return false
}

const (
	phaseWarmup int32 = iota
	phaseWindow
	phaseTail // the load goes on while the counters are read
	phaseOver
)

// Run opens the connections, warms up, measures and closes. The first error
// that is not Retryable ends it.
func Run(ctx context.Context, o Options) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	type worker struct {
		conn    *Conn
		run     func() error
		done    uint64
		retried uint64
		latency Histogram
	}
	o.Target.Schema = o.Schema.Database
	workers := make([]*worker, o.Connections)
	for i := range workers {
		c, err := Dial(ctx, o.Target)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		run, err := o.Workload.open(c, o.Schema, rand.New(rand.NewPCG(uint64(i), rand.Uint64())), o.Protocol)
		if err != nil {
			return nil, err
		}
		workers[i] = &worker{conn: c, run: run}
	}

	var phase atomic.Int32
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				err := w.run()
				switch now := phase.Load(); {
				case now == phaseOver:
					return
				case err == nil && now == phaseWindow:
					w.done++
					w.latency.Record(time.Since(began))
				case err == nil:
				case Retryable(err):
					if now == phaseWindow {
						w.retried++
					}
				default:
					cancel(fmt.Errorf("loadgen: %s: %w", o.Workload.Name, err))
					return
				}
			}
		})
	}
	// A cancelled run must not hang in a read.
	stop := context.AfterFunc(ctx, func() {
		for _, w := range workers {
			_ = w.conn.SetDeadline(time.Unix(1, 0))
		}
	})
	defer stop()

	result := &Result{}
	err := func() error {
		if err := pause.For(ctx, o.Warmup); err != nil {
			return err
		}
		if o.AtStart != nil {
			if err := o.AtStart(ctx); err != nil {
				return err
			}
		}
		began := time.Now()
		phase.Store(phaseWindow)
		if err := pause.For(ctx, o.Window); err != nil {
			return err
		}
		phase.Store(phaseTail)
		result.Elapsed = time.Since(began)
		if o.AtEnd != nil {
			return o.AtEnd(ctx)
		}
		return nil
	}()
	if err != nil {
		cancel(err)
	}
	phase.Store(phaseOver)
	wg.Wait()
	if err != nil {
		return nil, err
	}
	for _, w := range workers {
		result.Transactions += w.done
		result.Retried += w.retried
		result.Latency.Merge(&w.latency)
	}
	return result, nil
}
