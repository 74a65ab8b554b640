package consensus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4"

	"cohort/consensus/state"
)

// newEntered makes a group of size members of which the first founded it and the
// others entered.
func newEntered(t *testing.T, size int, tweak func(*Config)) *cluster {
	c := &cluster{t: t, addrs: make(map[uint64]string), tweak: tweak, entered: true, log: &testLog{t: t},
		dir: t.TempDir()} // before the cleanup, so that it outlives the members
	t.Cleanup(c.log.end)
	t.Cleanup(func() {
		for _, m := range c.members {
			c.close(m)
		}
	})
	for range size {
		c.enter(c.add())
	}
	return c
}

// add makes a member that is in no group yet.
func (c *cluster) add() *testMember {
	c.t.Helper()
	id := uint64(len(c.members) + 1)
	c.addrs[id] = freeAddr(c.t)
	m := &testMember{id: id, dir: filepath.Join(c.dir, fmt.Sprint(id)), store: &memStore{}}
	c.members = append(c.members, m)
	c.open(m)
	return m
}

func (c *cluster) entrance(m *testMember) Entrance {
	return Entrance{Bootstrap: m.id == 1, UUID: fmt.Sprintf("uuid-%d", m.id), ServerID: m.id, Settings: "a=1\nb=2\n"}
}

// enter brings a member into the group, as it would come again and again.
func (c *cluster) enter(m *testMember) {
	c.t.Helper()
	for ctx := c.ctx(); ; {
		err := c.tryEnter(ctx, m)
		switch {
		case err == nil:
			return
		case ctx.Err() != nil:
			c.t.Fatalf("member %d: %v", m.id, err)
		case !temporary(err) && !errors.Is(err, ErrNotAdmitted) && !errors.Is(err, context.DeadlineExceeded):
			c.t.Fatalf("member %d: %v", m.id, err)
		}
	}
}

func (c *cluster) tryEnter(ctx context.Context, m *testMember) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := m.node.Enter(ctx, c.entrance(m)); err != nil {
		return err
	}
	if !m.node.View().Founded {
		b := state.Bootstrap{Primary: m.id, Settings: c.entrance(m).Settings}
		if _, err := m.node.Bootstrap(ctx, b); err != nil {
			return err
		}
	}
	info := state.MemberInfo{UUID: fmt.Sprintf("uuid-%d", m.id), ServerID: m.id, ServerVersion: 90704}
	if _, _, err := m.node.Join(ctx, info); err != nil {
		return err
	}
	return m.node.SetState(ctx, state.StateOnline)
}

// voters waits until the log has exactly these members, all with a vote.
func (c *cluster) voters(via *testMember, ms ...*testMember) {
	c.t.Helper()
	var want []uint64
	for _, m := range ms {
		want = append(want, m.node.host.Load().replica)
	}
	slices.Sort(want)
	var got *dragonboat.Membership
	c.eventually(fmt.Sprintf("voters %v", want), func() bool {
		ctx, cancel := context.WithTimeout(c.ctx(), 5*time.Second)
		defer cancel()
		var err error
		got, err = via.node.host.Load().nh.SyncGetShardMembership(ctx, shardID)
		return err == nil && len(got.NonVotings) == 0 && slices.Equal(slices.Sorted(maps.Keys(got.Nodes)), want)
	})
}

func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	end := time.Now().Add(60 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(end) {
			c.t.Fatalf("timed out waiting for %s", what)
		}
		<-tick.C
	}
}

func quick(cfg *Config) { cfg.ExpelTimeout = 100 * time.Millisecond }

// offline reports a member whose process is gone.
func (c *cluster) offline(via, m *testMember) {
	c.t.Helper()
	x, _ := via.node.View().Member(m.id)
	if err := via.node.SetMemberState(c.ctx(), m.id, x.Incarnation, state.StateOffline); err != nil {
		c.t.Fatal(err)
	}
}

// out waits until the group goes on without a member.
func (c *cluster) out(via, m *testMember) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("member %d to be taken out", m.id), func() bool {
		x, ok := via.node.View().Member(m.id)
		return ok && x.Replica == 0
	})
}

// Members enter one after the other and get what was written before; all hold the
// same.
func TestEnter(t *testing.T) {
	c := newEntered(t, 1, nil)
	submit(t, c, c.members[0], "a", 20)
	for range 3 {
		m := c.add()
		if v := m.node.View(); v.Founded || m.node.LeaderID() != 0 {
			t.Fatalf("a member that is in no group shows %+v", v)
		}
		if _, err := m.node.ReadIndex(c.ctx()); !errors.Is(err, ErrNotAdmitted) {
			t.Fatalf("a read of a member that is in no group: %v", err)
		}
		c.enter(m)
		submit(t, c, c.members[0], fmt.Sprint("b", m.id), 5)
	}
	c.voters(c.members[0], c.members...)
	c.same()
	// A second founder finds the group that is there.
	again := c.members[1]
	c.leave(again)
	e := c.entrance(again)
	e.Bootstrap = true
	if err := again.node.Enter(c.ctx(), e); err != nil {
		t.Fatal(err)
	}
	if h := again.node.host.Load(); h.replica != 5 {
		t.Fatalf("replica %d", h.replica)
	}
	c.enter(again)
	c.same()
}

// leave has a member leave and waits until its replica has ended.
func (c *cluster) leave(m *testMember) {
	c.t.Helper()
	if err := m.node.Leave(c.ctx()); err != nil {
		c.t.Fatal(err)
	}
	c.eventually("the end of a replica", func() bool { return m.node.host.Load() == nil })
}

// Of five members two die and are taken out; then one more may die.
func TestQuorumFollowsTheView(t *testing.T) {
	c := newEntered(t, 5, quick)
	ms := c.members
	c.voters(ms[0], ms...)
	for _, m := range ms[3:] {
		c.crash(m)
		c.offline(ms[0], m)
		c.out(ms[0], m)
	}
	c.voters(ms[0], ms[:3]...)
	submit(t, c, ms[0], "a", 10)
	c.crash(ms[2])
	submit(t, c, ms[0], "b", 10)
	c.offline(ms[0], ms[2])
	c.out(ms[0], ms[2])
	c.voters(ms[0], ms[:2]...)
	// Who was removed while it was away finds out by itself, and joins anew.
	for _, m := range ms[2:] {
		c.open(m)
		c.enter(m)
	}
	c.voters(ms[0], ms...)
	submit(t, c, ms[0], "c", 10)
	c.same()
}

// Who is back within the expel timeout keeps its replica.
func TestBackInTime(t *testing.T) {
	c := newEntered(t, 3, func(cfg *Config) { cfg.ExpelTimeout = time.Hour })
	m := c.members[2]
	before := m.node.host.Load().replica
	c.crash(m)
	c.offline(c.members[0], m)
	submit(t, c, c.members[0], "a", 10)
	c.open(m)
	c.enter(m)
	if got := m.node.host.Load().replica; got != before {
		t.Fatalf("replica %d became %d", before, got)
	}
	c.voters(c.members[0], c.members...)
	c.same()

	// One that was waited for elsewhere goes at once, if it is still what it was.
	first := c.members[0].node
	c.crash(m)
	x, _ := first.View().Member(m.id)
	if err := first.Evict(c.ctx(), x); err != nil {
		t.Fatal(err)
	}
	if x, _ := first.View().Member(m.id); x.Replica != before {
		t.Fatalf("taken out while it was %s", x.State)
	}
	c.offline(c.members[0], m)
	if err := first.Evict(c.ctx(), x); err != nil {
		t.Fatal(err)
	}
	c.out(c.members[0], m)
	c.voters(c.members[0], c.members[:2]...)
	c.open(m)
	c.enter(m)

	// A timeout that is made shorter counts for those that are away already.
	c.crash(m)
	c.offline(c.members[0], m)
	for _, o := range c.members[:2] {
		o.node.SetExpelTimeout(0)
	}
	c.out(c.members[0], m)
	c.open(m)
	c.enter(m)
	c.voters(c.members[0], c.members...)
	c.same()
}

// The leader can leave too, and all can, one after the other; the last one keeps
// the group, and lets the others in again.
func TestAllLeave(t *testing.T) {
	c := newEntered(t, 3, nil)
	submit(t, c, c.members[0], "a", 10)
	for _, m := range c.members[:2] {
		c.leave(m)
	}
	last := c.members[2]
	if err := last.node.Leave(c.ctx()); err != nil {
		t.Fatal(err)
	}
	c.voters(last, last)
	for _, m := range c.members {
		c.enter(m)
	}
	c.voters(last, c.members...)
	submit(t, c, c.members[0], "b", 10)
	c.same()
	if v := last.node.View(); v.LastReplica != 5 {
		t.Fatalf("%d replicas were given", v.LastReplica)
	}
}

// After a power loss of all nobody decides anything: everyone goes on.
func TestFullOutageOfEntered(t *testing.T) {
	c := newEntered(t, 3, quick)
	submit(t, c, c.members[0], "a", 10)
	c.voters(c.members[0], c.members...)
	for _, m := range c.members {
		c.crash(m)
	}
	for _, m := range c.members {
		c.open(m)
	}
	for _, m := range c.members {
		c.enter(m)
	}
	submit(t, c, c.members[0], "b", 10)
	c.same()
}

// A member that lost the log of its replica, or its whole directory, is let in
// anew under another id.
func TestLostReplica(t *testing.T) {
	c := newEntered(t, 3, nil)
	submit(t, c, c.members[0], "a", 10)
	for i, m := range c.members[1:] {
		c.close(m)
		c.offline(c.members[0], m)
		lost := filepath.Join(m.dir, "raft")
		if i == 1 {
			lost, m.store = m.dir, &memStore{}
		}
		if err := os.RemoveAll(lost); err != nil {
			t.Fatal(err)
		}
		c.open(m)
		c.enter(m)
		if got := m.node.host.Load().replica; got != uint64(4+i) {
			t.Fatalf("replica %d", got)
		}
		c.voters(c.members[0], c.members...)
	}
	c.same()
}

// What keeps a member out is said, and nothing has changed then.
func TestRefused(t *testing.T) {
	c := newEntered(t, 2, nil)
	submit(t, c, c.members[0], "a", 5)
	m := c.add()
	unfit := errors.New("unfit")
	for _, x := range []struct {
		spoil func(*Entrance)
		want  error
		text  string
	}{
		{func(e *Entrance) { e.UUID = "uuid-2" }, ErrDuplicateUUID, "auto.cnf"},
		{func(e *Entrance) { e.ServerID = 2 }, ErrDuplicateServerID, "server_id 2"},
		{func(e *Entrance) { e.Settings = "a=2\nb=2\n" }, ErrOtherSettings, "a is 2 here and 1 in the group"},
		{func(e *Entrance) {
			e.Check = func(_ context.Context, _ string, known bool) error {
				if known {
					t.Error("the member is known")
				}
				return unfit
			}
		}, unfit, ""},
	} {
		e := c.entrance(m)
		x.spoil(&e)
		if err := m.node.Enter(c.ctx(), e); !errors.Is(err, x.want) || !strings.Contains(err.Error(), x.text) {
			t.Errorf("%v, not %v", err, x.want)
		}
	}
	if v := c.members[0].node.View(); len(v.Members) != 2 || v.LastReplica != 2 {
		t.Fatalf("%+v", v)
	}
	// Another group's name; nobody there; the address taken.
	reopen := func(tweak func(*Config)) {
		c.close(m)
		if err := os.RemoveAll(m.dir); err != nil {
			t.Fatal(err)
		}
		c.tweak = tweak
		c.open(m)
	}
	reopen(func(cfg *Config) { cfg.GroupName = strings.ReplaceAll(testGroup, "1", "2") })
	if err := m.node.Enter(c.ctx(), c.entrance(m)); !errors.Is(err, ErrOtherGroup) {
		t.Error(err)
	}
	reopen(func(cfg *Config) { cfg.Seeds = []string{c.addrs[m.id]} })
	ctx, cancel := context.WithTimeout(c.ctx(), 200*time.Millisecond)
	defer cancel()
	if err := m.node.Enter(ctx, c.entrance(m)); !errors.Is(err, ErrNoSeed) || !strings.Contains(err.Error(), "bootstrap_group") {
		t.Error(err)
	}
	c.close(m)
	l, err := net.Listen("tcp", c.addrs[m.id])
	if err != nil {
		t.Fatal(err)
	}
	reopen(nil)
	if err := m.node.Enter(c.ctx(), c.entrance(m)); !errors.Is(err, ErrAddress) {
		t.Error(err)
	}
	l.Close()
	c.enter(m) // as soon as it is free
	c.same()
}

// Data of another history are refused, whatever numbers they have.
func TestOtherHistory(t *testing.T) {
	c, other := newEntered(t, 1, nil), newEntered(t, 1, nil)
	submit(t, c, c.members[0], "a", 5)
	submit(t, other, other.members[0], "b", 5)
	n := c.members[0].node
	q := question{Op: askAdmit, Group: testGroup, Member: 9, UUID: "x", Address: "x:1", Nonce: 1}
	ours, theirs := n.View(), other.members[0].node.View()
	sum, _ := n.ChecksumAt(5)
	for i, x := range []struct {
		lineage, n, sum uint64
		want            string
	}{
		{theirs.Lineage, 5, sum, "another history"},
		{ours.Lineage, 5, sum + 1, "other transactions up to 5"},
		{ours.Lineage, 6, sum, "up to 6"},
		{ours.Lineage, 5, sum, ""},
	} {
		q.Lineage, q.LastN, q.Checksum = x.lineage, x.n, x.sum
		a := n.answer(c.ctx(), &q)
		if err := a.err(); x.want == "" && err != nil || x.want != "" && (!errors.Is(err, ErrOtherHistory) || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%d: %v", i, err)
		}
	}
	// What another history removed says nothing about this one.
	q = question{Op: askRemoved, Group: testGroup, Lineage: theirs.Lineage, Replica: 1}
	if err := n.answer(c.ctx(), &q).err(); !errors.Is(err, ErrOtherHistory) {
		t.Error(err)
	}
}

// A directory belongs to one member at one address.
func TestIdentity(t *testing.T) {
	c := newEntered(t, 1, nil)
	m := c.members[0]
	c.close(m)
	if id, err := MemberID(m.dir, "anything"); err != nil || id != 1 {
		t.Fatalf("%d, %v", id, err)
	}
	fresh, err := MemberID(t.TempDir(), "0AB")
	again, err2 := MemberID(t.TempDir(), "0ab")
	if err != nil || err2 != nil || fresh != again || fresh == 0 || fresh>>48 != 0 {
		t.Fatal(fresh, again, err, err2)
	}
	cfg := Config{Dir: m.dir, GroupName: testGroup, ReplicaID: 1, LocalAddress: freeAddr(t), Store: m.store}
	if _, err := New(cfg); !errors.Is(err, ErrAddress) {
		t.Fatalf("moved: %v", err)
	}
	cfg.LocalAddress, cfg.ReplicaID = c.addrs[1], 2
	if _, err := New(cfg); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("another member's: %v", err)
	}
	if err := os.Remove(filepath.Join(m.dir, identityName)); err != nil {
		t.Fatal(err)
	}
	cfg.ReplicaID = 1
	if _, err := New(cfg); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("nobody's: %v", err)
	}
}

func TestNextChange(t *testing.T) {
	addrs := func(ids ...uint64) map[uint64]string {
		out := make(map[uint64]string)
		for _, id := range ids {
			out[id] = fmt.Sprint("a:", id)
		}
		return out
	}
	voter, learner := func(id uint64) place { return place{fmt.Sprint("a:", id), true} }, func(id uint64) place { return place{fmt.Sprint("a:", id), false} }
	for i, x := range []struct {
		want             map[uint64]place
		voters, learners []uint64
		removed          uint64
		out              change
	}{
		{map[uint64]place{1: voter(1)}, []uint64{1}, nil, 0, change{}},
		{map[uint64]place{1: voter(1), 2: learner(2)}, []uint64{1}, nil, 0, change{addLearner, 2, "a:2"}},
		{map[uint64]place{1: voter(1), 2: learner(2)}, []uint64{1}, []uint64{2}, 0, change{}},
		{map[uint64]place{1: voter(1), 2: voter(2)}, []uint64{1}, []uint64{2}, 0, change{promoteOne, 2, "a:2"}},
		// A vote comes only after the replica runs without one.
		{map[uint64]place{1: voter(1), 2: voter(2)}, []uint64{1}, nil, 0, change{addLearner, 2, "a:2"}},
		{map[uint64]place{1: voter(1), 3: learner(3)}, []uint64{1, 2}, nil, 0, change{removeOne, 2, ""}},
		{map[uint64]place{1: voter(1)}, []uint64{1}, []uint64{2}, 0, change{removeOne, 2, ""}},
		// What was removed is never added again.
		{map[uint64]place{1: voter(1), 2: voter(2)}, []uint64{1}, nil, 2, change{}},
		// The leader does not remove itself, and goes last.
		{map[uint64]place{2: voter(2)}, []uint64{1, 2, 3}, nil, 0, change{removeOne, 3, ""}},
		{map[uint64]place{2: voter(2)}, []uint64{1, 2}, nil, 0, change{handOver, 2, ""}},
		{map[uint64]place{2: voter(2)}, []uint64{1}, []uint64{2}, 0, change{promoteOne, 2, "a:2"}},
		// Those that the log was begun with are left alone.
		{map[uint64]place{1: {voter: true}, 2: {voter: true}}, []uint64{1, 2}, nil, 0, change{}},
	} {
		have := &dragonboat.Membership{Nodes: addrs(x.voters...), NonVotings: addrs(x.learners...), Removed: map[uint64]struct{}{}}
		if x.removed != 0 {
			have.Removed[x.removed] = struct{}{}
		}
		if got := nextChange(x.want, have, 1); got != x.out {
			t.Errorf("%d: %+v, not %+v", i, got, x.out)
		}
	}
}
