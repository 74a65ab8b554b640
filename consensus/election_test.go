package consensus

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"cohort/consensus/state"
)

// joinAs makes a member ONLINE with what elections look at.
func (c *cluster) joinAs(m *testMember, version, weight uint64, uuid string) uint64 {
	c.t.Helper()
	inc, _, err := m.node.Join(c.ctx(), state.MemberInfo{UUID: uuid, ServerVersion: version, Weight: weight})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := m.node.SetState(c.ctx(), state.StateOnline); err != nil {
		c.t.Fatal(err)
	}
	return inc
}

// A primary that another member reports OFFLINE is replaced by that very entry,
// and what it proposes afterwards in its old epoch aborts.
func TestElection(t *testing.T) {
	type info struct {
		version, weight uint64
		uuid            string
	}
	for name, x := range map[string]struct {
		second, third info
		want          uint64
	}{
		"version": {info{90704, 90, "b"}, info{80403, 10, "c"}, 3},
		"weight":  {info{90704, 10, "b"}, info{90704, 90, "c"}, 3},
		"uuid":    {info{90704, 50, "c"}, info{90704, 50, "b"}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3, nil)
			p, s2, s3 := c.members[0], c.members[1], c.members[2]
			if _, err := p.node.Bootstrap(c.ctx(), state.Bootstrap{Primary: 1}); err != nil {
				t.Fatal(err)
			}
			life := c.joinAs(p, 90704, 50, "a")
			c.joinAs(s2, x.second.version, x.second.weight, x.second.uuid)
			c.joinAs(s3, x.third.version, x.third.weight, x.third.uuid)
			submit(t, c, p, "before", 5)
			if err := s2.node.SetMemberState(c.ctx(), 1, life, state.StateOffline); err != nil {
				t.Fatal(err)
			}
			c.settle()
			v := p.node.View()
			if v.Primary != x.want || v.Epoch != 2 || v.PrimarySince != 5 {
				t.Fatalf("%+v", v)
			}
			for _, epoch := range []uint64{1, 2} {
				y := proposal(fmt.Sprint("late", epoch), 5, 1000, nil)
				y.Epoch = epoch
				if err := p.node.Submit(c.ctx(), y); err != nil {
					t.Fatal(err)
				}
				if d := p.rec.verdict(t, y.XID); d.Committed || d.Reason != state.ReasonEpoch || d.Errno != state.ErrnoConflict {
					t.Fatalf("epoch %d: %+v", epoch, d)
				}
			}
			// The life that was reported OFFLINE stays so; the next one serves.
			if err := p.node.SetState(c.ctx(), state.StateOnline); !errors.Is(err, ErrFenced) {
				t.Fatal(err)
			}
			c.joinAs(p, 90704, 100, "a")
			if v := p.node.View(); v.Primary != x.want || v.Epoch != 2 {
				t.Fatalf("%+v", v)
			}
			submit(t, c, c.members[x.want-1], "after", 5)
			c.same()
		})
	}
}

// The same outcome for those that hear of it from a checkpoint and the rest of
// the log.
func TestElectionSurvivesARestart(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	m := c.members[0]
	submit(t, c, m, "a", 5)
	if err := c.members[1].node.SetMemberState(c.ctx(), 1, m.node.Proposer().Incarnation(), state.StateOffline); err != nil {
		t.Fatal(err)
	}
	c.settle()
	for range 2 {
		c.close(m) // with a checkpoint
		c.open(m)
		c.settle()
		if v := m.node.View(); v.Primary != 2 || v.Epoch != 2 || v.PrimarySince != 5 {
			t.Fatalf("%+v", v)
		}
	}
	c.crash(c.members[1])
	c.open(c.members[1])
	c.same()
}

func TestAppointments(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	n := c.members[0].node
	v, _ := n.View().Member(3)
	if err := n.SetMemberState(c.ctx(), 3, v.Incarnation, state.StateOffline); err != nil {
		t.Fatal(err)
	}
	if e, err := n.AppointPrimary(c.ctx(), 3, 1); !errors.Is(err, ErrNotAppointed) || e != 1 {
		t.Fatalf("a member that is OFFLINE: %d, %v", e, err)
	}
	if e, err := n.AppointPrimary(c.ctx(), 1, 1); err != nil || e != 1 {
		t.Fatalf("the primary: %d, %v", e, err)
	}
	if e, err := n.AppointPrimary(c.ctx(), 2, 1); err != nil || e != 2 {
		t.Fatalf("%d, %v", e, err)
	}
	if e, err := n.AppointPrimary(c.ctx(), 2, 1); err != nil || e != 2 {
		t.Fatalf("the same again: %d, %v", e, err)
	}
	if e, err := n.AppointPrimary(c.ctx(), 1, 1); !errors.Is(err, ErrNotAppointed) || e != 2 {
		t.Fatalf("on an old epoch: %d, %v", e, err)
	}
}

// Attempts to hand over to a primary that does not keep leadership become rare; another
// primary, or one that has kept it, is tried at once.
func TestFollowIsPatient(t *testing.T) {
	var f follow
	now := time.Unix(1000, 0)
	tries := func(to uint64, seconds int) (n int) {
		for range seconds {
			if f.due(now, to) {
				n++
			}
			now = now.Add(time.Second)
		}
		return n
	}
	if n := tries(1, 63); n != 7 { // at 0, 1, 3, 7, 15, 31 and 61 s
		t.Errorf("%d attempts", n)
	}
	if n := tries(1, 60); n != 2 {
		t.Errorf("%d attempts later", n)
	}
	if n := tries(2, 1); n != 1 {
		t.Error("another primary has to wait")
	}
	tries(2, 10)
	now = now.Add(5 * time.Minute)
	if n := tries(2, 2); n != 2 { // at 0 and 1 s
		t.Error("one that kept it has to wait")
	}
}
