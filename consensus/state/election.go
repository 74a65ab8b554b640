package state

import (
	"cmp"
	"strings"
)

// Elect returns who should be the primary: of the members that are ONLINE the
// one with the lowest server version, since what a later version writes an
// earlier one may not be able to apply; among these the one with the highest
// weight; among these the one with the lowest server_uuid. ok is false when
// nobody is ONLINE. The order of members does not matter.
func Elect(members []Member) (id uint64, ok bool) {
	var best *Member
	for i := range members {
		if m := &members[i]; m.State == StateOnline && (best == nil || precedes(m, best)) {
			best = m
		}
	}
	if best == nil {
		return 0, false
	}
	return best.ID, true
}

func precedes(a, b *Member) bool {
	return cmp.Or(
		cmp.Compare(a.Info.ServerVersion, b.Info.ServerVersion),
		cmp.Compare(b.Info.Weight, a.Info.Weight),
		strings.Compare(strings.ToLower(a.Info.UUID), strings.ToLower(b.Info.UUID)),
		cmp.Compare(a.ID, b.ID), // members of which nobody said a server_uuid
	) < 0
}

// elect replaces a primary that is not ONLINE, if anybody is. It is called after
// everything that changes a member's state. Where nobody is, the primary stays
// what it is: it may come back, and whoever comes ONLINE first replaces it.
func (s *State) elect(sink Sink) {
	if !s.founded {
		return
	}
	if p := s.member(s.primary); p != nil && (p.State == StateOnline || s.founding(p)) {
		return
	}
	if id, ok := Elect(s.View().Members); ok {
		s.appoint(id, sink)
	}
}

// founding reports whether the primary that the group was founded with is still
// on its way to being ONLINE for the first time. It is not replaced for that:
// who is the first primary must not depend on how fast the others start.
func (s *State) founding(p *Member) bool {
	return s.epoch == 1 && p.State == StateRecovering && len(p.fenced) == 0
}

// appoint makes a member the primary and begins a new epoch.
func (s *State) appoint(id uint64, sink Sink) {
	if old := s.member(s.primary); old != nil {
		old.replaced = s.LastN() + 1
	}
	s.primary, s.primarySince = id, s.LastN()
	s.epoch++
	s.changeView()
	sink.Decided(Decision{Index: s.index, Kind: KindPrimary, Origin: id, N: s.LastN(),
		Epoch: s.epoch, Committed: true})
}

// applyWeight changes what later elections go by. A primary that is ONLINE stays
// what it is.
func (s *State) applyWeight(body []byte, sink Sink) (uint64, error) {
	var w Weight
	if err := w.decode(body); err != nil {
		return 0, err
	}
	m := s.member(w.Member)
	if m == nil || !m.lives(w.Incarnation) {
		return 0, nil
	}
	m.Info.Weight = w.Weight
	s.viewDirty = true
	sink.Decided(Decision{Index: s.index, Kind: KindWeight, Origin: m.ID, Incarnation: m.Incarnation,
		N: s.LastN(), Epoch: s.epoch, Committed: true})
	return 1, nil
}
