package consensus

import (
	"errors"
	"fmt"
	"testing"
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
