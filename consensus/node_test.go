package consensus

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cohort/consensus/state"
)

// submit proposes count transactions and waits for their verdicts, which must

// be to commit, in order.

func submit(t testing.TB, c *cluster, m *testMember, prefix string, count int) {
	t.Helper()
	for i := range count {
		if err := m.node.Submit(c.ctx(), proposal(fmt.Sprintf("%s%d", prefix, i), m.node.LastN(), uint64(i)+100, []byte("body"))); err != nil {
			t.Fatal(err)
		}
	}
	var prev uint64
	for i := range count {
		d := m.rec.verdict(t, fmt.Sprintf("%s%d", prefix, i))
		if !d.Committed || d.N <= prev {
			t.Fatalf("%s%d: %+v after %d", prefix, i, d, prev)
		}
		prev = d.N
	}
}

func TestOrder(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	m := c.members[0]
	submit(t, c, m, "x", 500)
	if m.node.LastN() != 500 {
		t.Fatalf("last %d", m.node.LastN())
	}
	c.same()
	v := c.members[2].node.View()
	if v.Primary != 1 || len(v.Members) != 3 || v.Members[2].State != state.StateOnline || v.GroupName != testGroup {
		t.Fatalf("%+v", v)
	}
	if o, ok := c.members[1].node.Verdict("x7"); !ok || o.N != 8 {
		t.Fatalf("%+v %t", o, ok)
	}
	a, ok1 := c.members[0].node.ChecksumAt(250)
	b, ok2 := c.members[2].node.ChecksumAt(250)
	if !ok1 || !ok2 || a != b {
		t.Fatalf("checksums %x %t, %x %t", a, ok1, b, ok2)
	}
	// Every member was told the same, in the same order.
	var first []state.Decision
	for _, m := range c.members {
		// It is told after it has applied.
		m.rec.wait(t, "all decisions", func() bool { return len(m.rec.list) > 0 && m.rec.list[len(m.rec.list)-1].XID == "x499" })
		m.rec.mu.Lock()
		list := append([]state.Decision(nil), m.rec.list...)
		m.rec.mu.Unlock()
		if first == nil {
			first = list
		} else if fmt.Sprint(first) != fmt.Sprint(list) {
			t.Fatalf("member %d was told something else", m.id)
		}
	}
}

func TestMemberGoesAndComesBack(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprintf("crash=%t", crash), func(t *testing.T) {
			c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointInterval = 20 * time.Millisecond })
			c.found()
			submit(t, c, c.members[0], "a", 100)
			m := c.members[2]
			if crash {
				c.crash(m)
			} else {
				c.close(m)
			}
			submit(t, c, c.members[0], "b", 200)
			c.open(m)
			submit(t, c, c.members[0], "c", 50)
			c.same()
			if _, ok := m.node.Verdict("b150"); !ok {
				t.Fatal("a verdict given meanwhile is missing")
			}
		})
	}
}

func TestAllRestart(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprintf("crash=%t", crash), func(t *testing.T) {
			c := newCluster(t, 3, nil) // no checkpoint comes by itself within the test
			c.found()
			submit(t, c, c.members[0], "a", 300)
			for _, m := range c.members {
				if crash {
					c.crash(m)
				} else {
					c.close(m)
				}
			}
			for _, m := range c.members {
				c.open(m)
			}
			m := c.members[0]
			if n, err := m.node.ReadIndex(c.ctx()); err != nil || n != 300 {
				t.Fatalf("%d, %v", n, err)
			}
			if o, ok := m.node.Verdict("a299"); !ok || o.N != 300 {
				t.Fatalf("%+v %t", o, ok)
			}
			for _, m := range c.members {
				c.join(m)
			}
			submit(t, c, m, "b", 50)
			c.same()
		})
	}
}

// The primary's member dies with proposals on their way: each is either ordered

// or fenced, and what was ordered stays.

// Leadership moves again and again while proposals are on their way.

// The leader dies with proposals of another member on their way.

// Entries that time out although they arrive are sent twice and counted once.

// noise is a body of incompressible bytes that costs no memory.

// bigProposal has a body of size bytes that lacks the last missing ones.

// A member that crashes between fragments finds the ones it had.

// gated stops after so many bytes until the gate opens.

func (m *testMember) wait(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		<-tick.C
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// A transaction of 150 MB passes while small ones go on, and memory stays low,

// with three nodes and their groups' binlogs in this process.

func TestReadIndex(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	ctx := c.ctx()
	var last atomic.Uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 300 {
			xid := fmt.Sprint("x", i)
			if err := c.members[0].node.Submit(ctx, proposal(xid, 0, uint64(i), nil)); err != nil {
				t.Error(err)
				return
			}
			last.Store(c.members[0].rec.verdict(t, xid).N)
		}
	}()
	var wg sync.WaitGroup
	for r := range 8 {
		wg.Go(func() {
			n := c.members[r%3].node
			for {
				select {
				case <-done:
					return
				default:
				}
				before := last.Load()
				got, err := n.ReadIndex(ctx)
				if err != nil || got < before {
					t.Errorf("read %d, %v, but %d was acknowledged before", got, err, before)
					return
				}
			}
		})
	}
	wg.Wait()
	<-done
}

func TestLeadershipFollowsThePrimary(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.FollowPrimary = true })
	c.found()
	m := c.members[1]
	if err := c.members[0].node.TransferLeader(c.ctx(), 3); err != nil {
		t.Fatal(err)
	}
	m.wait(t, "leadership to come home", func() bool { return m.node.LeaderID() == 1 })
	if e, err := m.node.AppointPrimary(c.ctx(), 2, 1); err != nil || e != 2 {
		t.Fatalf("%d, %v", e, err)
	}
	m.wait(t, "leadership to follow", func() bool { return m.node.LeaderID() == 2 })
	submit(t, c, m, "x", 10)
	c.same()
}

func TestNotFoundedNotJoined(t *testing.T) {
	c := newCluster(t, 1, nil)
	n := c.members[0].node
	if _, _, err := n.Join(c.ctx(), state.MemberInfo{}); !errors.Is(err, ErrNotFounded) {
		t.Fatal(err)
	}
	if err := n.Submit(c.ctx(), proposal("x", 0, 1, nil)); !errors.Is(err, ErrNotJoined) {
		t.Fatal(err)
	}
	if err := n.SetState(c.ctx(), state.StateOnline); !errors.Is(err, ErrNotJoined) {
		t.Fatal(err)
	}
	if n.View().Founded {
		t.Fatal("founded")
	}
}

// The log is compacted by size, and a member that was away longer than it

// reaches back is refused with a clear error, unless it has all rows.

// With the real group binlog: all members hold the same bytes.
