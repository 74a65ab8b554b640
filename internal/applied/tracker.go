// Package applied owns one primitive: tell me when the applied set of a member
// includes N. The applied set is the group transaction numbers that are visible
// on that member's mysqld. COMMIT's reply, BEFORE, AFTER and failover all wait on
// it, for the own member and (through internal/peer) for the others.
//
// It must never say that a number is applied before it was told so, and knows
// nothing of mysqld or of the network.
package applied

import (
	"container/heap"
	"context"
	"errors"
	"slices"
	"sync"
)

// ErrClosed is what waiters get from Close(nil).
var ErrClosed = errors.New("applied: tracker closed")

// Tracker is a growing set of numbers with waiters. All methods may be called
// from any goroutine. Adding costs one lock and wakes exactly the waiters whose
// number came; waiting costs one lock and one channel.
type Tracker struct {
	mu     sync.Mutex
	set    Set
	exact  map[uint64][]*waiter // waiters for one number, by that number
	prefix prefixHeap           // waiters for 1..n, lowest n first
	subs   map[*Subscription]struct{}
	closed error
	onWait func()
}

// waiter is one blocked Wait or WaitAll. Under Tracker.mu it is in exactly one
// of exact and prefix until it is woken or gives up; done is closed once, by
// whoever removes it to wake it, after err is set.
type waiter struct {
	n     uint64
	index int // place in the heap, for prefix waiters
	err   error
	done  chan struct{}
}

// New returns a tracker that holds s.
func New(s Set) *Tracker {
	t := &Tracker{exact: map[uint64][]*waiter{}, subs: map[*Subscription]struct{}{}}
	t.set.Low = s.Low
	for _, r := range s.Extra {
		t.set.insert(r)
	}
	return t
}

// OnWait sets what is called, without the lock, whenever somebody begins to wait
// for a number that is not in the set. f must not block.
func (t *Tracker) OnWait(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.onWait = f
}

// Announce says that somebody is about to wait for a number that is still to come.
func (t *Tracker) Announce() {
	t.mu.Lock()
	onWait := t.onWait
	t.mu.Unlock()
	if onWait != nil {
		onWait()
	}
}

// Add puts n into the set.
func (t *Tracker) Add(n uint64) { t.AddRange(n, n) }

// AddRange puts from..to, both inclusive, into the set. What is in already and
// empty ranges do no harm. After Close it does nothing.
func (t *Tracker) AddRange(from, to uint64) {
	if from > to || to == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed != nil {
		return
	}
	t.set.insert(Range{from, to})
	t.wakeExact(from, to)
	t.wakePrefix()
	for s := range t.subs {
		s.add(Range{max(from, 1), to})
	}
}

// AddSet puts all of s into the set.
func (t *Tracker) AddSet(s Set) {
	for _, r := range s.Ranges() {
		t.AddRange(r.From, r.To)
	}
}

// Reset replaces the set, which may shrink: a mysqld that came back with less
// than it had. Waiters stay; those that the new set satisfies are woken.
func (t *Tracker) Reset(s Set) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed != nil {
		return
	}
	t.set = Set{Low: s.Low}
	for _, r := range s.Extra {
		t.set.insert(r)
	}
	for n := range t.exact {
		if t.set.Contains(n) {
			t.wakeExact(n, n)
		}
	}
	t.wakePrefix()
	for s := range t.subs {
		s.restart()
	}
}

// wakeExact wakes the waiters for the numbers from..to, looking through
// whichever is smaller, the range or the waiters.
func (t *Tracker) wakeExact(from, to uint64) {
	if to-from < uint64(len(t.exact)) {
		for n := from; ; n++ {
			t.wakeNumber(n)
			if n == to {
				return
			}
		}
	}
	for n := range t.exact {
		if from <= n && n <= to {
			t.wakeNumber(n)
		}
	}
}

func (t *Tracker) wakeNumber(n uint64) {
	for _, w := range t.exact[n] {
		close(w.done)
	}
	delete(t.exact, n)
}

func (t *Tracker) wakePrefix() {
	for len(t.prefix) > 0 && t.prefix[0].n <= t.set.Low {
		close(heap.Pop(&t.prefix).(*waiter).done)
	}
}

// Wait returns nil once n is in the set, whatever else is. Otherwise it returns
// ctx's cause, or the error given to Close. A number that is in the set already
// gives nil even when ctx is done or the tracker closed.
func (t *Tracker) Wait(ctx context.Context, n uint64) error {
	t.mu.Lock()
	if t.set.Contains(n) {
		t.mu.Unlock()
		return nil
	}
	if t.closed != nil {
		defer t.mu.Unlock()
		return t.closed
	}
	w := &waiter{n: n, done: make(chan struct{})}
	t.exact[n] = append(t.exact[n], w)
	return t.await(ctx, w, func() {
		rest := slices.DeleteFunc(t.exact[n], func(x *waiter) bool { return x == w })
		if len(rest) == 0 {
			delete(t.exact, n)
		} else {
			t.exact[n] = rest
		}
	})
}

// WaitAll returns nil once all of 1..upto are in the set; errors as Wait.
func (t *Tracker) WaitAll(ctx context.Context, upto uint64) error {
	t.mu.Lock()
	if upto <= t.set.Low {
		t.mu.Unlock()
		return nil
	}
	if t.closed != nil {
		defer t.mu.Unlock()
		return t.closed
	}
	w := &waiter{n: upto, done: make(chan struct{})}
	heap.Push(&t.prefix, w)
	return t.await(ctx, w, func() { heap.Remove(&t.prefix, w.index) })
}

// await gives the lock back and blocks until w is woken or ctx is done; then remove,
// called under the lock, takes w out. A wake-up that came first wins over ctx.
func (t *Tracker) await(ctx context.Context, w *waiter, remove func()) error {
	onWait := t.onWait
	t.mu.Unlock()
	if onWait != nil {
		onWait()
	}
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-w.done:
		return w.err
	default:
		remove()
		return context.Cause(ctx)
	}
}

// Low returns the highest n for which all of 1..n are in the set.
func (t *Tracker) Low() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set.Low
}

// Contains reports whether n is in the set now.
func (t *Tracker) Contains(n uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set.Contains(n)
}

// Snapshot returns the set as it is now; the caller owns it.
func (t *Tracker) Snapshot() Set {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.snapshot()
}

func (t *Tracker) snapshot() Set {
	return Set{Low: t.set.Low, Extra: slices.Clone(t.set.Extra)}
}

// Close ends the tracker: everyone who waits, or waits later for a number that
// is not in the set, gets err (ErrClosed if nil), and so do subscriptions once
// they have been emptied. Only the first Close counts.
func (t *Tracker) Close(err error) {
	if err == nil {
		err = ErrClosed
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed != nil {
		return
	}
	t.closed = err
	for _, ws := range t.exact {
		for _, w := range ws {
			w.err = err
			close(w.done)
		}
	}
	clear(t.exact)
	for _, w := range t.prefix {
		w.err = err
		close(w.done)
	}
	t.prefix = nil
	for s := range t.subs {
		s.signal()
	}
}

// prefixHeap orders waiters by number; it implements heap.Interface.
type prefixHeap []*waiter

func (h prefixHeap) Len() int           { return len(h) }
func (h prefixHeap) Less(i, j int) bool { return h[i].n < h[j].n }
func (h prefixHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *prefixHeap) Push(x any) {
	w := x.(*waiter)
	w.index = len(*h)
	*h = append(*h, w)
}
func (h *prefixHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return w
}
