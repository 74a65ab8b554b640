package consensus

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"cohort/consensus/state"
	"cohort/internal/pause"
)

// TestCampaign: who campaigns leads, without waiting for an election timeout, and
// nothing that was accepted is lost.
func TestCampaign(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	for round := range 6 {
		m := c.members[round%3]
		m.wait(t, "a leader", func() bool { return m.node.LeaderID() != 0 })
		leader := m.node.LeaderID()
		if err := m.node.Campaign(leader%3 + 1); !errors.Is(err, ErrNoCampaign) {
			t.Fatalf("against who does not lead: %v", err)
		}
		if leader == m.node.cfg.ReplicaID {
			if err := m.node.Campaign(leader); !errors.Is(err, ErrNoCampaign) {
				t.Fatalf("against itself: %v", err)
			}
			continue
		}
		submit(t, c, c.members[0], fmt.Sprint("r", round, "-"), 5)
		// A member that lacks an entry that a majority has gets no vote, and where
		// the machine is slow the third may be elected: try again.
		m.wait(t, "the election", func() bool {
			now := m.node.LeaderID()
			if now == m.node.cfg.ReplicaID {
				return true
			}
			if err := m.node.Campaign(now); err != nil && !errors.Is(err, ErrNoCampaign) {
				t.Fatal(err)
			}
			return false
		})
		for _, o := range c.members {
			o.wait(t, "the new leader", func() bool { return o.node.LeaderID() == m.node.cfg.ReplicaID })
		}
	}
	c.same()
}

// TestHandOverToABusyMember: leadership goes to a member that is still applying what
// it knows to be committed, as soon as it has, and not after the election timeout for
// which the leader would take no proposals.
func TestHandOverToABusyMember(t *testing.T) {
	// Nobody else campaigns meanwhile.
	c := newCluster(t, 3, func(cfg *Config) { cfg.ElectionRTT = 1000 })
	for _, o := range c.members {
		o.node.SetDoubt(func(uint64) bool { return true }) // nobody hands over by itself
	}
	from, to := c.members[0], c.members[1]
	if err := from.node.Campaign(0); err != nil {
		t.Fatal(err)
	}
	c.found()
	from = c.members[from.node.LeaderID()-1]
	to = c.members[from.id%3]
	ctx := c.ctx()
	applying := make(chan struct{})
	var once sync.Once
	to.rec.mu.Lock()
	to.rec.hook = func([]state.Decision) {
		once.Do(func() { close(applying) })
		// Until it was called upon to campaign, too early.
		for !to.node.insisting.Load() && pause.For(ctx, time.Millisecond) == nil {
		}
		_ = pause.For(ctx, 20*time.Millisecond)
	}
	to.rec.mu.Unlock()
	if err := from.node.Submit(c.ctx(), proposal("x", 0, 1, []byte("body"))); err != nil {
		t.Fatal(err)
	}
	from.rec.verdict(t, "x")
	<-applying
	h, err := from.node.raft()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.nh.RequestLeaderTransfer(shardID, to.id); err != nil {
		t.Fatal(err)
	}
	to.wait(t, "leadership", func() bool { return to.node.LeaderID() == to.id })
	c.same()
}
