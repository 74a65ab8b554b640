package recovery

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"cohort/internal/pause"
)

// clients stand for a member's proxy: what runs is what the test says.
type clients struct {
	mu      sync.Mutex
	running int
	oldest  time.Duration
	held    []bool // every call of Hold, with its argument
	waiting bool
	refused bool // and not held
	ended   int
}

func (c *clients) Hold(all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held, c.waiting = append(c.held, all), true
}

func (c *clients) Refuse(all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held, c.waiting, c.refused = append(c.held, all), true, true
}

func (c *clients) Vacated(context.Context) {}

func (c *clients) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended++
}

func (c *clients) refuses() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

func (c *clients) ends() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

func (c *clients) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = false
}

func (c *clients) Drain(ctx context.Context, _ bool) (int, time.Duration) {
	for {
		c.mu.Lock()
		n, oldest := c.running, c.oldest
		c.mu.Unlock()
		if n == 0 || pause.For(ctx, time.Millisecond) != nil {
			return n, oldest
		}
	}
}

func (c *clients) run(n int, oldest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running, c.oldest = n, oldest
}

func (c *clients) state() (waiting bool, holds int, all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting, len(c.held), len(c.held) > 0 && c.held[len(c.held)-1]
}

// withClients starts a group of members whose clients are the test's.
func withClients(t *testing.T) (*testGroup, map[*testMember]*clients) {
	t.Helper()
	all := make(map[uint64]*clients)
	g := emptyGroup(t)
	g.clients = func(id uint64) Sessions {
		if all[id] == nil {
			all[id] = &clients{}
		}
		return all[id]
	}
	startGroup(g, 2, 1)
	g.ddl("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)")
	by := make(map[*testMember]*clients)
	for _, m := range g.servers() {
		by[m] = all[m.id]
	}
	until(t, "the members know each other", func() bool {
		for _, m := range g.servers() {
			for _, o := range g.servers() {
				if s := m.member.subs.get(o.id); o != m && (s == nil || !s.Up()) {
					return false
				}
			}
		}
		return true
	})
	return g, by
}

// The clients of all members wait, and not longer than until the new primary is
// appointed; whichever member makes the change.
func TestSwitchHoldsTheClientsOfAllMembers(t *testing.T) {
	g, by := withClients(t)
	p, m := g.all[0], g.all[1]
	by[m].run(1, 0)
	done := make(chan error, 1)
	go func() { done <- p.member.SwitchPrimaryWithin(g.ctx(), m.uuid, deadline) }()
	for _, x := range []*testMember{p, m} {
		until(t, "its clients wait", func() bool { waiting, _, all := by[x].state(); return waiting && !all })
	}
	if v := p.node.View(); v.Primary != p.id {
		t.Fatal("the primary changed while a transaction ran")
	}
	for x, want := range map[*testMember]string{p: stagePending, m: stageElsewhere} {
		until(t, "the stage is told", func() bool { s := x.member.Stages(); return len(s) == 1 && s[0].Name == want })
		if !by[x].refuses() {
			t.Error("with a limit new transactions wait")
		}
		if err := x.member.SetWeight(g.ctx(), 60); !errors.Is(err, ErrActing) {
			t.Errorf("a weight during a change: %v", err)
		}
	}
	if err := m.member.SwitchPrimary(g.ctx(), m.uuid); !errors.Is(err, ErrSwitching) {
		t.Errorf("another change at the same time: %v", err)
	}
	if waiting, _, _ := by[p].state(); !waiting {
		t.Error("the change that came second ended the hold of the first")
	}
	by[m].run(0, 0)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, x := range []*testMember{p, m} {
		until(t, "its clients go on", func() bool { waiting, _, _ := by[x].state(); return !waiting })
		until(t, "the stage is over", func() bool { return len(x.member.Stages()) == 0 })
		if n := by[x].ends(); n != 0 {
			t.Error("connections were ended before the limit")
		}
		if _, _, all := by[x].state(); !all {
			t.Errorf("member %d: not everything waited", x.id)
		}
	}
	g.online(p)
	g.write(m, "INSERT INTO d.t VALUES (1,0)")
	g.equal()
	// The next change, without a limit: two at a time are refused also while neither
	// holds clients. Afterwards a weight counts for all.
	by[m].run(1, time.Hour)
	ctx, cancel := context.WithCancel(g.ctx())
	go func() { done <- p.member.SwitchPrimary(ctx, p.uuid) }()
	until(t, "the change is told", func() bool { return len(m.member.Stages()) == 1 })
	if err := m.member.SwitchPrimary(g.ctx(), p.uuid); !errors.Is(err, ErrSwitching) {
		t.Errorf("another change at the same time: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the change that was given up: %v", err)
	}
	by[m].run(0, 0)
	until(t, "no change goes on", func() bool { return !p.member.Acting() && !m.member.Acting() })
	if err := p.member.SetWeight(g.ctx(), 130); err != nil {
		t.Fatal(err)
	}
	until(t, "both know the weight", func() bool {
		a, _ := p.node.View().Member(p.id)
		b, _ := m.node.View().Member(p.id)
		return a.Info.Weight == 100 && b.Info.Weight == 100
	})
}

// Without a limit nobody waits for a transaction that has been running for long; it
// is waited for, and a caller that gives up leaves nobody waiting.
func TestSwitchWaitsForLongTransactionsWithoutHolding(t *testing.T) {
	g, by := withClients(t)
	p, m := g.all[0], g.all[1]
	by[p].run(1, time.Hour)
	ctx, cancel := context.WithTimeout(g.ctx(), 3*retrySwitch)
	defer cancel()
	if err := m.member.SwitchPrimary(ctx, m.uuid); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	for _, c := range by {
		if _, holds, _ := c.state(); holds > 0 {
			t.Error("clients waited")
		}
	}
	// One that looked short.
	by[p].run(1, 0)
	ctx, cancel = context.WithTimeout(g.ctx(), drainWindow/2)
	defer cancel()
	if err := m.member.SwitchPrimary(ctx, m.uuid); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	for x, c := range by {
		until(t, "they go on", func() bool { waiting, _, _ := c.state(); return !waiting })
		if v := x.node.View(); v.Primary != p.id {
			t.Error("the primary changed")
		}
	}
	// A limit ends the wait.
	if err := m.member.SwitchPrimaryWithin(g.ctx(), m.uuid, 0); err != nil {
		t.Fatal(err)
	}
	if by[p].ends() == 0 {
		t.Error("what ran was not ended")
	}
	by[p].run(0, 0)
	g.online(p)
}

// Nobody waits for a member that is not heard of any more.
func TestHoldEndsWithItsLease(t *testing.T) {
	g, by := withClients(t)
	m := g.all[1]
	c := &change{m: g.all[0].member, by: "a member that dies", view: g.all[0].node.View(), deaf: make(map[uint64]bool)}
	if a := c.askAll(g.ctx(), holdRequest{Hold: true}); a.Busy || len(c.deaf) > 0 {
		t.Fatalf("%+v, %v", a, c.deaf)
	}
	for _, x := range by {
		if _, holds, _ := x.state(); holds == 0 {
			t.Error("clients did not wait")
		}
	}
	for _, x := range by {
		until(t, "they go on", func() bool { waiting, _, _ := x.state(); return !waiting })
	}
	if err := m.member.SwitchPrimary(g.ctx(), m.uuid); err != nil {
		t.Error(err)
	}
}

// A failover in the middle frees everybody too.
func TestHoldEndsWithItsEpoch(t *testing.T) {
	g, by := withClients(t)
	p, m := g.all[0], g.all[1]
	holdFor := p.node.View()
	c := &change{m: m.member, by: "a change", view: holdFor, deaf: make(map[uint64]bool)}
	c.askAll(g.ctx(), holdRequest{Hold: true, All: true})
	g.appoint(m, m)
	for _, x := range by {
		until(t, "they go on", func() bool { waiting, _, _ := x.state(); return !waiting })
	}
	// What comes late holds nobody.
	c.askAll(g.ctx(), holdRequest{Hold: true})
	for _, x := range by {
		if waiting, _, _ := x.state(); waiting {
			t.Error("clients wait for a change that is over")
		}
	}
	g.online(p)
}
