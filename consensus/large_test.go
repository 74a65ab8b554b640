package consensus

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cohort/consensus/state"
)

type noise struct {
	left int64
	x    uint64
}

func (n *noise) Read(p []byte) (int, error) {
	if n.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), n.left)]
	for i := range p {
		if i%8 == 0 {
			n.x ^= n.x << 13
			n.x ^= n.x >> 7
			n.x ^= n.x << 17
		}
		p[i] = byte(n.x >> (i % 8 * 8))
	}
	n.left -= int64(len(p))
	return len(p), nil
}

func (n *noise) Close() error { return nil }

func bigProposal(xid string, low uint64, key uint64, size, missing int64) *Proposal {
	p := proposal(xid, low, key, nil)
	p.BodyLen = size
	p.Open = func() (io.ReadCloser, error) { return &noise{left: size - missing, x: key + 1}, nil }
	return p
}

func TestFragments(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.FragmentSize, cfg.CompressionThreshold = 10000, 5000 // in one piece up to 40000
		cfg.CheckpointInterval = 10 * time.Millisecond
	})
	c.found()
	m := c.members[0]
	var want []string
	add := func(p *Proposal) {
		if err := m.node.Submit(c.ctx(), p); err != nil {
			t.Fatal(err)
		}
		want = append(want, p.XID+p.LocalGTID)
	}
	for i := range 20 {
		switch i % 4 {
		case 0:
			add(bigProposal(fmt.Sprint("noise", i), 0, uint64(i), 123456, 0))
		case 1:
			add(proposal(fmt.Sprint("zeros", i), 0, uint64(i), make([]byte, 98765)))
		case 2:
			p := bigProposal("", 0, uint64(i), 55555, 0)
			p.Direct, p.LocalGTID = true, fmt.Sprint("direct", i)
			add(p)
		default:
			add(proposal(fmt.Sprint("small", i), 0, uint64(i), []byte("x")))
		}
	}
	// A body that cannot be read aborts; what follows goes on.
	add(bigProposal("broken", 0, 99, 100000, 1))
	add(proposal("after", 0, 100, []byte("x")))
	for _, key := range want {
		var d state.Decision
		m.rec.wait(t, key, func() bool {
			for _, x := range m.rec.list {
				if x.XID+x.LocalGTID == key {
					d = x
					return true
				}
			}
			return false
		})
		if d.Committed == (key == "broken") {
			t.Fatalf("%s: %+v", key, d)
		}
	}
	// What was submitted after a direct statement is ordered after it.
	pos := make(map[string]int)
	m.rec.mu.Lock()
	for i, d := range m.rec.list {
		pos[d.XID+d.LocalGTID] = i
	}
	m.rec.mu.Unlock()
	for i, a := range want {
		for _, b := range want[i+1:] {
			if a[:3] == "dir" && pos[a] > pos[b] {
				t.Errorf("%s was ordered after %s", a, b)
			}
		}
	}
	c.same()
}

func TestCrashBetweenFragments(t *testing.T) {
	gate := make(chan struct{})
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.FragmentSize, cfg.CompressionThreshold = 10000, -1
		cfg.CheckpointInterval = 10 * time.Millisecond
	})
	c.found()
	m := c.members[0]
	p := bigProposal("big", 0, 1, 200000, 0)
	open := p.Open
	p.Open = func() (io.ReadCloser, error) {
		r, err := open()
		return &gated{ReadCloser: r, gate: gate, after: 100000}, err
	}
	if err := m.node.Submit(c.ctx(), p); err != nil {
		t.Fatal(err)
	}
	victim := c.members[1]
	victim.wait(t, "half of the fragments in a checkpoint", func() bool {
		st, _, err := loadCheckpoint(victim.dir)
		return err == nil && len(st.Streams()) == 1 && st.Streams()[st.StreamIDs()[0]] >= 90000
	})
	c.crash(victim)
	close(gate)
	if d := m.rec.verdict(t, "big"); !d.Committed {
		t.Fatalf("%+v", d)
	}
	c.open(victim)
	submit(t, c, m, "a", 10)
	c.same()
}

type gated struct {
	io.ReadCloser
	gate  chan struct{}
	after int
}

func (g *gated) Read(p []byte) (int, error) {
	if g.after <= 0 {
		<-g.gate
	}
	n, err := g.ReadCloser.Read(p)
	g.after -= n
	return n, err
}

func TestLargeTransactionMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("150 MB three times")
	}
	c := newCluster(t, 3, nil)
	c.found()
	m := c.members[0]
	var peak atomic.Uint64
	ctx, cancel := context.WithCancel(c.ctx())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var ms runtime.MemStats
			runtime.ReadMemStats(&ms)
			peak.Store(max(peak.Load(), ms.HeapInuse))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	if err := m.node.Submit(c.ctx(), bigProposal("big", 0, 1, 150_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	passed := 0
	for i := 0; ; i++ {
		xid := fmt.Sprint("s", i)
		if err := m.node.Submit(c.ctx(), proposal(xid, 0, uint64(i)+1000, []byte("x"))); err != nil {
			t.Fatal(err)
		}
		m.rec.verdict(t, xid)
		if _, ok := m.node.Verdict("big"); ok {
			break
		}
		passed++
	}
	cancel()
	wg.Wait()
	if d := m.rec.verdict(t, "big"); !d.Committed {
		t.Fatalf("%+v", d)
	}
	if passed == 0 {
		t.Error("no small transaction passed the large one")
	}
	t.Logf("%d small ones passed, heap at most %d MB for three nodes", passed, peak.Load()>>20)
	if peak.Load() > 600<<20 {
		t.Errorf("heap grew to %d MB", peak.Load()>>20)
	}
	c.same()
}
