package consensus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"
)

// compactor decides what the log may forget. Dragonboat counts entries, which
// here are anything from 100 bytes to a megabyte, so this counts bytes.
type compactor struct {
	mu    sync.Mutex
	total uint64 // bytes applied since the start
	marks []mark // one per markBytes, ascending
	done  uint64 // total at the last compaction
}

type mark struct{ index, total uint64 }

const markBytes = 4 << 20

// reset begins with another log.
func (c *compactor) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total, c.done, c.marks = 0, 0, nil
}

// note is called on the apply goroutine.
func (c *compactor) note(index uint64, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total += uint64(size)
	if n := len(c.marks); n == 0 || c.total-c.marks[n-1].total >= markBytes {
		c.marks = append(c.marks, mark{index, c.total})
	}
}

// next returns the index up to which the log may go so that retain bytes stay,
// 0 when it is not worth it yet.
func (c *compactor) next(retain uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total-c.done < retain/4 || c.total < retain {
		return 0
	}
	i := 0
	for i < len(c.marks) && c.total-c.marks[i].total >= retain {
		i++
	}
	if i == 0 {
		return 0
	}
	index := c.marks[i-1].index
	c.marks = append(c.marks[:0], c.marks[i:]...)
	c.done = c.total
	return index
}

// runCompaction forgets old parts of the log.
func (n *Node) runCompaction(ctx context.Context) {
	t := time.NewTicker(n.cfg.CheckpointInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		h := n.host.Load()
		if h == nil {
			continue
		}
		index := n.compact.next(n.cfg.RetainLogBytes)
		if index == 0 {
			continue
		}
		sctx, cancel := context.WithTimeout(ctx, time.Minute)
		// The snapshot of an on-disk state machine is a mark after a Sync, during
		// which nothing is applied; most of its work is done before.
		if err := n.machine.checkpoint(); err != nil {
			cancel()
			return
		}
		_, err := h.nh.SyncRequestSnapshot(sctx, shardID, dragonboat.SnapshotOption{
			OverrideCompactionOverhead: true, CompactionIndex: index})
		cancel()
		if err != nil && !errors.Is(err, dragonboat.ErrRejected) && ctx.Err() == nil {
			n.log.Warn().Err(err).Msg("the log was not compacted")
		}
	}
}

// LogBegins returns the index of the oldest entry that this member's log has: who
// has applied less is sent a snapshot.
func (n *Node) LogBegins() uint64 {
	x, err := n.raft()
	if err != nil {
		return 0
	}
	r, err := x.nh.GetLogReader(shardID)
	if err != nil {
		return 0
	}
	first, _ := r.GetRange()
	return first
}
