package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/raftio"

	"cohort/consensus/state"
)

// leadership knows who leads the log. Dragonboat calls LeaderUpdated from one
// goroutine for all events, so it only notes.
type leadership struct {
	mu      sync.Mutex
	id      uint64
	term    uint64
	changed chan struct{} // closed and replaced at each change
}

func (l *leadership) init() { l.changed = make(chan struct{}) }

// reset forgets what an earlier replica knew.
func (l *leadership) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id, l.term = 0, 0
	close(l.changed)
	l.changed = make(chan struct{})
}

// LeaderUpdated implements raftio.IRaftEventListener.
func (l *leadership) LeaderUpdated(info raftio.LeaderInfo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if info.Term < l.term || l.id == info.LeaderID && l.term == info.Term {
		return
	}
	l.id, l.term = info.LeaderID, info.Term
	close(l.changed)
	l.changed = make(chan struct{})
}

// get returns the leader, 0 for none, its term, and what is closed when that
// changes.
func (l *leadership) get() (id, term uint64, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id, l.term, l.changed
}

// LeaderID returns the member that leads the log as this one knows it, 0 for
// none.
func (n *Node) LeaderID() uint64 {
	id, _, _ := n.leader.get()
	return n.memberOf(id)
}

// memberOf returns the member that has a replica, 0 for none.
func (n *Node) memberOf(replica uint64) uint64 {
	if replica == 0 {
		return 0
	}
	if h := n.host.Load(); h != nil && h.replica == replica {
		return n.cfg.ReplicaID
	}
	if m, ok := n.View().MemberByReplica(replica); ok {
		return m.ID
	}
	if n.static() && slices.Contains(n.View().Unclaimed, replica) || !n.View().Founded {
		return replica // whoever claims it will have its number
	}
	return 0
}

// replicaOf returns a member's replica, 0 for none.
func (n *Node) replicaOf(member uint64) uint64 {
	if m, ok := n.View().Member(member); ok {
		return m.Replica
	}
	if n.static() && n.cfg.InitialMembers[member] != "" {
		return member
	}
	return 0
}

// LeaderChanged returns a channel that is closed when LeaderID next changes.
func (n *Node) LeaderChanged() <-chan struct{} {
	_, _, c := n.leader.get()
	return c
}

// transferTimeout is how long one attempt to move leadership may take; those
// that succeed do so within milliseconds.
const transferTimeout = 500 * time.Millisecond

// TransferLeader moves leadership to the member. Attempts fail now and then, so
// it tries until ctx ends.
func (n *Node) TransferLeader(ctx context.Context, to uint64) error {
	for {
		id, _, changed := n.leader.get()
		replica := n.replicaOf(to)
		if replica == 0 {
			return fmt.Errorf("%w: member %d has no vote", ErrNoTransfer, to)
		}
		if id == replica {
			return nil
		}
		h, err := n.raft()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNoTransfer, err)
		}
		err = h.nh.RequestLeaderTransfer(shardID, replica)
		if err != nil && !dragonboat.IsTempError(err) {
			return fmt.Errorf("%w: %w", ErrNoTransfer, err)
		}
		t := time.NewTimer(transferTimeout)
		select {
		case <-changed:
		case <-t.C:
		case <-n.ctx.Done():
			err = ErrClosed
		case <-ctx.Done():
			err = errors.Join(err, context.Cause(ctx))
		}
		t.Stop()
		if ctx.Err() != nil || n.ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ErrNoTransfer, err)
		}
	}
}

// Pauses between attempts to bring leadership home.
const (
	followFirst = time.Second
	followLast  = 30 * time.Second
)

// transferTarget returns to whom self should hand leadership, if it leads at all.
// An attempt costs: the leader takes no proposals until it succeeds or an
// election timeout has passed. So a primary that the group does not know to be
// up is not bothered, nor one that is still coming up: it would have to follow
// the log and lead it. Nor one that is doubted: the appointment of another would
// wait behind the attempt.
func transferTarget(v *state.View, leader, self uint64, doubted func(member uint64) bool) (uint64, bool) {
	m, ok := v.Member(v.Primary)
	return v.Primary, ok && leader == self && v.Primary != self && m.State == state.StateOnline && !doubted(v.Primary)
}

// SetDoubt says how to find out that a member is hardly there: leadership is not
// handed to it. doubted must not block.
func (n *Node) SetDoubt(doubted func(member uint64) bool) { n.doubt.Store(&doubted) }

func (n *Node) doubted(member uint64) bool {
	f := n.doubt.Load()
	return f != nil && (*f)(member)
}

// SetPatient says which members nobody waits at for what this one orders: they may
// learn some milliseconds later how far the log is committed, with the next entry.
// patient is called for most messages to them and must be cheap.
func (n *Node) SetPatient(patient func(member uint64) bool) { n.patient.Store(&patient) }

func (n *Node) isPatient(address string) bool {
	f := n.patient.Load()
	if f == nil {
		return false
	}
	for _, m := range n.View().Members {
		if m.Address == address {
			return (*f)(m.ID)
		}
	}
	return false
}

// follow paces the attempts. Each one may cost a second of writes, and so may each
// return of leadership from a primary that cannot hold it, because its disk is slow,
// say. So the pauses grow until it has held it for a while, or is another one.
type follow struct {
	to    uint64
	at    time.Time // of the last attempt
	pause time.Duration
}

// due says whether to try now to hand over to a member.
func (f *follow) due(now time.Time, to uint64) bool {
	if to != f.to || now.Sub(f.at) >= f.pause+followLast {
		*f = follow{to: to}
	}
	if now.Sub(f.at) < f.pause {
		return false
	}
	f.at, f.pause = now, min(max(2*f.pause, followFirst), followLast)
	return true
}

// runFollowPrimary keeps leadership with the primary's member, which saves its
// proposals a hop. Only the leader acts.
func (n *Node) runFollowPrimary(ctx context.Context) {
	var f follow
	for {
		id, _, changed := n.leader.get()
		if to, ok := transferTarget(n.View(), n.memberOf(id), n.cfg.ReplicaID, n.doubted); ok && f.due(time.Now(), to) {
			tctx, cancel := context.WithTimeout(ctx, transferTimeout)
			err := n.TransferLeader(tctx, to)
			cancel()
			if err != nil && ctx.Err() == nil {
				n.log.Debug().Err(err).Uint64("to", to).Msg("leadership of the log stays here for now")
			}
		}
		t := time.NewTimer(followFirst)
		select {
		case <-ctx.Done():
		case <-changed:
			// Let the new leader settle, also against members that disagree.
			t.Reset(followFirst)
			select {
			case <-ctx.Done():
			case <-t.C:
			}
		case <-t.C:
		}
		t.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}
