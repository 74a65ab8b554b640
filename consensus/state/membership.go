package state

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// applyBootstrap founds the group.
func (s *State) applyBootstrap(body []byte, sink Sink) (uint64, error) {
	var b Bootstrap
	if err := b.decode(body); err != nil {
		return 0, err
	}
	if s.founded {
		return 0, nil
	}
	if b.Rules > RulesVersion {
		return 0, fmt.Errorf("%w: rules %d", ErrUnsupported, b.Rules)
	}
	s.founded, s.boot, s.rules, s.lineage = true, b, b.Rules, b.Lineage
	s.primary, s.epoch, s.primarySince = b.Primary, 1, b.StartN
	s.replicas = b.Replicas
	for id := range b.Replicas {
		s.unclaimed = append(s.unclaimed, id+1)
	}
	if b.StartN > 0 {
		s.cert.StartAt(b.StartN)
		if err := sink.StartAt(b.StartN); err != nil {
			return 0, err
		}
	}
	// The lineage opens the chain, so that two histories never agree.
	s.checksum = b.Lineage
	s.sums = append(s.sums[:0], s.checksum)
	s.changeView()
	sink.Decided(Decision{Index: s.index, Kind: KindBootstrap, Origin: b.Primary, N: b.StartN,
		Checksum: s.checksum, Committed: true, Epoch: s.epoch})
	return 1, nil
}

// applyJoin begins a new incarnation. Two members with one server_uuid are one
// mysqld under two proxies, or a copy of a data directory: in both cases local
// GTIDs would name two things, and who is who could not be told from what mysqld
// says. The other's state does not matter: while it is OFFLINE its proposals
// still count, and it may come back.
func (s *State) applyJoin(body []byte, sink Sink) (uint64, error) {
	var j Join
	if err := j.decode(body); err != nil {
		return 0, err
	}
	if !s.founded || j.Member == 0 || j.Nonce == 0 {
		return 0, nil
	}
	m := s.member(j.Member)
	if m != nil && m.Nonce == j.Nonce {
		return m.Incarnation, nil
	}
	if s.uuidTaken(j.Info.UUID, j.Member) {
		return RefusedDuplicateUUID, nil
	}
	switch i := slices.Index(s.unclaimed, j.Replica); {
	case m != nil && m.Replica != 0 && m.Replica == j.Replica:
	case m == nil && i >= 0:
		s.unclaimed = slices.Delete(s.unclaimed, i, i+1)
		m = s.insert(j.Member)
		m.Replica = j.Replica
	default:
		// A replica that the log goes on without may still forward proposals.
		return RefusedNotAdmitted, nil
	}
	if m.Incarnation != 0 {
		m.fenced = append(m.fenced, fencedLife{m.Incarnation, m.Seq})
		if len(m.fenced) > maxFenced {
			m.fenced = slices.Delete(m.fenced, 0, len(m.fenced)-maxFenced)
		}
	}
	if err := s.dropAny(m, sink); err != nil {
		return 0, err
	}
	s.incarnation++
	m.Incarnation, m.Nonce, m.Seq = s.incarnation, j.Nonce, 0
	// What it had applied or stored in an earlier life it may have lost.
	m.Applied, m.Stable, m.Low, m.OpenEpoch = 0, 0, 0, 0
	m.State, m.Info, m.Voter = StateRecovering, j.Info, true
	if j.Info.LogAddress != "" {
		m.Address = j.Info.LogAddress
	}
	s.endForced()
	s.changeView()
	sink.Decided(Decision{Index: s.index, Kind: KindJoin, Origin: m.ID, Incarnation: m.Incarnation,
		State: m.State, N: s.LastN(), Epoch: s.epoch, Committed: true})
	s.elect(sink)
	return m.Incarnation, nil
}

// insert adds a member that was not there.
func (s *State) insert(id uint64) *Member {
	m := &Member{ID: id, State: StateOffline}
	i, _ := slices.BinarySearchFunc(s.members, id, func(m *Member, id uint64) int { return cmp.Compare(m.ID, id) })
	s.members = slices.Insert(s.members, i, m)
	return m
}

// uuidTaken reports whether a member other than id has the server_uuid.
func (s *State) uuidTaken(uuid string, id uint64) bool {
	return uuid != "" && slices.ContainsFunc(s.members, func(m *Member) bool {
		return m.ID != id && strings.EqualFold(m.Info.UUID, uuid)
	})
}

// applyState changes a member's state. OFFLINE and ERROR are final for an
// incarnation: the group may have gone on without this member by then, so only a
// new Join, which fences what is on its way, brings it back.
func (s *State) applyState(body []byte, sink Sink) (uint64, error) {
	var c SetState
	if err := c.decode(body); err != nil {
		return 0, err
	}
	if c.State < StateOffline || c.State > StateError {
		return 0, fmt.Errorf("%w: member state %d", ErrUnsupported, c.State)
	}
	m := s.member(c.Member)
	if m == nil || !m.lives(c.Incarnation) && (c.Nonce == 0 || c.Nonce != m.Nonce) {
		return 0, nil
	}
	if ended := m.State == StateOffline || m.State == StateError; ended && c.State != m.State &&
		(m.State != StateOffline || c.State != StateError) {
		return 0, nil
	}
	if c.Epoch != 0 {
		if c.State != StateOnline || c.Epoch != s.epoch || s.primary != m.ID {
			return 0, nil
		}
		if m.OpenEpoch != c.Epoch {
			m.OpenEpoch = c.Epoch
			s.changeView()
		}
	}
	s.setState(m, c.State, sink)
	return 1, nil
}

// setState may bring about an election.
func (s *State) setState(m *Member, to MemberState, sink Sink) {
	changed := m.State != to
	if changed {
		m.State = to
		s.changeView()
	}
	if to == StateOnline {
		m.replaced = 0
	}
	sink.Decided(Decision{Index: s.index, Kind: KindState, Origin: m.ID, Incarnation: m.Incarnation,
		State: to, N: s.LastN(), Epoch: s.epoch, Committed: true})
	s.elect(sink)
	if changed {
		s.collect()
	}
}

// applyPrimary begins a new epoch. Who is not ONLINE is not appointed: it would be
// replaced at once.
func (s *State) applyPrimary(body []byte, sink Sink) (uint64, error) {
	var p Primary
	if err := p.decode(body); err != nil {
		return 0, err
	}
	m := s.member(p.Member)
	if !s.founded || p.Epoch != s.epoch || p.Member == s.primary || m == nil || m.State != StateOnline {
		return 0, nil
	}
	s.appoint(p.Member, sink)
	return 1, nil
}

// applyRules raises the version of the decision rules.
func (s *State) applyRules(body []byte, sink Sink) (uint64, error) {
	var v Rules
	if err := v.decode(body); err != nil {
		return 0, err
	}
	if v.Version > RulesVersion {
		return 0, fmt.Errorf("%w: rules %d", ErrUnsupported, v.Version)
	}
	if v.Version <= s.rules {
		return 0, nil
	}
	s.rules = v.Version
	s.changeView()
	sink.Decided(Decision{Index: s.index, Kind: KindRules, N: s.LastN(), Epoch: s.epoch, Committed: true})
	return 1, nil
}

// applyWatermark takes a member's report and collects what nobody needs.
func (s *State) applyWatermark(body []byte, sink Sink) (uint64, error) {
	var w Watermark
	if err := w.decode(body); err != nil {
		return 0, err
	}
	m := s.member(w.Member)
	if m == nil || !m.lives(w.Incarnation) {
		return 0, nil
	}
	last := s.LastN()
	m.Applied = max(m.Applied, min(w.Applied, last))
	m.Stable = max(m.Stable, min(w.Stable, last))
	m.Low = max(m.Low, min(w.Low, last))
	s.viewDirty = true
	s.collect()
	s.trim()
	sink.Decided(Decision{Index: s.index, Kind: KindWatermark, Origin: m.ID, Incarnation: m.Incarnation,
		N: m.Applied, Stable: m.Stable, Epoch: s.epoch, Committed: true})
	return 1, nil
}

// MaxLate is how many numbers the group goes on before it no longer waits for
// what a primary ran and did not get ordered before it was replaced. Part of the
// decision rules.
const MaxLate = 1 << 16

// awaited reports whether m, which is OFFLINE, may come back with direct
// statements that it ran as the primary: what they are judged by is kept so long.
func (s *State) awaited(m *Member) bool {
	return m.replaced > 0 && s.LastN()+1-m.replaced <= MaxLate
}

// collect raises the certification horizon to what every member that is not
// gone has behind it, and former primaries that are awaited. It is safe at any value: a proposal below the horizon
// aborts, and dependencies never reach below it. So a member that stays away
// costs memory only up to the certifier's own bound.
func (s *State) collect() {
	low, any := uint64(0), false
	for _, m := range s.members {
		if m.State == StateError || m.State == StateOffline && !s.awaited(m) {
			continue
		}
		if v := min(m.Applied, m.Low); !any || v < low {
			low, any = v, true
		}
	}
	if any {
		s.cert.GC(low)
	}
}

// changeView begins a new view.
func (s *State) changeView() {
	s.viewSeq++
	s.viewDirty = true
}
