package state

import (
	"maps"
	"slices"
)

// MaxForced is how many forced aborts are kept at most; further ones are not
// given. Part of the decision rules.
const MaxForced = 1 << 14

// forced holds the aborts of transactions that the log has not seen and may
// still see. How far a prepare is behind cannot be told from the log: it may
// wait in its origin's queue behind any number of others, or not even be in its
// binary log yet. So time or a number of later verdicts prove nothing, and an
// abort is kept until one of two things does: the prepare arrives, which the log
// takes once from a life and never again; or every life that could propose it
// has ended, and the fence aborts it just the same. Then it becomes a verdict
// like others (see recent).
type forced struct {
	byXID map[string]forcedAbort
}

// forcedAbort is one of them.
type forcedAbort struct {
	// life is the incarnation that alone may propose the transaction, 0 when the
	// one who asked did not know. Then it may be any that began by upto.
	life, upto uint64
	lastN      uint64 // as in Outcome
}

// proposable reports whether a life of these members could still propose it.
func (f forcedAbort) proposable(members []*Member) bool {
	return slices.ContainsFunc(members, func(m *Member) bool {
		return m.Incarnation == f.life || f.life == 0 && m.Incarnation <= f.upto
	})
}

func (f forcedAbort) outcome(xid string) Outcome {
	return Outcome{Key: xid, Errno: ErrnoConflict, Reason: ReasonForced, LastN: f.lastN}
}

func (f *forced) add(xid string, a forcedAbort) {
	if f.byXID == nil {
		f.byXID = make(map[string]forcedAbort)
	}
	f.byXID[xid] = a
}

// xids returns them in an order that is the same on every member.
func (f *forced) xids() []string { return slices.Sorted(maps.Keys(f.byXID)) }

// applyAbort gives the verdict on transactions of which the log knows nothing,
// and tells on how many there is one now.
func (s *State) applyAbort(body []byte, sink Sink) (uint64, error) {
	var a Abort
	if err := a.decode(body); err != nil {
		return 0, err
	}
	if a.Incarnation > s.incarnation {
		return 0, errNoSuchLife // nobody can know it yet
	}
	var decided uint64
	for _, xid := range a.XIDs {
		d := Decision{Index: s.index, Kind: KindAbort, XID: xid, Epoch: s.epoch}
		if o, ok := s.lookup(xid, false); ok {
			d.Origin, d.Incarnation = o.Origin, o.Incarnation
			s.repeat(o, d, sink)
			decided++
			continue
		}
		f := forcedAbort{life: a.Incarnation, upto: s.incarnation, lastN: s.cert.Last()}
		d.Errno, d.Reason = ErrnoConflict, ReasonForced
		switch {
		case xid == "":
			continue
		case !f.proposable(s.members):
			s.remember(xid, d)
		case len(s.forced.byXID) >= MaxForced:
			// An abort that might be forgotten too early must not be promised.
			continue
		default:
			s.forced.add(xid, f)
		}
		decided++
		sink.Decided(d)
	}
	return decided, nil
}

// meetForced is told that m's present life proposed xid, which the log refused
// because it was decided: a forced abort has done its work.
func (s *State) meetForced(m *Member, xid string) {
	f, ok := s.forced.byXID[xid]
	if !ok || f.life != 0 && f.life != m.Incarnation {
		return
	}
	delete(s.forced.byXID, xid)
	o := f.outcome(xid)
	o.Origin, o.Incarnation, o.LastN = m.ID, m.Incarnation, s.cert.Last()
	s.outcomes.add(o)
	s.trim()
}

// endForced makes ordinary verdicts of the forced aborts that wait for a life
// which has ended.
func (s *State) endForced() {
	for _, xid := range s.forced.xids() {
		f := s.forced.byXID[xid]
		if f.proposable(s.members) {
			continue
		}
		delete(s.forced.byXID, xid)
		s.outcomes.add(f.outcome(xid))
	}
	s.trim()
}
