package recovery

import (
	"context"
	"time"

	"cohort/consensus/state"
	"cohort/internal/pause"
)

// adrift reports whether a member's sessions have nowhere to run: not on the
// primary, which it does not hear, or which it is itself and not in this life.
func adrift(v *state.View, self uint64, ready bool, unreachable func(state.Member) bool) bool {
	p, ok := v.Member(v.Primary)
	switch {
	case !v.Founded:
		return false
	case !ok:
		return true
	case p.ID == self:
		return !ready
	}
	return unreachable(p) || !inGroup(&p)
}

// watchAdrift lets clients in that could otherwise not reach any mysqld, so that the
// group can be administered through this member: where a majority is lost for good,
// somebody has to say so here.
func (m *Member) watchAdrift(ctx context.Context) error {
	var since time.Time
	for {
		if pause.For(ctx, majorityEvery) != nil {
			return nil
		}
		nowhere := m.Wanted() && !m.Failed() && adrift(m.opt.Node.View(), m.opt.ReplicaID, m.ready.Load(), m.Unreachable)
		if !nowhere || m.quorum(ctx, majorityEvery) {
			since = time.Time{}
			m.opt.Router.SetAdrift(false)
			continue
		}
		now := time.Now()
		if since.IsZero() {
			since = now
		}
		if now.Sub(since) >= max(m.timing.adriftAfter, m.timing.lostAfter) && !m.opt.Router.Adrift() {
			m.log.Warn().Msg("no contact to a majority of the group, nor to its primary: this member takes clients to administer the group only")
			m.opt.Router.SetAdrift(true)
		}
	}
}
