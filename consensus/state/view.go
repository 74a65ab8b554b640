package state

import (
	"fmt"
	"slices"
)

// View is an immutable picture of the group.
type View struct {
	// Founded is false before the first Bootstrap.
	Founded   bool
	GroupName string
	// Lineage tells this history from others, also from those that the group had
	// in common with it until a membership was forced, see Forks.
	Lineage uint64
	// Founding is the lineage that the group began with.
	Founding uint64
	// Forks are the memberships that were forced, the oldest first.
	Forks []Fork
	// Base is the founding member's gtid_executed as text, see Bootstrap.
	Base string
	// Rules is the version of the decision rules in force.
	Rules uint64
	// Seq counts the changes of the view.
	Seq uint64
	// Primary is a member's id, 0 for none.
	Primary uint64
	Epoch   uint64
	// PrimarySince is LastN as it was when Primary was appointed: what later
	// numbers stand for was ordered in Epoch.
	PrimarySince uint64
	// Settings are those that every member must share, one name=value a line.
	Settings string
	// Members are all that were ever admitted or joined, by ID, whatever their
	// state.
	Members []Member
	// Unclaimed are the replicas that the log was begun with and that no member
	// joined with yet.
	Unclaimed []uint64
	// LastReplica is the last replica id that was given.
	LastReplica uint64
	// LastN is the last group transaction number given, Horizon that of the
	// certification map, Index the raft index.
	LastN, Horizon, Index uint64
	Checksum              uint64
}

// ViewID returns the identifier as MySQL shows it: a constant part and a
// counter.
func (v *View) ViewID() string { return fmt.Sprintf("%d:%d", v.Founding, v.Seq) }

// Member returns the member with the id.
func (v *View) Member(id uint64) (Member, bool) {
	for i := range v.Members {
		if v.Members[i].ID == id {
			return v.Members[i], true
		}
	}
	return Member{}, false
}

// MemberByUUID returns the member whose mysqld has the server_uuid.
func (v *View) MemberByUUID(uuid string) (Member, bool) {
	for i := range v.Members {
		if v.Members[i].Info.UUID == uuid {
			return v.Members[i], true
		}
	}
	return Member{}, false
}

// MemberByReplica returns the member that has the replica of the log.
func (v *View) MemberByReplica(replica uint64) (Member, bool) {
	i := slices.IndexFunc(v.Members, func(m Member) bool { return replica != 0 && m.Replica == replica })
	if i < 0 {
		return Member{}, false
	}
	return v.Members[i], true
}

// View returns a picture of the current state.
func (s *State) View() *View {
	v := &View{Founded: s.founded, GroupName: s.boot.GroupName, Lineage: s.lineage, Founding: s.boot.Lineage, Forks: slices.Clone(s.forks), Base: s.boot.Base,
		Rules: s.rules, Seq: s.viewSeq, Primary: s.primary, Epoch: s.epoch, PrimarySince: s.primarySince,
		LastN: s.LastN(), Horizon: s.Horizon(), Index: s.index, Checksum: s.checksum,
		Settings: s.boot.Settings, Members: make([]Member, len(s.members)), Unclaimed: slices.Clone(s.unclaimed), LastReplica: s.replicas}
	for i, m := range s.members {
		v.Members[i] = *m
		v.Members[i].fenced, v.Members[i].stream, v.Members[i].replaced = nil, nil, 0
	}
	return v
}

// TakeViewChange reports whether members, primary or watermarks changed since
// it was last asked.
func (s *State) TakeViewChange() bool {
	d := s.viewDirty
	s.viewDirty = false
	return d
}
