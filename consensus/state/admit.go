package state

import (
	"math"
	"slices"
	"strings"
)

// MaxMembers is the largest number of members, as in Group Replication.
const MaxMembers = 9

// What the proposer of a Join or an Admit is told that was refused. No
// incarnation and no replica id is so large.
const (
	// RefusedDuplicateUUID: another member has the server_uuid.
	RefusedDuplicateUUID = math.MaxUint64 - iota
	// RefusedDuplicateServerID: a member of the group has the server_id.
	RefusedDuplicateServerID
	// RefusedDuplicateAddress: a member of the group has the address.
	RefusedDuplicateAddress
	// RefusedFull: the group has MaxMembers members.
	RefusedFull
	// RefusedPresent: the group still counts an earlier life of the member as
	// there. It will not, once it has noticed.
	RefusedPresent
	// RefusedNotAdmitted: the replica that the Join names is not, or no longer,
	// the member's.
	RefusedNotAdmitted

	// FirstRefusal is the smallest of them.
	FirstRefusal = RefusedNotAdmitted
)

// applyAdmit gives a member a replica of the log. Its id is new whatever the
// member had before: a replica that was removed, or whose log is lost, must never
// vote again, and nobody can tell such a one from the same id begun anew.
//
// The replica has no vote before its member joins.
func (s *State) applyAdmit(body []byte, sink Sink) (uint64, error) {
	var a Admit
	if err := a.decode(body); err != nil {
		return 0, err
	}
	if !s.founded || a.Member == 0 || a.Nonce == 0 || a.Address == "" {
		return 0, nil
	}
	m := s.member(a.Member)
	if m != nil && m.admitted == a.Nonce && m.Replica != 0 {
		return m.Replica, nil
	}
	if no := s.refusal(&a, m); no != 0 {
		return no, nil
	}
	if m == nil {
		m = s.insert(a.Member)
	}
	s.replicas++
	m.Replica, m.Voter, m.admitted, m.Address = s.replicas, false, a.Nonce, a.Address
	m.Info.UUID, m.Info.ServerID = a.UUID, a.ServerID
	s.changeView()
	sink.Decided(Decision{Index: s.index, Kind: KindAdmit, Origin: m.ID, Incarnation: m.Incarnation,
		State: m.State, N: s.LastN(), Epoch: s.epoch, Committed: true})
	return m.Replica, nil
}

// refusal is why a member is not admitted, 0 for no reason. m is what is known of
// it, or nil.
func (s *State) refusal(a *Admit, m *Member) uint64 {
	if s.uuidTaken(a.UUID, a.Member) {
		return RefusedDuplicateUUID
	}
	if m != nil && m.Replica != 0 && (m.State == StateOnline || m.State == StateRecovering) {
		if m.Address != "" && !strings.EqualFold(m.Address, a.Address) {
			return RefusedDuplicateUUID // ids come from the server_uuid
		}
		return RefusedPresent
	}
	present := len(s.unclaimed)
	for _, o := range s.members {
		if o.ID == a.Member || o.Replica == 0 {
			continue
		}
		switch present++; {
		case a.ServerID != 0 && o.Info.ServerID == a.ServerID:
			return RefusedDuplicateServerID
		case strings.EqualFold(o.Address, a.Address):
			return RefusedDuplicateAddress
		}
	}
	if present >= MaxMembers {
		return RefusedFull
	}
	return 0
}

// applyEvict takes a member's replica out of the log, which the log's leader then
// carries out. The last vote stays: without it nobody could ever decide anything
// again. It is still the group's when its member is not.
func (s *State) applyEvict(body []byte, sink Sink) (uint64, error) {
	var e Evict
	if err := e.decode(body); err != nil {
		return 0, err
	}
	m := s.member(e.Member)
	if m == nil || m.Replica == 0 || m.Replica != e.Replica || m.Incarnation != e.Incarnation ||
		m.State != StateOffline && m.State != StateError {
		return 0, nil
	}
	others := func(o *Member) bool { return o != m && o.Replica != 0 && o.Voter }
	if m.Voter && len(s.unclaimed) == 0 && !slices.ContainsFunc(s.members, others) {
		return 0, nil
	}
	m.Replica, m.Voter = 0, false
	s.changeView()
	sink.Decided(Decision{Index: s.index, Kind: KindEvict, Origin: m.ID, Incarnation: m.Incarnation,
		State: m.State, N: s.LastN(), Epoch: s.epoch, Committed: true})
	return 1, nil
}
