package consensus

import (
	"testing"

	"cohort/consensus/state"
)

// Whoever answers says where the ONLINE members are now, not where they were.
func TestPeerAddresses(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	was := c.members[2].node.View()
	for _, m := range c.members[:2] {
		info := state.MemberInfo{UUID: c.uuid(m), ServerVersion: 90704, PeerAddress: "now:" + c.uuid(m)}
		if _, _, err := m.node.Join(c.ctx(), info); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.members[1].node.SetState(c.ctx(), state.StateOnline); err != nil {
		t.Fatal(err)
	}
	c.settle()
	c.close(c.members[0]) // does not answer
	at := c.members[2].node.PeerAddresses(c.ctx(), was)
	if len(at) != 1 || at[2] != "now:"+c.uuid(c.members[1]) {
		t.Error(at)
	}
	other := *was
	other.Lineage++
	if at := c.members[2].node.PeerAddresses(c.ctx(), &other); len(at) != 0 {
		t.Errorf("of another group: %v", at)
	}
}

func (c *cluster) uuid(m *testMember) string {
	c.t.Helper()
	x, ok := c.members[2].node.View().Member(m.id)
	if !ok {
		c.t.Fatalf("no member %d", m.id)
	}
	return x.Info.UUID
}
