package failover

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	_ "github.com/go-sql-driver/mysql" // for database/sql
	"github.com/rs/zerolog"

	"cohort/internal/loadgen"
	"cohort/internal/pause"
)

// Case is something that happens to the primary.
type Case string

// The cases.
const (
	Mysqld     Case = "mysqld"     // kill -9 of its mysqld
	Proxy      Case = "proxy"      // kill -9 of its cohort process
	Both       Case = "both"       // kill -9 of both at once
	Stop       Case = "stop"       // SIGSTOP of both, SIGCONT later
	Cut        Case = "cut"        // its network is cut
	Switchover Case = "switchover" // another member is appointed
	Restart    Case = "restart"    // both are killed and started again at once
)

// Cases are all cases in the order of the table.
var Cases = []Case{Mysqld, Proxy, Both, Stop, Cut, Switchover, Restart}

// Member is one server of a group, reached behind everything else.
type Member struct {
	Name  string
	Admin loadgen.Target
}

// Group is a running group that faults can be done to.
type Group interface {
	// Client is where a client connects so that its way in survives the fault.
	Client(ctx context.Context) (loadgen.Target, error)
	// Strike does it. heal, which may be nil, brings back what was hit.
	Strike(ctx context.Context, c Case) (heal func(context.Context) error, err error)
	// Await returns once all members are ONLINE and one takes writes.
	Await(ctx context.Context) error
	// Settle returns all members once they agree on what was executed. Nobody
	// writes meanwhile.
	Settle(ctx context.Context) ([]Member, error)
	Close(ctx context.Context) error
}

// System can be started.
type System struct {
	Name  string
	Start func(ctx context.Context, dir string) (Group, error)
	// NotRun says why a case cannot be had; "" when it can.
	NotRun func(c Case) string
}

// Plan says what to measure.
type Plan struct {
	Runs   int
	Limit  time.Duration // a run that takes longer has not recovered
	Watch  time.Duration // further load after the recovery, and after the return
	Return time.Duration // limit for the member that was hit to be ONLINE again
	Logger zerolog.Logger
}

// Run is one fault.
type Run struct {
	Gap       time.Duration `json:"gap_ns"`        // time without a successful write; of no meaning unless Recovered
	Recovered bool          `json:"recovered"`     // within the limit
	ReturnGap time.Duration `json:"return_gap_ns"` // the same while the old primary came back
}

// Result is one case on one system.
type Result struct {
	System  string         `json:"system"`
	Case    Case           `json:"case"`
	NotRun  string         `json:"not_run,omitempty"`
	Failed  string         `json:"failed,omitempty"` // what ended the case early
	Limit   time.Duration  `json:"limit_ns"`
	Runs    []Run          `json:"runs"`
	Errors  map[uint16]int `json:"errors"`          // seen by the client, by number
	Dropped int            `json:"dropped"`         // connections that ended under the client
	Dials   int            `json:"failed_connects"` // attempts to connect that failed
	Audit   *Audit         `json:"audit,omitempty"` // nil: the members could not be read
}

// Bad says whether the result is one that must not be.
func (r Result) Bad() bool { return r.Failed != "" || r.Audit != nil && r.Audit.Wrong() }

// Measure runs one case on a group. It always returns a result; a case that
// could not be finished says so in it.
func Measure(ctx context.Context, p Plan, name string, g Group, c Case) Result {
	r := Result{System: name, Case: c, Limit: p.Limit, Errors: map[uint16]int{}}
	w := &writer{limit: p.Limit + p.Return}
	err := func() error {
		if err := awaitWithin(ctx, g, p.Return); err != nil {
			return err
		}
		to, err := g.Client(ctx)
		if err != nil {
			return err
		}
		if err := prepare(ctx, to); err != nil {
			return err
		}
		for range p.Runs {
			run, err := w.measure(ctx, p, g, c)
			if run != nil {
				r.Runs = append(r.Runs, *run)
				p.Logger.Info().Str("system", name).Str("case", string(c)).Bool("recovered", run.Recovered).
					Dur("gap", run.Gap).Dur("return_gap", run.ReturnGap).Msg("run")
			}
			if err != nil {
				return err
			}
		}
		return nil
	}()
	writes, dropped, dials := w.snapshot()
	r.Dropped, r.Dials = dropped, dials
	for _, w := range writes {
		if w.outcome != acked {
			r.Errors[w.errno]++
		}
	}
	if ctx.Err() == nil {
		settleCtx, cancel := context.WithTimeout(ctx, p.Return)
		defer cancel()
		members, settleErr := g.Settle(settleCtx)
		if settleErr == nil {
			var contents []Contents
			if contents, settleErr = read(settleCtx, members); settleErr == nil {
				a := audit(writes, contents)
				r.Audit = &a
			}
		}
		err = errors.Join(err, settleErr)
	}
	r.fail(err)
	return r
}

func awaitWithin(ctx context.Context, g Group, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return g.Await(ctx)
}

// steadyWrites is how many acknowledged writes say that writing works again:
// the first may be one that the fault has not reached yet.
const steadyWrites = 20

// measure does one fault. The run is nil when the fault did not come about.
func (w *writer) measure(ctx context.Context, p Plan, g Group, c Case) (_ *Run, err error) {
	if err := awaitWithin(ctx, g, p.Return); err != nil {
		return nil, err
	}
	to, err := g.Client(ctx)
	if err != nil {
		return nil, err
	}
	writing, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(writing, to)
	}()
	defer func() {
		stop()
		<-done
	}()
	if !w.await(ctx, time.Now(), steadyWrites, p.Return) {
		return nil, fmt.Errorf("failover: %s: no writes before the fault: %w", c, errors.Join(ctx.Err(), errNoWrites))
	}

	struck := time.Now()
	strikeCtx, cancel := context.WithTimeout(ctx, p.Limit)
	heal, err := g.Strike(strikeCtx, c)
	cancel()
	returned := false
	defer func() {
		if heal != nil && !returned {
			err = errors.Join(err, heal(context.WithoutCancel(ctx)))
		}
	}()
	if err != nil {
		return nil, fmt.Errorf("failover: %s: %w", c, err)
	}
	run := &Run{}
	run.Recovered = w.await(ctx, time.Now(), steadyWrites, time.Until(struck.Add(p.Limit)))
	if run.Recovered {
		// Trouble that comes a moment later belongs to the fault too.
		_ = pause.For(ctx, p.Watch)
		// Unless writing stopped again, which only the next answer ends.
		run.Recovered = w.await(ctx, time.Now(), 1, time.Until(struck.Add(p.Limit+p.Watch)))
	}
	back := time.Now()
	writes, _, _ := w.snapshot()
	run.Gap, _ = gap(writes, struck, back)
	if err := ctx.Err(); err != nil {
		return nil, err
	}

	if heal != nil {
		returned = true
		if err := heal(ctx); err != nil {
			return run, fmt.Errorf("failover: %s: bring back what was hit: %w", c, err)
		}
	}
	if err := awaitWithin(ctx, g, p.Return); err != nil {
		return run, fmt.Errorf("failover: %s: after the return: %w", c, err)
	}
	_ = pause.For(ctx, p.Watch)
	if !w.await(ctx, time.Now(), steadyWrites, p.Return) {
		return run, fmt.Errorf("failover: %s: after the return: %w", c, errNoWrites)
	}
	if run.Recovered {
		writes, _, _ = w.snapshot()
		run.ReturnGap, _ = gap(writes, back, time.Now())
	}
	return run, nil
}

var errNoWrites = errors.New("the client's writes are not acknowledged")

// read counts the ids on every member.
func read(ctx context.Context, members []Member) ([]Contents, error) {
	var all []Contents
	for _, m := range members {
		count, err := readIDs(ctx, m.Admin)
		if err != nil {
			return nil, fmt.Errorf("failover: read %s: %w", m.Name, err)
		}
		all = append(all, Contents{m.Name, count})
	}
	return all, nil
}

func readIDs(ctx context.Context, from loadgen.Target) (map[int64]int, error) {
	db, err := sql.Open("mysql", from.DSN())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT id, COUNT(*) FROM "+table+" GROUP BY id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	count := map[int64]int{}
	for rows.Next() {
		var id int64
		var n int
		if err := rows.Scan(&id, &n); err != nil {
			return nil, err
		}
		count[id] = n
	}
	return count, rows.Err()
}

// ParseCase returns the case of a name.
func ParseCase(name string) (Case, error) {
	if c := Case(name); slices.Contains(Cases, c) {
		return c, nil
	}
	return "", fmt.Errorf("failover: no case %q: there are %v", name, Cases)
}
