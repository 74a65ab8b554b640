package battery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/loadgen"
	"cohort/internal/pause"
	"cohort/internal/proc"
)

// Plan says what to do to a system.
type Plan struct {
	Seed      uint64
	First     int // number of the first round: a round is replayed by itself
	Rounds    int
	Faults    int           // in a round
	Hold      time.Duration // a fault lasts up to this long
	Apart     time.Duration // and the next comes up to this much later
	Only      []string      // faults by name; empty: all
	Workloads []string      // by name; empty: all
	Before    bool          // half of the sessions of register are under BEFORE
	Patience  time.Duration // for everything to work again after the faults
	Logger    zerolog.Logger
}

// Struck is a fault that was done.
type Struck struct {
	At    time.Duration `json:"at"` // since the round's beginning
	Name  string        `json:"name"`
	What  string        `json:"what"`
	Until time.Duration `json:"until"` // it was undone
}

// Round is what came of one round.
type Round struct {
	Number   int
	Took     time.Duration
	Struck   []Struck
	Total    map[string]int64 // operations by workload
	Acked    map[string]int64
	Errors   map[string]int  // seen by clients, by MySQL's number
	Gaps     []time.Duration // longest time without an acknowledgement after each fault
	Verdicts map[string]Verdict
	Findings []Finding
	History  map[string]any
}

// workloads makes all of them anew.
func workloads(only []string) []workload {
	all := []workload{newListAppend(), newBank(), newFork(), newNotes(), newRegister()}
	return slices.DeleteFunc(all, func(w workload) bool { return len(only) > 0 && !slices.Contains(only, w.name()) })
}

// RunRound does one round: clients start, faults come and go, everything is
// healed, clients go on and stop, and what they saw is checked. An error means
// that the round could not be done.
func RunRound(ctx context.Context, s System, p Plan, number int) (*Round, error) {
	begun := time.Now()
	r := &Round{Number: number, Total: map[string]int64{}, Acked: map[string]int64{}, Errors: map[string]int{}, Verdicts: map[string]Verdict{}, History: map[string]any{}}
	rng := rand.New(rand.NewPCG(p.Seed, uint64(number)))
	all := workloads(p.Workloads)
	schema := fmt.Sprintf("battery_%d", number)
	if err := prepare(ctx, s, schema, all, p.Patience); err != nil {
		return nil, err
	}

	l := startLoad(ctx, s, schema, begun, all, p.Before, rng)
	defer l.stop()
	if err := l.progress(ctx, p.Patience); err != nil {
		return nil, fmt.Errorf("battery: before the faults: %w", err)
	}
	r.Struck = strike(ctx, s, p, begun, rng)
	healCtx, cancel := context.WithTimeout(ctx, p.Patience)
	defer cancel()
	err := s.Heal(healCtx)
	if err == nil {
		err = s.Ready(healCtx)
	}
	if err != nil && ctx.Err() == nil {
		r.find("group", "not ready after the faults", err)
	}
	if err := l.progress(ctx, p.Patience); err != nil && ctx.Err() == nil {
		r.find("group", "no writes after the faults", err)
	}
	l.stop()
	r.Gaps = gaps(l.acks, r.Struck)
	for i, w := range all {
		r.Total[w.name()], r.Acked[w.name()] = l.counts[i].total.Load(), l.counts[i].acked.Load()
		for number, n := range l.counts[i].errors {
			r.Errors[number] += n
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(r.Findings) == 0 {
		checkCtx, cancel := context.WithTimeout(ctx, p.Patience)
		defer cancel()
		if err := s.Check(checkCtx); err != nil {
			r.find("group", "members differ", err)
		}
	}
	if err := r.judge(ctx, s, schema, all); err != nil {
		r.find("group", "the final state cannot be read", err)
	}
	r.Took = time.Since(begun)
	return r, ctx.Err()
}

func (r *Round) find(workload, anomaly string, err error) {
	r.Findings = append(r.Findings, Finding{workload, anomaly, err.Error()})
}

// judge reads how it ended and runs the checkers.
func (r *Round) judge(ctx context.Context, s System, schema string, all []workload) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	at := s.Direct()[0]
	c, err := loadgen.Dial(ctx, at.At)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	for _, sql := range []string{"USE " + schema, "SET SESSION group_concat_max_len = 64000000"} {
		if _, err := c.Query(sql); err != nil {
			return err
		}
	}
	var errs []error
	for _, w := range all {
		if err := w.final(c.QueryString); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w.name(), err))
			r.History[w.name()] = w.history()
			continue
		}
		v := w.check()
		r.Verdicts[w.name()] = v
		r.Findings = append(r.Findings, v.Findings...)
		r.History[w.name()] = w.history()
	}
	return errors.Join(errs...)
}

// prepare makes the tables of a round, with patience for a group that has just
// been through one.
func prepare(ctx context.Context, s System, schema string, all []workload, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		return err
	}
	t := s.Clients()[0]
	c, err := loadgen.Dial(ctx, t.At)
	if err != nil {
		return fmt.Errorf("battery: %s: %w", t.Name, err)
	}
	defer func() { _ = c.Close() }()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	statements := []string{"CREATE DATABASE " + schema, "USE " + schema}
	for _, w := range all {
		statements = append(statements, w.setup()...)
	}
	for _, sql := range statements {
		if _, err := c.Query(sql); err != nil {
			return fmt.Errorf("battery: %.80s: %w", sql, err)
		}
	}
	return nil
}

// load is all clients of a round.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	all    []workload
	counts []*progress
	in     chan time.Duration
	acks   []time.Duration // valid after stop
	done   chan struct{}
	once   sync.Once
}

func startLoad(ctx context.Context, s System, schema string, base time.Time, all []workload, before bool, rng *rand.Rand) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel, all: all, in: make(chan time.Duration, 4096), done: make(chan struct{})}
	targets, direct := s.Clients(), s.Direct()
	var conns atomic.Int32
	start := func(w workload, c *client) {
		own := rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
		l.wg.Go(func() { c.run(ctx, w, own) })
	}
	for _, w := range all {
		done := &progress{acks: l.in}
		l.counts = append(l.counts, done)
		for i := range w.clients(len(targets)) {
			_, register := w.(*register)
			start(w, &client{id: i, schema: schema, base: base, targets: targets, at: i % len(targets), roam: true, before: before && register && i%2 == 1, conns: &conns, done: done})
		}
		if _, ok := w.(*bank); ok {
			aside := &progress{acks: nil} // says nothing about the group's availability
			for i := range direct {
				start(w, &client{id: 100 + i, schema: schema, base: base, targets: direct, at: i, direct: true, conns: &conns, done: aside})
			}
		}
	}
	go func() {
		defer close(l.done)
		for at := range l.in {
			l.acks = append(l.acks, at)
		}
	}()
	return l
}

// stop lets every operation that is under way have its answer.
func (l *load) stop() {
	l.once.Do(func() {
		l.cancel()
		l.wg.Wait()
		close(l.in)
		<-l.done
	})
}

// progress returns when every workload had some more writes acknowledged: reads
// are answered by a group that has stopped, too.
func (l *load) progress(ctx context.Context, patience time.Duration) error {
	const more = 10
	var from []int64
	for _, c := range l.counts {
		from = append(from, c.wrote.Load())
	}
	deadline := time.Now().Add(patience)
	for {
		var late []string
		for i, c := range l.counts {
			if c.wrote.Load() < from[i]+more {
				late = append(late, l.all[i].name())
			}
		}
		if len(late) == 0 {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("battery: clients of %v got no answers for %s: %w", late, patience, errors.Join(ctx.Err(), context.DeadlineExceeded))
		}
		_ = pause.For(ctx, 20*time.Millisecond)
	}
}

// strike does the round's faults. Some end before the next, some last into it,
// and sometimes the group has the time to recover in between.
func strike(ctx context.Context, s System, p Plan, base time.Time, rng *rand.Rand) []Struck {
	faults := s.Faults()
	faults = slices.DeleteFunc(faults, func(f Fault) bool {
		return len(p.Only) > 0 && !slices.Contains(p.Only, f.Name) || len(p.Only) == 0 && f.OnlyNamed
	})
	var struck []Struck
	type pending struct {
		i    int
		undo func(context.Context) error
	}
	var open []pending
	end := func(n int) {
		for ; n > 0 && len(open) > 0; n-- {
			o := open[0]
			open = open[1:]
			undoCtx, cancel := context.WithTimeout(ctx, 2*time.Minute)
			if err := o.undo(undoCtx); err != nil {
				p.Logger.Warn().Err(err).Str("fault", struck[o.i].Name).Msg("undo")
			}
			cancel()
			struck[o.i].Until = time.Since(base)
		}
	}
	for len(struck) < p.Faults && ctx.Err() == nil && len(faults) > 0 {
		_ = pause.For(ctx, time.Duration(rng.Float64()*float64(p.Apart)))
		f := faults[rng.IntN(len(faults))]
		at := time.Since(base)
		what, undo, err := f.Do(ctx, rng)
		if err != nil && !errors.Is(err, proc.ErrGone) {
			p.Logger.Warn().Err(err).Str("fault", f.Name).Msg("fault")
		}
		if err == nil {
			struck = append(struck, Struck{At: at, Name: f.Name, What: what, Until: time.Since(base)})
			p.Logger.Info().Dur("at", at).Str("fault", f.Name).Msg(what)
		}
		if undo != nil && err == nil {
			open = append(open, pending{len(struck) - 1, undo})
		}
		// Short faults are as interesting as long ones.
		hold := rng.Float64()
		_ = pause.For(ctx, time.Duration(hold*hold*float64(p.Hold)))
		if err != nil {
			// The processes it wanted are gone: let them come back.
			end(len(open))
			if undo != nil {
				_ = undo(ctx)
			}
		}
		if rng.IntN(10) < 7 || len(open) > 2 {
			end(len(open))
		}
		if rng.IntN(10) < 3 {
			end(len(open))
			readyCtx, cancel := context.WithTimeout(ctx, 20*time.Second)
			_ = s.Ready(readyCtx) // if not now, then at the end
			cancel()
		}
	}
	end(len(open))
	return struck
}

// gaps are, for each fault, the longest time between two acknowledged writes from
// the last before it until half a minute later, or the next fault.
func gaps(acks []time.Duration, struck []Struck) []time.Duration {
	slices.Sort(acks)
	var all []time.Duration
	for i, f := range struck {
		until := f.At + 30*time.Second
		if i+1 < len(struck) {
			until = min(until, struck[i+1].At)
		}
		var longest time.Duration
		j, _ := slices.BinarySearch(acks, f.At)
		last := f.At
		for ; j < len(acks); j++ {
			longest = max(longest, acks[j]-last)
			last = acks[j]
			if last > until {
				break
			}
		}
		all = append(all, longest)
	}
	return all
}
