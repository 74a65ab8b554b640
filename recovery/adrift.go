package recovery

import (
	"context"
	"time"

	"cohort/consensus/state"
)

// adrift reports whether this member's sessions have nowhere to run: not on the
// primary, which it does not hear, or which it is itself and not in this life.
func (m *Member) adrift(v *state.View) bool {
	p, ok := v.Member(v.Primary)
	switch {
	case !v.Founded || !m.Wanted() || m.Failed():
		return false
	case !ok:
		return true
	case p.ID == m.opt.ReplicaID:
		return !m.ready.Load()
	}
	return m.Unreachable(p) || !inGroup(&p)
}

// watchAdrift lets clients in that could otherwise not reach any mysqld, so that the
// group can be administered through this member: where a majority is lost for good,
// somebody has to say so here.
func (m *Member) watchAdrift(ctx context.Context) error {
	var since time.Time
	for {
		if pause(ctx, majorityEvery) != nil {
			return nil
		}
		if !m.adrift(m.opt.Node.View()) || m.quorum(ctx, majorityEvery) {
			since = time.Time{}
			m.opt.Router.SetAdrift(false)
			continue
		}
		now := time.Now()
		if since.IsZero() {
			since = now
		}
		if now.Sub(since) >= m.timing.lostAfter && !m.opt.Router.Adrift() {
			m.log.Warn().Msg("no contact to a majority of the group, nor to its primary: this member takes clients to administer the group only")
			m.opt.Router.SetAdrift(true)
		}
	}
}
