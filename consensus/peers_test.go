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

// Whoever asks says of a life that is OFFLINE why, and nothing of any other.
func TestErrorIsSaidOfTheOffline(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	ctx := c.ctx()
	one, two := c.members[0].node, c.members[1].node
	m, _ := two.View().Member(2)
	q := question{Op: askFailed, Group: one.cfg.GroupName, Member: 2, Replica: m.Replica}
	if a := one.answer(ctx, &q); a.Code == "" {
		t.Error("of a member that lives")
	}
	if err := one.SetMemberState(ctx, 2, m.Incarnation, state.StateOffline); err != nil {
		t.Fatal(err)
	}
	other := q
	other.Replica++
	if a := one.answer(ctx, &other); a.Code == "" {
		t.Error("of another replica")
	}
	for range 2 { // once more does nothing
		for !two.tellFailed(ctx) {
			if err := ctx.Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.settle()
	if m, _ = one.View().Member(2); m.State != state.StateError {
		t.Error(m.State)
	}
}
