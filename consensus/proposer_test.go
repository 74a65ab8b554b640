package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"cohort/consensus/state"
)

func TestFence(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	m := c.members[0]
	submit(t, c, m, "a", 50)
	old := m.node.Proposer()
	for i := range 200 {
		if err := m.node.Submit(c.ctx(), proposal(fmt.Sprintf("b%d", i), 0, uint64(i), nil)); err != nil {
			t.Fatal(err)
		}
	}
	c.crash(m)
	c.open(m)
	inc, epoch, err := m.node.Join(c.ctx(), state.MemberInfo{UUID: "uuid-1"})
	if err != nil || inc <= old.Incarnation() || epoch != 2 { // another one was elected
		t.Fatalf("incarnation %d after %d, epoch %d, %v", inc, old.Incarnation(), epoch, err)
	}
	var xids []string
	for i := range 200 {
		xids = append(xids, fmt.Sprintf("b%d", i))
	}
	first, err := m.node.ForceVerdict(c.ctx(), xids)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.members[2].node.ForceVerdict(c.ctx(), xids)
	if err != nil {
		t.Fatal(err)
	}
	aborted := false
	for i := range first {
		if first[i].Committed != again[i].Committed || first[i].N != again[i].N {
			t.Fatalf("%+v and %+v", first[i], again[i])
		}
		// They were proposed in order, so they end in order.
		if aborted && first[i].Committed {
			t.Fatalf("%s commits after one that did not", xids[i])
		}
		aborted = aborted || !first[i].Committed
	}
	if err := m.node.SetState(c.ctx(), state.StateOnline); err != nil {
		t.Fatal(err)
	}
	if _, err := m.node.AppointPrimary(c.ctx(), 1, epoch); err != nil {
		t.Fatal(err)
	}
	submit(t, c, m, "c", 20)
	c.same()
}

func TestProposerOfAnotherLifeIsFenced(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.found()
	m := c.members[0]
	old := m.node.Proposer()
	c.join(m)
	err := old.Submit(c.ctx(), proposal("x", 0, 1, nil))
	if !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
}

func TestLeaderChanges(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	m := c.members[0]
	ctx, cancel := context.WithCancel(c.ctx())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := uint64(0); ctx.Err() == nil; i++ {
			tctx, done := context.WithTimeout(ctx, 2*time.Second)
			to := i%3 + 1
			for _, o := range c.members {
				if o.node.LeaderID() == o.id {
					o.node.TransferLeader(tctx, to)
					break
				}
			}
			done()
			t := time.NewTimer(20 * time.Millisecond)
			select {
			case <-t.C:
			case <-ctx.Done():
			}
			t.Stop()
		}
	})
	for i := range 20 {
		submit(t, c, m, fmt.Sprintf("r%d.", i), 200)
	}
	cancel()
	wg.Wait()
	if m.node.LastN() != 4000 {
		t.Fatalf("last %d", m.node.LastN())
	}
	c.same()
}

func TestLeaderDies(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	m := c.members[0]
	for round := range 2 {
		if err := m.node.TransferLeader(c.ctx(), 3); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		prefix := fmt.Sprintf("r%d.", round)
		go func() {
			defer close(done)
			for i := range 3000 {
				if err := m.node.Submit(c.ctx(), proposal(fmt.Sprintf("%s%d", prefix, i), 0, uint64(i), make([]byte, 500))); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		m.rec.verdict(t, prefix+"100")
		c.crash(c.members[2])
		<-done
		for i := range 3000 {
			if d := m.rec.verdict(t, fmt.Sprintf("%s%d", prefix, i)); !d.Committed {
				t.Fatalf("%+v", d)
			}
		}
		c.open(c.members[2])
		c.settle()
	}
	if m.node.LastN() != 6000 {
		t.Fatalf("last %d", m.node.LastN())
	}
	c.same()
}

func TestTimeoutsLoseAndDoubleNothing(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.proposeTimeout, cfg.WindowEntries = 15*time.Millisecond, 16 })
	c.found()
	m := c.members[0]
	for i := range 10 {
		submit(t, c, m, fmt.Sprintf("r%d.", i), 300)
	}
	if m.node.LastN() != 3000 {
		t.Fatalf("last %d", m.node.LastN())
	}
	c.same()
}

func TestCopiesAreIgnored(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	m := c.members[0]
	submit(t, c, m, "a", 10)
	for seq := uint64(1); seq <= 10; seq++ {
		x := state.Txn{Member: 1, Incarnation: m.node.Proposer().Incarnation(), Seq: seq, Epoch: 1,
			XID: "copy", Meta: testMeta}
		if n, err := c.members[1].node.propose(c.ctx(), state.Entry(x.AppendItem(nil))); err != nil || n != 0 {
			t.Fatalf("%d, %v", n, err)
		}
	}
	submit(t, c, m, "b", 10)
	if m.node.LastN() != 20 {
		t.Fatalf("last %d", m.node.LastN())
	}
	c.same()
}

func TestBackPressure(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.QueueBytes = 100000 })
	c.found()
	m := c.members[0]
	c.close(c.members[1])
	c.close(c.members[2]) // no quorum: nothing gets ordered
	taken := 0
	for {
		// That it is not taken for so long shows that there is no room.
		ctx, cancel := context.WithTimeout(c.ctx(), 2*time.Second)
		err := m.node.Submit(ctx, proposal(fmt.Sprint("x", taken), 0, 1, make([]byte, 1000)))
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		taken++
	}
	if taken < 50 || taken > 110 {
		t.Fatalf("%d proposals of 1 kB were taken", taken)
	}
	ctx, cancel := context.WithTimeout(c.ctx(), time.Second)
	defer cancel()
	if _, err := m.node.ReadIndex(ctx); err == nil {
		t.Fatal("a read index without a quorum")
	}
	c.open(c.members[1])
	c.open(c.members[2])
	for i := range taken {
		if d := m.rec.verdict(t, fmt.Sprint("x", i)); !d.Committed {
			t.Fatalf("%+v", d)
		}
	}
	c.same()
}

func TestWatermarkWaitsForProposals(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	m := c.members[0]
	submit(t, c, m, "a", 100)
	mark := func(m *testMember, w Watermark) {
		t.Helper()
		if err := m.node.Watermark(c.ctx(), w); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range c.members[1:] {
		mark(o, Watermark{Applied: 100, Stable: 100})
	}
	// The last snapshot submitted was small, and capture has not said more.
	p := proposal("b", 40, 5000, nil)
	if err := m.node.Submit(c.ctx(), p); err != nil {
		t.Fatal(err)
	}
	mark(m, Watermark{Applied: 100, Stable: 100})
	if d := m.rec.verdict(t, "b"); !d.Committed {
		t.Fatalf("%+v", d)
	}
	if h := m.node.View().Horizon; h != 40 {
		t.Fatalf("horizon %d", h)
	}
	// Now it does.
	mark(m, Watermark{Applied: 101, Stable: 100, Low: 90})
	if h := m.node.View().Horizon; h != 90 {
		t.Fatalf("horizon %d", h)
	}
	// A body that takes its time holds the horizon.
	gate := make(chan struct{})
	big := bigProposal("big", 91, 6000, 2<<20, 0)
	open := big.Open
	big.Open = func() (io.ReadCloser, error) {
		r, err := open()
		return &gated{ReadCloser: r, gate: gate}, err
	}
	if err := m.node.Submit(c.ctx(), big); err != nil {
		t.Fatal(err)
	}
	submit(t, c, m, "c", 10)
	for _, o := range c.members[1:] {
		mark(o, Watermark{Applied: 111, Stable: 111})
	}
	mark(m, Watermark{Applied: 111, Stable: 111, Low: 111})
	if h := m.node.View().Horizon; h != 91 {
		t.Fatalf("horizon %d", h)
	}
	close(gate)
	if d := m.rec.verdict(t, "big"); !d.Committed {
		t.Fatalf("%+v", d)
	}
	c.same()
}

func TestRefusedAndConflicts(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found()
	m := c.members[0]
	p := proposal("refused", 0, 1, nil)
	p.Refuse = state.ErrnoRequirement
	if err := m.node.Submit(c.ctx(), p); err != nil {
		t.Fatal(err)
	}
	if d := m.rec.verdict(t, "refused"); d.Committed || d.Errno != 3098 {
		t.Fatalf("%+v", d)
	}
	// Too many keys: tables become the unit.
	wide := proposal("wide", 0, 1, nil)
	wide.Writes = make([]uint64, DefaultMaxKeys+1)
	if err := m.node.Submit(c.ctx(), wide); err != nil {
		t.Fatal(err)
	}
	d := m.rec.verdict(t, "wide")
	if !d.Committed {
		t.Fatalf("%+v", d)
	}
	if err := m.node.Submit(c.ctx(), proposal("next", 0, 1, nil)); err != nil {
		t.Fatal(err)
	}
	if e := m.rec.verdict(t, "next"); !e.Committed || e.Dep != d.N {
		t.Fatalf("%+v", e)
	}
	if err := c.members[1].node.Submit(c.ctx(), proposal("secondary", 2, 9, nil)); err != nil {
		t.Fatal(err)
	}
	if d := c.members[1].rec.verdict(t, "secondary"); d.Committed || d.Reason != state.ReasonEpoch {
		t.Fatalf("%+v", d)
	}
	for _, bad := range []*Proposal{{XID: "x", Body: []byte("a"), Meta: testMeta}, {Meta: testMeta}, {Direct: true, XID: "x", Meta: testMeta}, {XID: "x"}} {
		if err := m.node.Submit(c.ctx(), bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}
