package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cohort/consensus/state"
	"cohort/internal/binlog/groupbinlog"
)

// cuts says who takes nothing from whom; it is the tests' partition.
type cuts struct {
	mu   sync.Mutex
	from map[[2]uint64]bool // taker, replica
}

func (x *cuts) set(taker, replica uint64, cut bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.from == nil {
		x.from = make(map[[2]uint64]bool)
	}
	x.from[[2]uint64{taker, replica}] = cut
}

func (x *cuts) between(as, bs []uint64, cut bool) {
	for _, a := range as {
		for _, b := range bs {
			x.set(a, b, cut)
			x.set(b, a, cut)
		}
	}
}

func (x *cuts) tweak(cfg *Config) {
	self := cfg.ReplicaID
	cfg.Allowed = func(replica uint64) bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return !x.from[[2]uint64{self, replica}]
	}
}

// force makes the members the group, through the first one.
func (c *cluster) force(ms ...*testMember) error {
	var addrs []string
	for _, m := range ms {
		addrs = append(addrs, c.addrs[m.id])
	}
	return ms[0].node.Force(c.ctx(), addrs)
}

func (c *cluster) mustForce(ms ...*testMember) {
	c.t.Helper()
	if err := c.force(ms...); err != nil {
		c.t.Fatal(err)
	}
	c.forcedView(ms...)
}

// forcedView waits until the members see themselves as the group.
func (c *cluster) forcedView(ms ...*testMember) {
	c.t.Helper()
	for _, m := range ms {
		c.eventually(fmt.Sprintf("the forced view at member %d", m.id), func() bool {
			v := m.node.View()
			for _, x := range v.Members {
				in := slices.ContainsFunc(ms, func(o *testMember) bool { return o.id == x.ID })
				if in != (x.Replica != 0) || in != (x.State == state.StateOnline) {
					return false
				}
			}
			return v.Lineage == ms[0].node.View().Lineage && v.Lineage != v.Founding
		})
	}
	c.voters(ms[0], ms...)
}

// write orders a transaction through a member that is the primary by then.
func (c *cluster) write(m *testMember, xid string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("member %d to be the primary", m.id), func() bool { return m.node.View().Primary == m.id })
	if err := m.node.Submit(c.ctx(), proposal(xid, m.node.LastN(), uint64(len(xid))<<32|uint64(m.node.LastN()), []byte(xid))); err != nil {
		c.t.Fatal(err)
	}
	if d := m.rec.verdict(c.t, xid); !d.Committed {
		c.t.Fatalf("%s: %+v", xid, d)
	}
}

// logEnd returns the index of the last entry in a running member's log.
func (m *testMember) logEnd(t *testing.T) uint64 {
	t.Helper()
	r, err := m.node.host.Load().nh.GetLogReader(shardID)
	if err != nil {
		t.Fatal(err)
	}
	_, last := r.GetRange()
	return last
}

// Two of five are left. One of them has an entry that the other lacks and that was
// not committed: it counts. Who was left out comes back under a new replica, with
// the same data.
func TestForceKeepsTail(t *testing.T) {
	var x cuts
	c := newEntered(t, 5, x.tweak)
	one, a, b := c.members[0], c.members[1], c.members[2]
	c.voters(one, c.members...)
	if err := one.node.TransferLeader(c.ctx(), 1); err != nil {
		t.Fatal(err)
	}
	c.write(one, "before")
	c.settle()
	before := a.node.View()

	// Only b gets what one orders from here on, which is not a majority.
	c.crash(c.members[3])
	c.crash(c.members[4])
	x.set(2, 1, true)
	ends := []uint64{a.logEnd(t), b.logEnd(t)}
	if err := one.node.Submit(c.ctx(), proposal("tail", one.node.LastN(), 77, []byte("tail"))); err != nil {
		t.Fatal(err)
	}
	c.eventually("the tail to be in b's log", func() bool { return b.logEnd(t) > ends[1] })
	if n := a.logEnd(t); n != ends[0] {
		t.Fatalf("a's log went on from %d to %d", ends[0], n)
	}
	c.crash(one)

	c.mustForce(a, b)
	for _, m := range []*testMember{a, b} {
		if d := m.rec.verdict(t, "tail"); !d.Committed {
			t.Errorf("member %d: %+v", m.id, d)
		}
	}
	v := a.node.View()
	if v.Seq != before.Seq+1 || !strings.HasPrefix(v.ViewID(), strings.Split(before.ViewID(), ":")[0]+":") {
		t.Errorf("the view is %s after %s", v.ViewID(), before.ViewID())
	}
	if v.Primary != a.id || v.Epoch != before.Epoch+1 {
		t.Errorf("primary %d in epoch %d", v.Primary, v.Epoch)
	}
	c.write(a, "after")

	// The old majority comes back, all at once.
	x.set(2, 1, false)
	for _, i := range []int{0, 3, 4} {
		c.open(c.members[i])
	}
	for _, i := range []int{0, 3, 4} {
		c.enter(c.members[i])
	}
	c.write(a, "together")
	c.same()
	c.voters(a, c.members...)
	// And all start again as what they are now.
	for _, m := range c.members {
		c.crash(m)
	}
	for _, m := range c.members {
		c.open(m)
	}
	c.same()
	if n := one.node.LastN(); n != 4 {
		t.Errorf("%d transactions", n)
	}
}

// The majority that there was goes on by itself while a membership is forced on the
// other side. When they can talk again neither takes anything from the other, and
// who has written there does not come over.
func TestForceAgainstLivingMajority(t *testing.T) {
	var x cuts
	c := newEntered(t, 5, x.tweak)
	left, right := c.members[:3], c.members[3:]
	c.voters(c.members[0], c.members...)
	c.write(left[0], "common")
	c.settle()
	if err := c.force(right...); err == nil || !strings.Contains(err.Error(), "has contact to a majority") {
		t.Fatalf("with a majority: %v", err)
	}
	if right[0].node.Fenced() || right[1].node.Fenced() {
		t.Fatal("a refusal left a fence")
	}
	x.between([]uint64{1, 2, 3}, []uint64{4, 5}, true)
	c.eventually("the others to be without a leader", func() bool {
		ctx, cancel := context.WithTimeout(c.ctx(), time.Second)
		defer cancel()
		_, err := right[0].node.ReadIndex(ctx)
		return err != nil
	})
	c.mustForce(right...)
	c.write(left[0], "left")
	c.write(right[0], "right")
	x.between([]uint64{1, 2, 3}, []uint64{4, 5}, false)

	// Both may talk to the other side again, and are refused.
	for i := range 20 {
		c.write(left[0], fmt.Sprint("left", i))
		c.write(right[0], fmt.Sprint("right", i))
		time.Sleep(50 * time.Millisecond)
	}
	for _, m := range c.members {
		theirs := "right"
		if m.id > 3 {
			theirs = "left"
		}
		if _, ok := m.node.Verdict(theirs); ok || m.node.Err() != nil {
			t.Errorf("member %d: has what the other side ordered: %v, %v", m.id, ok, m.node.Err())
		}
	}
	// One that begins anew finds out, and that its data are not the group's.
	c.crash(left[2])
	c.open(left[2])
	ctx, cancel := context.WithTimeout(c.ctx(), 30*time.Second)
	defer cancel()
	if err := left[2].node.Enter(ctx, c.entrance(left[2])); !errors.Is(err, ErrOtherHistory) {
		t.Errorf("who wrote on the other side: %v", err)
	}
	// Its log is kept: it may be all that is left.
	if id, _, err := loadIdentity(left[2].dir); err != nil || id.Replica == 0 {
		t.Errorf("%+v, %v", id, err)
	}
}

// A member that promised and crashed does not run its replica, and the attempt can
// be made again, there and with another list. An attempt that failed before a log
// was written to is forgotten by all.
func TestForceAgain(t *testing.T) {
	var mu sync.Mutex
	var fault func(step string, member uint64) error
	c := newEntered(t, 4, func(cfg *Config) {
		cfg.forceFault = func(step string, member uint64) error {
			mu.Lock()
			defer mu.Unlock()
			if fault == nil {
				return nil
			}
			return fault(step, member)
		}
	})
	at := func(step string, member uint64) {
		mu.Lock()
		defer mu.Unlock()
		fault = func(s string, m uint64) error {
			if s == step && m == member {
				return errors.New("injected")
			}
			return nil
		}
	}
	one, a, b := c.members[0], c.members[1], c.members[2]
	c.voters(one, c.members...)
	c.write(one, "before")
	c.settle()
	for _, bad := range []struct{ list, want string }{
		{c.addrs[2] + ",256.256.256.777:1234", "not the group_replication_local_address"},
		{c.addrs[2] + ",nonsense", "not host:port"},
		{c.addrs[3], "is not listed"},
		{c.addrs[2] + "," + c.addrs[2], "twice"},
	} {
		if err := a.node.Force(c.ctx(), strings.Split(bad.list, ",")); !errors.Is(err, ErrForce) || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v", bad.list, err)
		}
	}
	c.crash(one)
	c.crash(c.members[3])
	if err := c.force(a, b, c.members[3]); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("with one that is gone: %v", err)
	}

	at(stepEnd, a.id)
	if err := c.force(a, b); err == nil {
		t.Fatal("no error")
	}
	for _, m := range []*testMember{a, b} {
		c.eventually("the fence to be gone", func() bool { return !m.node.Fenced() && m.node.host.Load() != nil })
		if f, err := loadFence(m.dir); f != nil || err != nil {
			t.Fatalf("member %d is still fenced: %v", m.id, err)
		}
	}

	// One log has been written to, the other not; both crash.
	at(stepAppend, b.id)
	if err := c.force(a, b); err == nil || !strings.Contains(err.Error(), "set the variable again") {
		t.Fatalf("%v", err)
	}
	for _, m := range []*testMember{a, b} {
		c.crash(m)
		c.open(m)
		if !m.node.Fenced() || m.node.host.Load() != nil {
			t.Fatalf("the replica of member %d runs", m.id)
		}
		ctx, cancel := context.WithTimeout(c.ctx(), 300*time.Millisecond)
		if err := m.node.Enter(ctx, c.entrance(m)); !errors.Is(err, ErrForceUnfinished) {
			t.Errorf("member %d: %v", m.id, err)
		}
		cancel()
	}

	// b is done and a, which had asked for it, crashes: a follows by itself.
	at(stepFinish, a.id)
	if err := c.force(a, b); err == nil {
		t.Fatal("no error")
	}
	c.crash(a)
	c.open(a)
	c.forcedView(a, b)
	mu.Lock()
	fault = nil
	mu.Unlock()
	for _, m := range []*testMember{a, b} {
		c.enter(m) // they began anew
	}
	c.write(a, "two")
	c.same()

	// Again, when one of the two is lost. The other one may come back.
	c.settle()
	lineage := a.node.View().Lineage
	c.crash(b)
	c.mustForce(a)
	if v := a.node.View(); len(v.Forks) < 2 || v.Lineage == lineage {
		t.Errorf("lineage %x, forks %+v", v.Lineage, v.Forks)
	}
	c.write(a, "one")
	for _, m := range []*testMember{b, one, c.members[3]} {
		c.open(m)
		c.enter(m)
	}
	c.write(a, "all")
	c.same()
	c.voters(a, c.members...)
}

// A log counts that has what any of the others knows to be committed, even where
// one of a later term has not.
func TestBest(t *testing.T) {
	for _, c := range []struct {
		what string
		ends []logEnd
		// terms are those of the entries from index 1 on.
		terms [][]uint64
		want  int
	}{
		{"the longer one", []logEnd{{LastTerm: 2, Last: 4, Commit: 3}, {LastTerm: 2, Last: 5, Commit: 3}}, [][]uint64{{1, 2, 2, 2}, {1, 2, 2, 2, 2}}, 1},
		{"the later one", []logEnd{{LastTerm: 2, Last: 5, Commit: 3}, {LastTerm: 3, Last: 4, Commit: 3}}, [][]uint64{{1, 2, 2, 2, 2}, {1, 2, 2, 3}}, 1},
		{"a later one without what is committed", []logEnd{{LastTerm: 2, Last: 5, Commit: 5}, {LastTerm: 3, Last: 6, Commit: 3}},
			[][]uint64{{1, 2, 2, 2, 2}, {1, 2, 2, 3, 3, 3}}, 0},
		{"a later one that is too short", []logEnd{{LastTerm: 3, Last: 4, Commit: 3}, {LastTerm: 2, Last: 5, Commit: 5}}, [][]uint64{{1, 2, 2, 3}, {1, 2, 2, 2, 2}}, 1},
		{"the last of three", []logEnd{{LastTerm: 2, Last: 5, Commit: 4}, {LastTerm: 4, Last: 5, Commit: 1}, {LastTerm: 3, Last: 6, Commit: 2}},
			[][]uint64{{1, 2, 2, 2, 2}, {1, 2, 4, 4, 4}, {1, 2, 2, 2, 3, 3}}, 2},
	} {
		ends := make([]forceReply, len(c.ends))
		for i, e := range c.ends {
			ends[i].End = e
		}
		got, err := best(ends, func(i int, index uint64) (uint64, error) {
			if index > uint64(len(c.terms[i])) {
				return 0, nil
			}
			return c.terms[i][index-1], nil
		})
		if err != nil || got != c.want {
			t.Errorf("%s: %d, %v", c.what, got, err)
		}
	}
}

func FuzzCall(f *testing.F) {
	var b bytes.Buffer
	es, _ := ending(7, 3, []uint64{4, 5}, state.Force{Lineage: 9, Members: []state.Place{{Member: 1, Replica: 1}}})
	packed, _ := packEntries(es)
	if err := writeCall(&b, &forceRequest{Step: stepAppend, Generation: 9, Entries: packed, Term: 3, Ready: true}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var q forceRequest
		if readCall(bytes.NewReader(data), &q) != nil {
			return
		}
		es, err := unpackEntries(q.Entries)
		if err != nil {
			return
		}
		_, _, _ = changes(es)
		for i := range es {
			_, _ = payload(&es[i])
		}
	})
}

func TestStrangers(t *testing.T) {
	for _, c := range []struct {
		a, b []uint64
		want bool
	}{
		{nil, nil, false}, {[]uint64{1}, nil, false}, {[]uint64{1}, []uint64{1}, false},
		{[]uint64{1}, []uint64{1, 2}, false}, {[]uint64{1, 2, 3}, []uint64{1, 2}, false},
		{[]uint64{1}, []uint64{2}, true}, {[]uint64{1, 2}, []uint64{1, 3}, true},
	} {
		if strangers(c.a, c.b) != c.want || strangers(c.b, c.a) != c.want {
			t.Errorf("%v and %v", c.a, c.b)
		}
	}
}

// Who went on without a majority's transactions, but with entries of its own, has a
// beginning of the group's data and not of its log: it is brought everything again.
func TestForceForgets(t *testing.T) {
	var x cuts
	c := newEntered(t, 3, x.tweak)
	one, two, three := c.members[0], c.members[1], c.members[2]
	c.voters(one, c.members...)
	for i := range 5 {
		c.write(one, fmt.Sprint("before", i))
	}
	c.settle()
	x.between([]uint64{1, 2}, []uint64{3}, true)
	c.eventually("three to be without a leader", func() bool { return three.node.LeaderID() == 0 })
	// Its numbers are those of the other side's log from here on.
	index := three.node.Applied()
	for range 3 {
		if err := one.node.Watermark(c.ctx(), Watermark{Applied: 5, Stable: 5, Low: 5}); err != nil {
			t.Fatal(err)
		}
	}
	two.waitApplied(t, index+3)
	c.mustForce(three)
	c.write(three, "after")
	for _, m := range []*testMember{one, two} {
		c.close(m) // with a checkpoint: it knows how far it was
	}
	x.between([]uint64{1, 2}, []uint64{3}, false)
	for _, m := range []*testMember{one, two} {
		c.open(m)
		if m.node.host.Load() != nil || m.node.LastN() != 5 || m.node.Applied() < index+3 {
			t.Fatalf("member %d runs: %v, at transaction %d, entry %d", m.id, m.node.host.Load(), m.node.LastN(), m.node.Applied())
		}
	}
	for _, m := range []*testMember{one, two} {
		c.enter(m)
	}
	c.write(three, "together")
	c.same()
	for _, m := range []*testMember{one, two} {
		if n := len(m.store.(*memStore).snapshot()); n != 7 {
			t.Errorf("member %d has %d rows", m.id, n)
		}
	}
	// A crash in the middle of forgetting leaves nothing, which is a beginning too.
	c.close(two)
	if err := storeCheckpoint(two.dir, encodeCheckpoint(state.New(), groupbinlog.Position{})); err != nil {
		t.Fatal(err)
	}
	c.open(two)
	c.same()
}
