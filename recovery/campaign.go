package recovery

import (
	"context"
	"time"

	"cohort/consensus/state"
)

const (
	// campaignTurn is how long a member waits for each of those before it in the
	// succession: an election takes some 20 ms, and two at a time can end without
	// a leader, which costs an election timeout.
	campaignTurn = 200 * time.Millisecond
	// campaignEvery is the pause between two looks at the leader.
	campaignEvery = 25 * time.Millisecond
)

// turn is self's place in the succession of a leader that is gone, from 0. The
// order is that in which members become the primary, so that the log is led from
// where it will be written. Who is not ONLINE has no place.
func turn(v *state.View, self, gone uint64) (int, bool) {
	var members []state.Member
	for i := range v.Members {
		if v.Members[i].ID != gone {
			members = append(members, v.Members[i])
		}
	}
	for place := 0; ; place++ {
		id, ok := state.Elect(members)
		if !ok || id == self {
			return place, ok
		}
		for i := range members {
			if members[i].ID == id {
				members[i].State = state.StateOffline
			}
		}
	}
}

// campaigns calls an election of the log as soon as the process of its leader is
// known to have ended: its channel was up and nobody listens there any more. A
// leader that is only silent is raft's own business.
func (m *Member) campaigns(ctx context.Context) error {
	var gone uint64
	var since time.Time
	for pause(ctx, campaignEvery) == nil {
		leader := m.opt.Node.LeaderID()
		if leader == 0 || leader == m.opt.ReplicaID || !m.ended(leader) {
			gone = 0
			continue
		}
		now := time.Now()
		if leader != gone {
			gone, since = leader, now
		}
		v := m.opt.Node.View()
		place, ok := turn(v, m.opt.ReplicaID, leader)
		if !ok || now.Sub(since) < time.Duration(place)*campaignTurn {
			continue
		}
		if err := m.opt.Node.Campaign(leader); err == nil {
			m.log.Info().Uint64("leader", leader).Msg("the process that led the log has ended: calling an election")
			since = now.Add(campaignTurn * time.Duration(len(v.Members)))
		}
	}
	return nil
}

// ended reports whether the process of a member's present life is known to have
// ended.
func (m *Member) ended(id uint64) bool {
	sub := m.subs.get(id)
	if sub == nil {
		return false
	}
	v, ok := m.opt.Node.View().Member(id)
	if !ok {
		return false
	}
	c, ok := sub.Contact()
	return ok && c.Refused && c.Target == targetOf(&v)
}
