package router

import "cohort/consensus/state"

// Skipped implements consensus.SkipObserver: the state of the group has gone on
// without telling decisions. What waits for a verdict gets the one that the group
// remembers. What a fence covers and the group does not remember may have committed
// and been forgotten: its outcome is unknown, and never said to be an abort.
func (r *Router) Skipped() {
	v := r.opt.Log.View()
	m, _ := v.Member(v.Primary)
	r.xids.review(func(t *Ticket) (*state.Decision, bool) {
		if o, ok := r.opt.Log.Outcome(t.key); ok {
			d := decisionOf(o, t.key, "")
			return &d, false
		}
		return nil, t.epoch == v.Epoch && t.incarnation == m.Incarnation
	})
	r.directs.review(func(t *Ticket) (*state.Decision, bool) {
		if o, ok := r.opt.Log.DirectOutcome(t.key); ok {
			d := decisionOf(o, "", t.key)
			return &d, false
		}
		return nil, false
	})
	r.direct.Store(v.LastN) // one of them may have changed definitions
	r.announce(true)
}
