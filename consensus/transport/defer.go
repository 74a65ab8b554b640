package transport

import (
	"slices"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
)

// deferFor is how long a message waits that says only how far the log is committed.
// A client that commits one transaction after the other has the next entry, which
// says it too, on its way by then.
const deferFor = 5 * time.Millisecond

// deferred is the message of a link that waits for the next one to the same target.
// Where that says all that it does, it is left out: for a lone client that is half of
// the leader's messages and half of the answers, for which both sides wake up. Order
// is kept, and raft allows any message to be late or lost.
type deferred struct {
	mu    sync.Mutex // held while sending
	batch raftpb.MessageBatch
	held  bool
	timer *time.Timer
}

// commitOnly reports whether a batch says no more than how far the log is committed.
func commitOnly(b *raftpb.MessageBatch) bool {
	return len(b.Requests) == 1 && b.Requests[0].Type == raftpb.Replicate && len(b.Requests[0].Entries) == 0
}

// covers reports whether m says all that old does: the same leader's word about the
// same place in the log, committed as far at least.
func covers(m, old *raftpb.Message) bool {
	return m.Type == raftpb.Replicate && m.ShardID == old.ShardID && m.From == old.From && m.To == old.To &&
		m.Term == old.Term && m.LogIndex == old.LogIndex && m.LogTerm == old.LogTerm && m.Commit >= old.Commit
}

// put takes the next batch. It returns what is to be sent now, and whether there is
// anything.
func (d *deferred) put(b raftpb.MessageBatch, may bool) (raftpb.MessageBatch, bool) {
	if d.held {
		old := d.take().Requests[0]
		if !covers(&b.Requests[0], &old) {
			b.Requests = slices.Insert(slices.Clone(b.Requests), 0, old)
		}
	}
	if !may || !commitOnly(&b) {
		return b, true
	}
	d.batch, d.held = b, true
	d.batch.Requests = slices.Clone(b.Requests) // the slice is the caller's
	return b, false
}

func (d *deferred) take() raftpb.MessageBatch {
	b := d.batch
	d.batch, d.held = raftpb.MessageBatch{}, false
	d.timer.Stop()
	return b
}

// SendMessageBatch implements raftio.IConnection.
func (l *link) SendMessageBatch(b raftpb.MessageBatch) error {
	if len(b.Requests) == 0 {
		return nil
	}
	d := &l.deferred
	d.mu.Lock()
	defer d.mu.Unlock()
	b, now := d.put(b, l.t.o.Patient != nil && commitOnly(&b) && l.t.o.Patient(l.target))
	if !now {
		d.timer.Reset(deferFor)
		return nil
	}
	return l.send(b)
}

// sendDeferred is called when nothing else was sent for a while.
func (l *link) sendDeferred() {
	l.deferred.mu.Lock()
	defer l.deferred.mu.Unlock()
	if l.deferred.held && l.ctx.Err() == nil {
		_ = l.send(l.deferred.take()) // fails only after Close
	}
}
