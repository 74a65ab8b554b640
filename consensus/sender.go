package consensus

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/lni/dragonboat/v4"

	"cohort/consensus/state"
)

// sender is the state of a Proposer's run goroutine.
type sender struct {
	p       *Proposer
	flights []flight
	bytes   int // in flight
	frags   int
	// onWay is how many units at the front of p.sent are in a flight; the others
	// have to be sent again before anything new.
	onWay   int
	leader  uint64
	term    uint64
	paused  time.Time     // nothing is sent before, unless zero
	backoff time.Duration // the last pause since something was accepted
	timeout time.Duration
	stuck   uint64 // what was accepted when an entry was last ignored, plus 1
	buf     []byte
}

// step sends what the window allows and waits for news.
func (s *sender) step() {
	s.settle()
	leader, term, changed := s.p.n.leader.get()
	if leader != 0 && (leader != s.leader || term != s.term) {
		// Entries that were on their way to the old leader may be lost without
		// a word.
		s.leader, s.term, s.paused, s.backoff = leader, term, time.Time{}, 0
		if len(s.flights) > 0 {
			s.rewind()
		}
	}
	for s.sendOne() {
	}
	s.wait(changed)
}

// settle forgets what was accepted.
func (s *sender) settle() {
	p := s.p
	acked := p.acked.Load()
	var room int64
	p.mu.Lock()
	i := 0
	for i < len(p.sent) && p.sent[i].seq <= acked {
		room += p.sent[i].room
		p.sent[i] = nil
		i++
	}
	p.sent = p.sent[i:]
	if len(p.sent) == 0 {
		p.sent = nil // let the array go
	}
	p.mu.Unlock()
	s.onWay = max(0, s.onWay-i)
	if room > 0 {
		p.room.Release(room)
	}
}

// sendOne sends one entry if there is anything to send and room for it.
func (s *sender) sendOne() bool {
	cfg := &s.p.n.cfg
	if !s.paused.IsZero() || len(s.flights) >= cfg.WindowEntries || s.bytes >= cfg.WindowBytes {
		return false
	}
	units, frags := s.again()
	if len(units) == 0 {
		units, frags = s.gather()
	}
	if len(units) == 0 {
		return false
	}
	return s.send(units, frags)
}

// again takes what was sent before and is neither accepted nor on its way.
func (s *sender) again() (units []*unit, frags int) {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	size := 0
	for _, u := range p.sent[s.onWay:] {
		if size > 0 && size+u.size > maxEntryBytes {
			break
		}
		units = append(units, u)
		size += u.size
		if u.frag != nil {
			frags++
		}
	}
	return units, frags
}

// gather takes what comes next, gives it its sequence numbers and moves it to
// p.sent: queued small ones first, otherwise a fragment.
func (s *sender) gather() (units []*unit, frags int) {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	size, n := 0, 0
	for _, u := range p.queue {
		if size > 0 && size+u.size > maxEntryBytes || s.blocked(p.small+uint64(n)) {
			break
		}
		units = append(units, u)
		size += u.size
		n++
	}
	if n == len(p.queue) {
		p.queue = nil
	} else {
		p.queue = p.queue[n:]
	}
	p.small += uint64(n)
	if n == 0 {
		u := s.nextOfLarge()
		if u == nil {
			return nil, 0
		}
		units = append(units, u)
		if u.frag != nil {
			frags = 1
		}
	}
	for _, u := range units {
		u.seq = p.nextSeq
		p.nextSeq++
		if u.txn != nil {
			u.txn.Seq = u.seq
		}
	}
	p.sent = append(p.sent, units...)
	return units, frags
}

// blocked reports whether the small one with this number has to wait for a large
// direct statement that was submitted before it. Needs p.mu.
func (s *sender) blocked(number uint64) bool {
	for _, l := range s.p.larges {
		if l.txn.Direct && l.after <= number {
			return true
		}
	}
	return false
}

// nextOfLarge returns the next fragment, or the transaction itself after its
// last one, of the oldest large proposal. Needs p.mu.
func (s *sender) nextOfLarge() *unit {
	p := s.p
	if len(p.larges) == 0 || p.larges[0].after > p.small || s.frags >= fragmentsInFlight {
		return nil
	}
	l := p.larges[0]
	if !l.begun {
		l.begun = true
		var ctx context.Context
		ctx, l.drop = context.WithCancel(p.ctx)
		// Its owner is this proposer: abandon, or the end of the body, waits.
		go l.read(ctx, p)
		return nil
	}
	select {
	case f, ok := <-l.frags:
		if ok {
			f.Member, f.Incarnation, f.Seq = p.n.cfg.ReplicaID, p.incarnation, p.nextSeq
			if l.stream == 0 {
				l.stream = p.nextSeq
			}
			f.Stream = l.stream
			return &unit{frag: f, size: len(f.Data) + 64}
		}
	default:
		return nil
	}
	<-l.done
	l.drop()
	p.larges = p.larges[1:]
	t := l.txn
	t.Stream = l.stream
	if l.err != nil {
		// Without its body it cannot commit, but it must be decided.
		if p.ctx.Err() != nil {
			return nil
		}
		p.n.log.Error().Err(l.err).Str("xid", t.XID).Msg("the body of a transaction could not be read")
		t.Refuse, t.Writes, t.Refs, t.Tables, t.BodyLen = state.ErrnoConflict, nil, nil, nil, 0
	}
	return &unit{txn: &t, low: l.low, size: t.SizeHint(), room: l.room}
}

// send proposes units as one entry.
func (s *sender) send(units []*unit, frags int) bool {
	p := s.p
	s.buf = state.AppendHeader(s.buf[:0])
	for _, u := range units {
		if u.txn != nil {
			s.buf = u.txn.AppendItem(s.buf)
		} else {
			s.buf = u.frag.AppendItem(s.buf)
		}
	}
	// Dragonboat copies the entry.
	h, err := p.n.raft()
	var rs *dragonboat.RequestState
	if err == nil {
		rs, err = h.nh.Propose(h.session, s.buf, s.timeout)
	}
	if err != nil {
		s.failed(err)
		return false
	}
	f := flight{rs: rs, first: units[0].seq, last: units[len(units)-1].seq, size: len(s.buf), fragments: frags}
	s.flights = append(s.flights, f)
	s.onWay += len(units)
	s.bytes += f.size
	s.frags += frags
	if cap(s.buf) > 2*maxEntryBytes {
		s.buf = nil
	}
	return true
}

// wait waits for the oldest entry, new work, another leader or the end of a
// pause.
func (s *sender) wait(leaderChanged <-chan struct{}) {
	p := s.p
	var head chan dragonboat.RequestResult
	if len(s.flights) > 0 {
		head = s.flights[0].rs.AppliedC()
	}
	var pause <-chan time.Time
	if !s.paused.IsZero() {
		t := time.NewTimer(time.Until(s.paused))
		defer t.Stop()
		pause = t.C
	}
	select {
	case r := <-head:
		s.landed(r)
	case <-p.wake:
	case <-leaderChanged:
	case <-pause:
		s.paused = time.Time{}
	case <-p.ctx.Done():
	}
}

// landed takes the result of the oldest entry.
func (s *sender) landed(r dragonboat.RequestResult) {
	f := s.flights[0]
	s.flights = s.flights[1:]
	s.bytes -= f.size
	s.frags -= f.fragments
	f.rs.Release()
	if r.Completed() && s.p.acked.Load() >= f.last {
		s.timeout = s.p.n.cfg.proposeTimeout
		s.backoff = 0
		return
	}
	switch {
	case r.Completed():
		// An entry before it was lost, so the state machine did not take it. If
		// that does not help either, something is wrong, and nothing gained by
		// filling the log with it.
		if at := s.p.acked.Load() + 1; s.stuck != at {
			s.stuck = at
			s.rewind()
		} else {
			s.failed(dragonboat.ErrRejected)
		}
	case r.Timeout():
		s.timeout = min(2*s.timeout, 8*s.p.n.cfg.proposeTimeout)
		s.failed(dragonboat.ErrTimeout)
	default:
		s.failed(dragonboat.ErrShardNotReady)
	}
}

// failed begins a pause, after which everything not accepted is sent again.
func (s *sender) failed(err error) {
	if !dragonboat.IsTempError(err) && !errors.Is(err, dragonboat.ErrTimeout) && !errors.Is(err, ErrNotAdmitted) {
		s.p.n.log.Warn().Err(err).Msg("a proposal was refused; trying again")
	}
	s.rewind()
	s.backoff = min(max(2*s.backoff, retryFirst), retryLast)
	s.paused = time.Now().Add(s.backoff)
}

// rewind gives up all entries on their way and starts again after the last item
// accepted. Copies that arrive all the same are recognised by their numbers.
func (s *sender) rewind() {
	s.flights = nil // their results go nowhere, dragonboat frees them itself
	s.bytes, s.frags, s.onWay = 0, 0, 0
	s.settle()
}

// largeRoom is what a large proposal takes of the queue's room while it waits;
// its body stays where it is.
const largeRoom = 256 << 10

// submitLarge queues a proposal whose body goes in fragments.
func (p *Proposer) submitLarge(ctx context.Context, pr *Proposal, t state.Txn) error {
	open := pr.Open
	if open == nil {
		body := pr.Body
		open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	l := &large{txn: t, low: t.Snapshot.Low, open: open, room: min(largeRoom, p.n.cfg.QueueBytes),
		frags: make(chan *state.Fragment, 1), done: make(chan struct{})}
	if err := p.take(ctx, l.room); err != nil {
		return err
	}
	p.mu.Lock()
	l.after = p.taken
	p.larges = append(p.larges, l)
	p.lastLow, p.any = l.low, true
	p.mu.Unlock()
	p.signal()
	return nil
}
