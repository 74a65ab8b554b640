package committer

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Times of a Gate.
const (
	// gateGrace is how long a verdict waits for word from the session before
	// mysqld is asked instead.
	gateGrace = 50 * time.Millisecond
	// foreignGrace is how long the rollback of a branch waits whose session cannot
	// be told from mysqld's process list: very much longer than the end of PREPARE.
	foreignGrace = time.Second
	// gateGeneration bounds how long word of a PREPARE without a verdict is kept:
	// losing it costs a question to mysqld.
	gateGeneration = time.Minute
)

// Gate holds a verdict back until the session that runs the XA PREPARE has had
// its answer.
//
// mysqld writes PREPARE to the binary log, where the group sees it and may decide,
// before it detaches the branch from its session inside InnoDB. An XA COMMIT or
// XA ROLLBACK from elsewhere that falls between the two is answered OK, logged and
// takes its GTID, but InnoDB keeps the branch prepared: its rows are missing, and
// locked, until mysqld starts anew (9.7.4; see TestVerdictWaitsForPrepare).
type Gate struct {
	opt GateOptions

	mu     sync.Mutex
	held   map[string]heldJob  // verdicts, by xid, that wait for their PREPARE
	fresh  map[string]struct{} // answered PREPAREs that wait for their verdict
	stale  map[string]struct{} // those of the generation before
	arrive chan struct{}       // capacity 1: held was empty
}

type heldJob struct {
	Job
	since time.Time
}

// GateOptions configure a Gate; all are required.
type GateOptions struct {
	// Submit takes the jobs that may be carried out. It must not block.
	Submit func(...Job)
	// Preparing returns the text of every XA PREPARE that mysqld is running.
	Preparing func(ctx context.Context) ([]string, error)
	Logger    zerolog.Logger
}

// NewGate returns a Gate. Without Run it lets pass only what Prepared names.
func NewGate(opt GateOptions) *Gate {
	return &Gate{opt: opt, held: make(map[string]heldJob), fresh: make(map[string]struct{}), arrive: make(chan struct{}, 1)}
}

// Submit passes on what needs no waiting and keeps the rest.
func (g *Gate) Submit(jobs ...Job) {
	pass := make([]Job, 0, len(jobs))
	g.mu.Lock()
	for _, j := range jobs {
		if j.Kind == Empty || j.Literal == "" && g.take(j.XID) {
			pass = append(pass, j)
			continue
		}
		if len(g.held) == 0 {
			select {
			case g.arrive <- struct{}{}:
			default:
			}
		}
		g.held[j.XID+j.Literal] = heldJob{j, time.Now()}
	}
	g.mu.Unlock()
	if len(pass) > 0 {
		g.opt.Submit(pass...)
	}
}

// take reports, and forgets, that the PREPARE of xid was answered.
func (g *Gate) take(xid string) bool {
	if _, ok := g.fresh[xid]; ok {
		delete(g.fresh, xid)
		return true
	}
	_, ok := g.stale[xid]
	delete(g.stale, xid)
	return ok
}

// Prepared says that the session has had the answer to the XA PREPARE of xid, or
// that the session is gone from mysqld. It may come before or after the verdict,
// more than once, or never.
func (g *Gate) Prepared(xid string) {
	g.mu.Lock()
	h, ok := g.held[xid]
	if ok {
		delete(g.held, xid)
	} else {
		g.fresh[xid] = struct{}{}
	}
	g.mu.Unlock()
	if ok {
		g.opt.Submit(h.Job)
	}
}

// Run asks mysqld about verdicts that no session has spoken for, until ctx ends:
// the session, or the member it was connected through, may be gone.
func (g *Gate) Run(ctx context.Context) error {
	turn := time.NewTicker(gateGeneration)
	defer turn.Stop()
	check := time.NewTicker(gateGrace)
	defer check.Stop()
	check.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-turn.C:
			g.turn()
		case <-g.arrive:
			check.Reset(gateGrace)
		case now := <-check.C:
			late, left := g.late(now)
			if !left {
				check.Stop()
			}
			if len(late) == 0 {
				continue
			}
			running, err := g.opt.Preparing(ctx)
			if err != nil {
				return err
			}
			g.release(late, running, now)
		}
	}
}

// turn begins a generation of words that wait for their verdict.
func (g *Gate) turn() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stale, g.fresh = g.fresh, make(map[string]struct{})
}

// late returns the keys of jobs that have waited long enough; left says that any
// are held.
func (g *Gate) late(now time.Time) (keys []string, left bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, h := range g.held {
		grace := gateGrace
		if h.Literal != "" {
			grace = foreignGrace
		}
		if now.Sub(h.since) >= grace {
			keys = append(keys, key)
		}
	}
	return keys, len(g.held) > 0
}

// release lets go those jobs whose PREPARE is not among the running ones. It had
// begun before there was a verdict on it, or before the branch was found in XA
// RECOVER; so it has ended.
func (g *Gate) release(keys, running []string, now time.Time) {
	var pass []Job
	g.mu.Lock()
	for _, key := range keys {
		h, ok := g.held[key]
		if !ok || h.Literal == "" && isPreparing(running, h.XID) {
			continue
		}
		delete(g.held, key)
		pass = append(pass, h.Job)
		g.opt.Logger.Debug().Str("xid", key).Dur("held", now.Sub(h.since)).Msg("no word from the session of a decided transaction; mysqld says that its PREPARE has ended")
	}
	g.mu.Unlock()
	if len(pass) > 0 {
		g.opt.Submit(pass...)
	}
}

func isPreparing(running []string, xid string) bool {
	for _, text := range running {
		if strings.Contains(text, xid) || strings.Contains(text, Quote(xid)) {
			return true
		}
	}
	return false
}
