package recovery

import (
	"context"
	"time"

	"cohort/consensus/state"
	"cohort/internal/binlog/capture"
	"cohort/internal/committer"
	"cohort/internal/mysqld"
	"cohort/internal/pause"
	"cohort/router"
)

// sweepInterval is how often prepared transactions that nobody decides are
// looked for.
const sweepInterval = 10 * time.Second

// sweep decides prepared transactions that never reached the log: one that
// wrote nothing leaves no event, and its coordinator, which alone knows of it,
// may be gone. What is prepared at two looks in a row and provably not on its way
// gets a verdict by an entry in the log (DESIGN, invariant 5); if it was on its way
// after all, whichever comes first in the log is final.
//
// Safety: XA RECOVER shows a branch only when its XA_prepare event, if it has one, is
// in the binary log, so that event lies before where the log is found to end
// afterwards. Capture has handed everything before its position to the proposer, and
// what the proposer does not hold any more has its verdict here. So a branch has no
// event, and never will, if these are found in this order: capture at or past that
// end, nothing of the branch in the proposer, no verdict. However long capture or the
// log stand still, nothing that can still be ordered is aborted.
//
// Liveness: each branch is measured against the end of when it was first seen, which
// does not move, so capture passes it as it goes on, however much is written; and a
// branch without an event is never in the proposer. What capture cannot pass ends
// the life, and settlePrepared decides.
func (p *primary) sweep(ctx context.Context) error {
	var seen map[string]capture.StartAt // by xid: an end of the binary log after it was prepared
	for {
		if err := pause.For(ctx, p.m.sweepEvery); err != nil {
			return err
		}
		xids, err := mysqld.XARecover(ctx, p.pool)
		if err != nil {
			return err
		}
		end, err := binlogEnd(ctx, p.pool, p.id.Number) // after XA RECOVER
		if err != nil {
			return err
		}
		var at capture.StartAt
		if c := p.reader.Load(); c != nil {
			at = c.Position()
		}
		submitted := p.m.opt.Node.Submitted() // after capture's position, before verdicts
		now := make(map[string]capture.StartAt)
		var lost []string
		for _, x := range xids {
			id := string(x.Gtrid)
			if !router.IsOurs(id) {
				continue
			}
			// A verdict that an earlier look forced may have been ordered after that
			// look gave up waiting: then nobody carries it out.
			if o, decided := p.m.opt.Node.Verdict(id); decided && (o.Committed || o.Reason != state.ReasonForced) {
				continue
			}
			before, again := seen[id]
			if !again {
				before = end
			}
			if now[id] = before; again && !at.Before(before) && !submitted[id] {
				lost = append(lost, id)
			}
		}
		seen = now
		if len(lost) == 0 {
			continue
		}
		if err := p.force(ctx, lost); err != nil && ctx.Err() == nil {
			p.log.Warn().Err(err).Int("transactions", len(lost)).Msg("no verdict on prepared transactions yet; trying again")
		}
	}
}

func (p *primary) force(ctx context.Context, xids []string) error {
	ctx, cancel := context.WithTimeout(ctx, p.m.sweepEvery)
	defer cancel()
	outcomes, err := p.m.opt.Node.ForceVerdictOf(ctx, p.incarnation, xids)
	if err != nil {
		return err
	}
	for i, o := range outcomes {
		if !o.Committed && o.Reason == state.ReasonForced {
			p.log.Info().Str("xid", xids[i]).Msg("rolling back a prepared transaction that its session left behind")
			p.gate.Submit(committer.Job{Kind: committer.Rollback, XID: xids[i]})
		}
	}
	return nil
}
