package recovery

import (
	"context"
	"time"

	"cohort/consensus"
	"cohort/internal/pause"
)

const (
	markInterval = time.Second
	// stableAfter is how many reports old something has to be to count as being
	// on stable storage: InnoDB flushes its log at least once a second.
	stableAfter = 5
)

// marks are what a member reports about itself now and then, so that the group
// can forget what nobody needs.
type marks struct {
	history  []uint64 // what was applied at the latest reports, the oldest first
	reported consensus.Watermark
}

// next returns the watermark to report, and whether it says anything new.
func (k *marks) next(applied uint64) (consensus.Watermark, bool) {
	w := consensus.Watermark{Applied: applied}
	k.history = append(k.history, applied)
	if len(k.history) > stableAfter {
		w.Stable = k.history[0]
		k.history = k.history[1:]
	}
	changed := w != k.reported
	k.reported = w
	return w, changed
}

// reportMarks reports until ctx ends. On a primary it must begin after the
// statements of earlier lives were proposed.
func (l *life) reportMarks(ctx context.Context) error {
	tracker := l.m.opt.Router.Tracker(l.m.opt.ReplicaID)
	var k marks
	for {
		if err := pause.For(ctx, markInterval); err != nil {
			return err
		}
		w, changed := k.next(tracker.Low())
		if !changed {
			continue
		}
		if err := l.m.opt.Node.Watermark(ctx, w); err != nil && ctx.Err() == nil {
			l.log.Debug().Err(err).Msg("watermark not ordered; the next one says the same and more")
		}
	}
}
