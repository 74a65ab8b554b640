package recovery

import (
	"context"
	"time"

	"cohort/consensus/state"
	"cohort/internal/committer"
	"cohort/internal/mysqld"
	"cohort/router"
)

// sweepInterval is how often prepared transactions that nobody decides are
// looked for. A variable for the tests only.
var sweepInterval = 10 * time.Second

// sweep decides prepared transactions that never reached the log: one that
// wrote nothing leaves no event, and its coordinator, which alone knows of it,
// may be gone. What is prepared at two looks in a row without a verdict gets one
// by an entry in the log (DESIGN, invariant 5); if it was on its way after all,
// whichever comes first in the log is final.
func (p *primary) sweep(ctx context.Context) error {
	var seen map[string]bool
	for {
		if err := pause(ctx, sweepInterval); err != nil {
			return err
		}
		xids, err := mysqld.XARecover(ctx, p.pool)
		if err != nil {
			return err
		}
		now := make(map[string]bool)
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
			if now[id] = true; seen[id] {
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
	ctx, cancel := context.WithTimeout(ctx, sweepInterval)
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
