package consensus

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"cohort/internal/uptime"
)

// DefaultStuckTimeout is how long the log may stand still. A busy disk makes an
// fsync wait for seconds; what takes longer than this is not expected to end.
const DefaultStuckTimeout = 30 * time.Second

// liveness says whether dragonboat still works here. Its step goroutine comes to
// the log's writes with every tick of RTT, whether there is something to write or
// not; its apply goroutine goes in and out of Update.
//
// A replica that stands still while its process answers everybody is the worst of
// failures: the member stays what it is in the group, and all that waits for it
// hangs. So such a process ends (runStuckWatch).
type liveness struct {
	steps   atomic.Uint64 // writes of the log that returned
	at      atomic.Int64  // when the last one did: in ns of uptime
	applies atomic.Uint64 // odd: within Update
}

func (l *liveness) step() {
	l.at.Store(int64(uptime.Now()))
	l.steps.Add(1)
}

// Stalled returns how long the log has stood still here, 0 without a replica. A
// healthy one is never still for longer than an fsync takes.
func (n *Node) Stalled() time.Duration {
	if at := n.live.at.Load(); at != 0 && n.host.Load() != nil {
		return uptime.Now() - time.Duration(at)
	}
	return 0
}

// runStuckWatch stops the member when its replica has stood still for
// StuckTimeout. It counts its own ticks, not the time: while the whole process is
// stopped nothing counts.
func (n *Node) runStuckWatch(ctx context.Context) {
	const parts = 30
	t := time.NewTicker(n.cfg.StuckTimeout / parts)
	defer t.Stop()
	var still, busy int // ticks without a step, within one Update
	var at *host
	var steps, applies uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		still, busy = still+1, busy+1
		// At the start and end of a replica nothing steps.
		if h := n.host.Load(); h == nil || h != at || steps != n.live.steps.Load() {
			at, still = h, 0
		}
		if v := n.live.applies.Load(); v%2 == 0 || v != applies {
			busy = 0
		}
		steps, applies = n.live.steps.Load(), n.live.applies.Load()
		if still < parts && busy < parts {
			continue
		}
		what := "neither a write of the log nor anything else of it has ended"
		if busy >= parts {
			what = "an entry is being applied"
		}
		buf := make([]byte, 1<<20)
		buf = buf[:runtime.Stack(buf, true)]
		n.log.Error().Str("stacks", string(buf)).Msg("the log stands still: what every goroutine does")
		n.machine.fail(fmt.Errorf("%w: for %s %s; see to this member's disk, then start it again", ErrStuck, n.cfg.StuckTimeout, what))
		return
	}
}
