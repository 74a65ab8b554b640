package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"cohort/consensus/state"
	"cohort/internal/pause"
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

// campaigns calls an election of the log as soon as its leader is known to be gone:
// its process has ended (its channel was up and nobody listens there any more), or a
// majority has not heard it for a while. Raft's own election may come sooner.
func (m *Member) campaigns(ctx context.Context) error {
	var gone uint64
	var since time.Time
	for pause.For(ctx, campaignEvery) == nil {
		leader := m.opt.Node.LeaderID()
		why := ""
		if leader != 0 && leader != m.opt.ReplicaID {
			why = m.lost(leader)
		}
		if why == "" {
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
		if why == leaderSilent && !m.othersMiss(ctx, v, leader) {
			continue
		}
		if err := m.opt.Node.Campaign(leader); err == nil {
			m.log.Info().Uint64("leader", leader).Str("it", why).Msg("the log has lost its leader: calling an election")
			since = now.Add(campaignTurn * time.Duration(len(v.Members)))
		}
	}
	return nil
}

// Why the leader of the log is taken for gone.
const (
	leaderEnded  = "has ended"
	leaderSilent = "is silent"
)

// lost says why this member takes the leader of the log for gone, "" if it does not.
func (m *Member) lost(leader uint64) string {
	if m.ended(leader) {
		return leaderEnded
	}
	if e, ok := m.of(leader); ok && e.silent >= m.detection().callElection() {
		return leaderSilent
	}
	return ""
}

// ended reports whether the process of a member's present life is known to have
// ended.
func (m *Member) ended(id uint64) bool {
	v, ok := m.opt.Node.View().Member(id)
	if !ok {
		return false
	}
	c, ok := m.contact(id)
	return ok && c.Refused && c.Target == targetOf(&v)
}

const (
	// methodSilent asks a member for how long another has been silent to it.
	methodSilent = "silent"
	// silentCall is how long an answer may take.
	silentCall = 100 * time.Millisecond
)

// silentRequest names the member in question, silentAnswer says what is known.
type (
	silentRequest struct{ Member, Incarnation uint64 }
	silentAnswer  struct {
		Known  bool
		Silent time.Duration
	}
)

// onSilent answers a request of the members' channel.
func (m *Member) onSilent(_ context.Context, payload []byte) ([]byte, error) {
	var q silentRequest
	if err := json.Unmarshal(payload, &q); err != nil {
		return nil, fmt.Errorf("silent: %w", err)
	}
	var a silentAnswer
	if x, ok := m.opt.Node.View().Member(q.Member); ok && x.Incarnation == q.Incarnation {
		e, ok := m.of(q.Member)
		a = silentAnswer{Known: ok, Silent: e.silent}
	}
	return json.Marshal(a)
}

// othersMiss says whether a majority of the votes, this member's among them, has not
// heard the leader for about as long as this member. A leader that only this member
// cannot hear leads on: raft's votes are not to be asked for then, since those of
// Campaign are given to whoever asks.
func (m *Member) othersMiss(ctx context.Context, v *state.View, leader uint64) bool {
	d := m.detection()
	enough := d.callElection() - 2*d.Heartbeat
	x, _ := v.Member(leader)
	payload, err := json.Marshal(silentRequest{leader, x.Incarnation})
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, silentCall)
	defer cancel()
	votes, asked := len(v.Unclaimed), 0
	miss := make(chan bool, len(v.Members))
	var wg sync.WaitGroup
	for i := range v.Members {
		o := &v.Members[i]
		if o.Voter {
			votes++
		}
		s := m.subs.get(o.ID)
		if !o.Voter || o.ID == leader || o.ID == m.opt.ReplicaID || s == nil {
			continue
		}
		asked++
		wg.Go(func() {
			var a silentAnswer
			b, err := s.Call(ctx, methodSilent, payload)
			if err == nil {
				err = json.Unmarshal(b, &a)
			}
			miss <- err == nil && a.Known && a.Silent >= enough
		})
	}
	defer wg.Wait()
	defer cancel() // who is still asked is not waited for
	for missed := 1; ; asked-- {
		switch {
		case missed > votes/2:
			return true
		case asked == 0:
			return false
		}
		if <-miss {
			missed++
		}
	}
}
