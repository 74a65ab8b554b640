package consensus

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/lni/dragonboat/v4"
	"golang.org/x/sync/semaphore"

	"cohort/consensus/state"
)

const (
	// fragmentsInFlight bounds the share of the window that one large body
	// takes, so that small transactions pass it.
	fragmentsInFlight = 2
	// maxEntryBytes is when an entry is full.
	maxEntryBytes = 1 << 20
)

// Proposer orders the proposals of one incarnation.
//
// One goroutine, run, proposes. While the window has room, an entry holds what
// is queued at that moment, so a lone transaction goes out at once; while it is
// full, transactions gather and share the next entry. There is no timer.
//
// Every item has a sequence number, given when it is first sent, and the state
// machine accepts only the next one. So whatever fails, times out or comes twice,
// the proposer starts again after the last one that was accepted and loses or
// doubles nothing (rewind).
//
// Proposals are ordered as submitted, with one exception: a large body takes its
// time, and later transactions may pass it. That is sound because all of them
// are prepared together with it in one mysqld, whose locks keep them apart. A
// large direct statement is not passed, because what follows may build on it.
type Proposer struct {
	n           *Node
	incarnation uint64
	room        *semaphore.Weighted // bytes that Submit may still take
	pack        *packer

	wake   chan struct{} // cap 1: something was queued or accepted
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{} // closed by run

	acked  atomic.Uint64 // last sequence number accepted, as applied here
	fenced atomic.Bool

	mu      sync.Mutex
	queue   []*unit // small ones not sent yet
	larges  []*large
	sent    []*unit // sent and not accepted yet, by seq
	nextSeq uint64
	small   uint64 // number of small ones sent so far
	taken   uint64 // and submitted
	lastLow uint64 // of the last Submit
	any     bool   // there was a Submit
}

// unit is one item: a transaction or a fragment.
type unit struct {
	txn  *state.Txn
	frag *state.Fragment
	seq  uint64
	low  uint64 // of the snapshot
	size int    // bytes it holds of the window
	room int64  // bytes to be given back to Submit
}

// flight is one entry on its way.
type flight struct {
	rs        *dragonboat.RequestState
	first     uint64
	last      uint64
	size      int
	fragments int
}

func newProposer(n *Node, incarnation uint64) *Proposer {
	pk, err := newPacker(n.cfg.CompressionThreshold)
	if err != nil {
		panic(fmt.Sprintf("consensus: %v", err)) // constant options
	}
	ctx, cancel := context.WithCancel(n.ctx)
	return &Proposer{n: n, incarnation: incarnation, pack: pk,
		room: semaphore.NewWeighted(n.cfg.QueueBytes), wake: make(chan struct{}, 1),
		ctx: ctx, cancel: cancel, ended: make(chan struct{}), nextSeq: 1}
}

// Incarnation returns the incarnation that the proposer proposes for.
func (p *Proposer) Incarnation() uint64 { return p.incarnation }

// Proposer returns that of the current incarnation, nil before Join.
func (n *Node) Proposer() *Proposer { return n.proposer.Load() }

// Submit hands a proposal of the current incarnation to its proposer.
func (n *Node) Submit(ctx context.Context, pr *Proposal) error {
	p := n.proposer.Load()
	if p == nil {
		return ErrNotJoined
	}
	return p.Submit(ctx, pr)
}

// Submit takes a proposal to be ordered, and returns when it has it, which is
// at once unless the queue is full. It must be called in the order in which
// capture found them. What becomes of the proposal, the Observer is told; if
// the incarnation ends first, it may never be ordered, and its successor's fence
// aborts it. The proposal's slices belong to the proposer from now on.
func (p *Proposer) Submit(ctx context.Context, pr *Proposal) error {
	if err := pr.check(); err != nil {
		return err
	}
	t := pr.header(p.n.cfg.MaxKeys)
	t.Member, t.Incarnation = p.n.cfg.ReplicaID, p.incarnation
	if t.Epoch == 0 {
		t.Epoch = p.n.View().Epoch
	}
	if t.Refuse == 0 && (pr.Open != nil || len(pr.Body) > inlineFragments*p.n.cfg.FragmentSize) {
		return p.submitLarge(ctx, pr, t)
	}
	if t.Refuse == 0 {
		t.Body, t.Compressed = p.pack.pack(pr.Body, pr.BodyLen)
	}
	u := &unit{txn: &t, low: t.Snapshot.Low, size: t.SizeHint()}
	u.room = min(int64(u.size), p.n.cfg.QueueBytes)
	if err := p.take(ctx, u.room); err != nil {
		return err
	}
	p.mu.Lock()
	p.queue = append(p.queue, u)
	p.taken++
	p.lastLow, p.any = u.low, true
	p.mu.Unlock()
	p.signal()
	if t.Refuse != 0 && pr.Open != nil {
		discard(pr.Open) // nobody wants the body
	}
	return nil
}

// take waits for room in the queue.
func (p *Proposer) take(ctx context.Context, n int64) error {
	if p.room.TryAcquire(n) {
		return p.over()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(p.ctx, func() { cancel(ErrClosed) })
	defer stop()
	if err := p.room.Acquire(ctx, n); err != nil {
		if e := p.over(); e != nil {
			return e
		}
		return fmt.Errorf("consensus: %w", context.Cause(ctx))
	}
	return p.over()
}

// over reports why nothing will be ordered any more.
func (p *Proposer) over() error {
	switch {
	case p.n.machine.err() != nil:
		return p.n.machine.err()
	case p.fenced.Load():
		return ErrFenced
	case p.n.ctx.Err() != nil:
		return ErrClosed
	case p.ctx.Err() != nil:
		return ErrFenced // Join replaced it
	}
	return nil
}

// low returns what may be reported as Watermark.Low.
func (p *Proposer) low(w Watermark) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	low := w.Applied
	switch {
	case w.Low != 0:
		low = min(low, w.Low)
	case p.any:
		low = min(low, p.lastLow)
	}
	acked := p.acked.Load()
	for _, u := range p.sent {
		if u.txn != nil && u.seq > acked {
			low = min(low, u.low)
		}
	}
	for _, u := range p.queue {
		low = min(low, u.low)
	}
	for _, l := range p.larges {
		low = min(low, l.low)
	}
	return low
}

// Submitted returns the xids of what the current incarnation has submitted and has
// not been told the verdict on: whatever else was submitted before the call has one
// that Verdict returns after it.
func (n *Node) Submitted() map[string]bool {
	xids := make(map[string]bool)
	p := n.proposer.Load()
	if p == nil {
		return xids
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	acked := p.acked.Load()
	for _, us := range [][]*unit{p.sent, p.queue} {
		for _, u := range us {
			if u.txn != nil && (u.seq == 0 || u.seq > acked) {
				xids[u.txn.XID] = true
			}
		}
	}
	for _, l := range p.larges {
		xids[l.txn.XID] = true
	}
	return xids
}

func (p *Proposer) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// applied is called on the apply goroutine after each batch.
func (p *Proposer) applied() {
	seq, current := p.n.machine.lastSeq(p.n.cfg.ReplicaID, p.incarnation)
	if !current && p.n.machine.err() == nil {
		p.fenced.Store(true)
		p.signal()
		return
	}
	if seq > p.acked.Load() {
		p.acked.Store(seq)
		p.signal()
	}
}

// stop ends the proposer and waits for it.
func (p *Proposer) stop() {
	p.cancel()
	<-p.ended
}

// run proposes until ctx ends or the incarnation does.
func (p *Proposer) run(ctx context.Context) {
	defer close(p.ended)
	defer p.abandon()
	stop := context.AfterFunc(ctx, p.cancel)
	defer stop()
	s := &sender{p: p, timeout: p.n.cfg.proposeTimeout}
	for p.over() == nil {
		s.step()
	}
	p.cancel()
}

// discard lets the owner of a body free it.
func discard(open func() (io.ReadCloser, error)) {
	if r, err := open(); err == nil {
		r.Close()
	}
}

// abandon ends what reads bodies.
func (p *Proposer) abandon() {
	p.cancel()
	p.mu.Lock()
	larges := p.larges
	p.larges = nil
	p.queue, p.sent = nil, nil
	p.mu.Unlock()
	for _, l := range larges {
		if !l.begun {
			discard(l.open)
			continue
		}
		l.drop()
		<-l.done
	}
}
