package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"
)

const (
	// readTimeout is that of one attempt: a read that was lost on its way to
	// the leader is not repeated by anyone else.
	readTimeout = 300 * time.Millisecond
	// readsInFlight is how many shared reads run at once. With one, a reader
	// would wait for the rest of the running one first.
	readsInFlight = 2
)

// readGroup shares read indexes: readers that come while readsInFlight are under
// way take the next one together.
type readGroup struct {
	mu      sync.Mutex
	running int
	next    *sharedRead // waits to be started, or nil
}

// sharedRead is one read index. Its fields are set before done is closed.
type sharedRead struct {
	done  chan struct{}
	lastN uint64
	err   error
}

// ReadIndex returns the last group transaction number decided at some moment
// after the call began, as a majority confirms: whoever has applied it sees
// everything acknowledged before. All concurrent callers share one round.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	pause := retryFirst
	for {
		r := n.reads.join(n)
		select {
		case <-r.done:
		case <-ctx.Done():
			return 0, fmt.Errorf("consensus: %w", context.Cause(ctx))
		}
		if r.err == nil {
			return r.lastN, nil
		}
		if err := n.machine.err(); err != nil {
			return 0, err
		}
		if err := n.retry(ctx, r.err, &pause); err != nil {
			return 0, err
		}
	}
}

// join returns a read that has not begun yet.
func (g *readGroup) join(n *Node) *sharedRead {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next == nil {
		g.next = &sharedRead{done: make(chan struct{})}
	}
	r := g.next
	if g.running < readsInFlight {
		g.start(n)
	}
	return r
}

// start begins the waiting read. Needs mu.
func (g *readGroup) start(n *Node) {
	r := g.next
	g.next = nil
	ok := n.spawn(func() {
		r.lastN, r.err = n.readIndex()
		close(r.done)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.running--
		if g.next != nil {
			g.start(n)
		}
	})
	if !ok {
		r.err = ErrClosed
		close(r.done)
		return
	}
	g.running++
}

// readIndex does one read index.
func (n *Node) readIndex() (uint64, error) {
	if err := n.machine.err(); err != nil {
		return 0, err
	}
	h, err := n.raft()
	if err != nil {
		return 0, err
	}
	rs, err := h.nh.ReadIndex(shardID, readTimeout)
	if err != nil {
		return 0, err
	}
	defer rs.Release()
	select {
	case res := <-rs.ResultC():
		switch {
		case res.Completed():
			// Everything up to the read index has been applied here.
			return n.machine.lastN.Load(), n.machine.err()
		case res.Timeout():
			return 0, dragonboat.ErrTimeout
		case res.Dropped():
			return 0, dragonboat.ErrShardNotReady
		default:
			return 0, dragonboat.ErrShardClosed
		}
	case <-n.ctx.Done():
		return 0, errors.Join(ErrClosed, n.ctx.Err())
	}
}
