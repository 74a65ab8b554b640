package consensus

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"cohort/consensus/state"
)

func TestDuplicateUUIDDoesNotJoin(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	c.settle()
	m := c.members[1]
	before := m.node.View()
	if _, _, err := m.node.Join(c.ctx(), state.MemberInfo{UUID: "UUID-1"}); !errors.Is(err, ErrDuplicateUUID) {
		t.Fatal(err)
	}
	if m.node.View().Seq != before.Seq {
		t.Fatalf("%+v", m.node.View())
	}
	if err := m.node.SetState(c.ctx(), state.StateOnline); !errors.Is(err, ErrNotJoined) {
		t.Fatal(err)
	}
	c.join(m)
	submit(t, c, c.members[0], "x", 5)
	c.same()
}

// What was on its way to a leader that died is sent to the next one at once, not
// when its time is over.
func TestControlEntriesFollowTheLeader(t *testing.T) {
	const alone = 2 * time.Minute // until a lost entry would be sent again by itself
	c := newCluster(t, 3, func(cfg *Config) { cfg.controlTimeout = alone })
	c.found()
	n := c.members[0].node
	if err := n.TransferLeader(c.ctx(), 3); err != nil {
		t.Fatal(err)
	}
	life := n.Proposer().Incarnation()
	ctx, dead := c.ctx(), make(chan struct{})
	var begun, all sync.WaitGroup
	for range 8 { // so that some are on their way when it dies
		begun.Add(1)
		all.Go(func() {
			first := sync.OnceFunc(begun.Done)
			defer first()
			for last := false; !last; first() {
				select {
				case <-dead:
					last = true
				default:
				}
				if err := n.SetMemberState(ctx, 1, life, state.StateOnline); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	begun.Wait()
	c.crash(c.members[2])
	died := time.Now()
	close(dead)
	all.Wait()
	if took := time.Since(died); took > alone/2 {
		t.Errorf("entries waited for %s", took)
	}
	c.same()
}

func TestBaseReachesEveryMember(t *testing.T) {
	c := newCluster(t, 3, nil)
	n := c.members[0].node
	if _, err := n.Bootstrap(c.ctx(), state.Bootstrap{Primary: 1, Base: strings.Repeat("x", state.MaxBase+1)}); !errors.Is(err, ErrBaseTooLong) {
		t.Fatal(err)
	}
	base := strings.Repeat("u:1-5,", 1000)
	if _, err := n.Bootstrap(c.ctx(), state.Bootstrap{Primary: 1, Base: base}); err != nil {
		t.Fatal(err)
	}
	c.settle()
	for _, m := range c.members {
		if m.node.View().Base != base {
			t.Fatalf("member %d: base of %d bytes", m.id, len(m.node.View().Base))
		}
	}
	m := c.members[2]
	c.close(m)
	c.open(m)
	m.wait(t, "the base after a restart", func() bool { return m.node.View().Base == base })
}

func TestForcedVerdictsAreBounded(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.found()
	n := c.members[0].node
	xids := make([]string, state.MaxForced)
	for i := range xids {
		xids[i] = fmt.Sprint("f", i)
	}
	out, err := n.ForceVerdictOf(c.ctx(), n.Proposer().Incarnation(), xids)
	if err != nil || len(out) != len(xids) {
		t.Fatal(err)
	}
	if _, err := n.ForceVerdict(c.ctx(), []string{"f1", "more"}); !errors.Is(err, ErrTooManyAborts) {
		t.Fatal(err)
	}
	// Known ones have their verdict all the same, and a proposal that comes makes
	// room for another.
	if out, err := n.ForceVerdict(c.ctx(), xids[:2]); err != nil || out[1].Committed {
		t.Fatalf("%+v, %v", out, err)
	}
	if err := n.Submit(c.ctx(), proposal("f1", 0, 1, nil)); err != nil {
		t.Fatal(err)
	}
	c.members[0].rec.wait(t, "the answer to the origin", func() bool {
		l := c.members[0].rec.list
		d := l[len(l)-1]
		return d.Kind == state.KindTxn && d.XID == "f1" && d.Repeated && !d.Committed && d.Origin == 1 &&
			d.Incarnation == n.Proposer().Incarnation()
	})
	if _, err := n.ForceVerdict(c.ctx(), []string{"more"}); err != nil {
		t.Fatal(err)
	}
}
