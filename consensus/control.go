package consensus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lni/dragonboat/v4"

	"cohort/consensus/state"
)

// Control entries are proposed until ctx ends. A proposal that failed may have
// been ordered all the same, so each of them does nothing the second time.

// An attempt ends when its time is over, twice as long with each, or when another
// leader appears: what was on its way to the old one is often lost without a word,
// and a failover waits for it.
const (
	defaultControlTimeout = 500 * time.Millisecond
	controlGrowth         = 8 // of the last attempts, against the first

	retryFirst = 2 * time.Millisecond
	retryLast  = 100 * time.Millisecond
)

// propose orders one entry and returns what the state machine said of it, after
// it was applied here.
func (n *Node) propose(ctx context.Context, entry []byte) (uint64, error) {
	pause := retryFirst
	first := n.cfg.controlTimeout
	for limit := first; ; limit = min(2*limit, controlGrowth*first) {
		if err := n.machine.err(); err != nil {
			return 0, err
		}
		h, err := n.raft()
		if err != nil {
			return 0, err
		}
		_, _, changed := n.leader.get()
		tctx, cancel := context.WithTimeout(ctx, limit)
		go func() { // ends with tctx
			select {
			case <-changed:
				cancel()
			case <-tctx.Done():
			}
		}()
		res, err := h.nh.SyncPropose(tctx, h.session, entry)
		cancel()
		if err == nil {
			return res.Value, n.machine.err()
		}
		if errors.Is(err, dragonboat.ErrShardNotFound) {
			return 0, fmt.Errorf("%w: %w", ErrNotAdmitted, err)
		}
		if err := n.retry(ctx, err, &pause); err != nil {
			return 0, err
		}
	}
}

// retry waits before another attempt, or says why there will be none.
func (n *Node) retry(ctx context.Context, err error, pause *time.Duration) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("consensus: %w (last: %w)", context.Cause(ctx), err)
	case n.ctx.Err() != nil:
		return ErrClosed
	case !dragonboat.IsTempError(err) && !errors.Is(err, context.DeadlineExceeded) &&
		!errors.Is(err, dragonboat.ErrCanceled):
		return fmt.Errorf("consensus: %w", err)
	}
	t := time.NewTimer(*pause)
	defer t.Stop()
	*pause = min(2**pause, retryLast)
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("consensus: %w (last: %w)", context.Cause(ctx), err)
	case <-n.ctx.Done():
		return ErrClosed
	}
}

// Bootstrap founds the group; of several the first counts. Lineage is chosen
// when it is 0, Rules when it is 0. It returns the view of the group as founded.
func (n *Node) Bootstrap(ctx context.Context, b state.Bootstrap) (*state.View, error) {
	if b.Lineage == 0 {
		b.Lineage = nonZero()
	}
	if b.Rules == 0 {
		b.Rules = state.RulesVersion
	}
	if b.GroupName == "" {
		b.GroupName = n.cfg.GroupName
	}
	b.Replicas = max(1, uint64(len(n.cfg.InitialMembers)))
	if len(b.Base) > state.MaxBase {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrBaseTooLong, len(b.Base), state.MaxBase)
	}
	if _, err := n.propose(ctx, state.Entry(b.AppendItem(nil))); err != nil {
		return nil, err
	}
	return n.View(), nil
}

// Join begins a new incarnation of this member: every proposal of an earlier one
// that was not ordered yet will be aborted. It returns the incarnation and the
// epoch that was current then, and makes Submit propose for it. The group must
// have been founded (ErrNotFounded), and no other member may have the server_uuid
// (ErrDuplicateUUID); after either nothing has changed, only that the earlier
// incarnation of this node proposes no more.
//
// Direct statements that an earlier incarnation ran and did not get ordered must
// be submitted before the first Watermark, which says that nothing so old will
// come any more.
func (n *Node) Join(ctx context.Context, info state.MemberInfo) (incarnation, epoch uint64, err error) {
	n.joinMu.Lock()
	defer n.joinMu.Unlock()
	if old := n.proposer.Swap(nil); old != nil {
		old.stop()
	}
	h, err := n.raft()
	if err != nil {
		return 0, 0, err
	}
	info.LogAddress = n.cfg.LocalAddress
	j := state.Join{Member: n.cfg.ReplicaID, Replica: h.replica, Nonce: nonZero(), Info: info}
	n.joining.Store(j.Nonce)
	inc, err := n.propose(ctx, state.Entry(j.AppendItem(nil)))
	if err != nil {
		return 0, 0, err
	}
	switch inc {
	case 0:
		return 0, 0, ErrNotFounded
	case state.RefusedDuplicateUUID:
		return 0, 0, fmt.Errorf("%w: %s", ErrDuplicateUUID, info.UUID)
	case state.RefusedNotAdmitted:
		return 0, 0, fmt.Errorf("%w: the group goes on without this replica", ErrNotAdmitted)
	}
	n.awaitVote(ctx, h)
	p := newProposer(n, inc)
	if !n.spawn(func() { p.run(n.ctx) }) {
		return 0, 0, ErrClosed
	}
	n.proposer.Store(p)
	return inc, n.View().Epoch, nil
}

func nonZero() uint64 {
	for {
		if v := rand.Uint64(); v != 0 {
			return v
		}
	}
}

// SetState reports a new state of this member's current incarnation.
func (n *Node) SetState(ctx context.Context, to state.MemberState) error {
	p := n.proposer.Load()
	if p == nil {
		return ErrNotJoined
	}
	return n.SetMemberState(ctx, n.cfg.ReplicaID, p.incarnation, to)
}

// SetMemberState changes the state of any member, if incarnation is its current
// one and neither OFFLINE nor in ERROR (ErrFenced): these are final, a new Join
// brings a member back. A primary that is not ONLINE any more is replaced by the
// same entry if another member is.
func (n *Node) SetMemberState(ctx context.Context, member, incarnation uint64, to state.MemberState) error {
	s := state.SetState{Member: member, Incarnation: incarnation, State: to}
	res, err := n.propose(ctx, state.Entry(s.AppendItem(nil)))
	if err == nil && res == 0 {
		return ErrFenced
	}
	return err
}

// ReportError reports that this member's life is in ERROR, also one of which the
// Join was not applied here: where nothing is applied because the rows are missing, the
// others may have seen it. It returns when that was applied here, another member has
// done it, or ctx ends; the entry may be ordered by then all the same.
//
// A replica that began with a snapshot whose rows are missing takes no part in the
// log before it has them, so it cannot propose either. Its earlier life is OFFLINE then,
// and the others are asked to say of that why.
func (n *Node) ReportError(ctx context.Context) error {
	if n.tellFailed(ctx) {
		return nil
	}
	s := state.SetState{Member: n.cfg.ReplicaID, Nonce: n.joining.Load(), State: state.StateError}
	if s.Nonce == 0 {
		return ErrNotJoined
	}
	_, err := n.propose(ctx, state.Entry(s.AppendItem(nil)))
	return err
}

// SetOpen reports that this member is ONLINE and, as the primary of the epoch
// given, open for writes. It fails with ErrFenced if the epoch or this member's
// incarnation has ended.
func (n *Node) SetOpen(ctx context.Context, epoch uint64) error {
	p := n.proposer.Load()
	if p == nil {
		return ErrNotJoined
	}
	s := state.SetState{Member: n.cfg.ReplicaID, Incarnation: p.incarnation, State: state.StateOnline, Epoch: epoch}
	res, err := n.propose(ctx, state.Entry(s.AppendItem(nil)))
	if err == nil && res == 0 {
		return ErrFenced
	}
	return err
}

// SetWeight changes the weight of this member's current incarnation in elections.
func (n *Node) SetWeight(ctx context.Context, weight uint64) error {
	p := n.proposer.Load()
	if p == nil {
		return ErrNotJoined
	}
	w := state.Weight{Member: n.cfg.ReplicaID, Incarnation: p.incarnation, Weight: weight}
	res, err := n.propose(ctx, state.Entry(w.AppendItem(nil)))
	if err == nil && res == 0 {
		return ErrFenced
	}
	return err
}

// AppointPrimary makes an ONLINE member the primary if the epoch is still the one
// given, and returns the epoch that is current afterwards. ErrNotAppointed means
// that another member is the primary then. Failover needs no appointment: the
// state machine elects.
func (n *Node) AppointPrimary(ctx context.Context, member, epoch uint64) (uint64, error) {
	p := state.Primary{Member: member, Epoch: epoch}
	done, err := n.propose(ctx, state.Entry(p.AppendItem(nil)))
	if err != nil {
		return 0, err
	}
	v := n.View()
	// Proposed twice it is refused the second time, though it is what is wanted.
	if done == 0 && v.Primary != member {
		return v.Epoch, fmt.Errorf("%w: member %d, in epoch %d", ErrNotAppointed, member, epoch)
	}
	return v.Epoch, nil
}

// Watermark is what a member reports of itself. All three never fall within an
// incarnation.
type Watermark struct {
	// Applied: group transactions 1..Applied are visible on this member's
	// mysqld.
	Applied uint64
	// Stable: they are on its stable storage.
	Stable uint64
	// Low is capture's own: every snapshot that it hands over from now on has
	// 1..Low. 0 means unknown; then the last one submitted is taken, and Applied
	// while none was.
	Low uint64
}

// Watermark reports what this member has applied. What is collected on the
// strength of it never outruns proposals that are still on their way.
func (n *Node) Watermark(ctx context.Context, w Watermark) error {
	p := n.proposer.Load()
	if p == nil {
		return ErrNotJoined
	}
	item := state.Watermark{Member: n.cfg.ReplicaID, Incarnation: p.incarnation,
		Applied: w.Applied, Stable: w.Stable, Low: p.low(w)}
	res, err := n.propose(ctx, state.Entry(item.AppendItem(nil)))
	if err == nil && res == 0 {
		return ErrFenced
	}
	return err
}

// ForceVerdict decides the xids: those of which the log has a verdict keep it,
// the others abort. It returns the verdicts in the same order. Where it is known
// who may propose the transactions, ForceVerdictOf is to be preferred: these
// aborts have to be kept until every present life of every member has ended, and
// room for them is limited (ErrTooManyAborts).
func (n *Node) ForceVerdict(ctx context.Context, xids []string) ([]state.Outcome, error) {
	return n.ForceVerdictOf(ctx, 0, xids)
}

// ForceVerdictOf is ForceVerdict for transactions that only the incarnation given
// may propose; 0 means that it is not known.
func (n *Node) ForceVerdictOf(ctx context.Context, incarnation uint64, xids []string) ([]state.Outcome, error) {
	if len(xids) == 0 {
		return nil, nil
	}
	a := state.Abort{XIDs: xids, Incarnation: incarnation}
	decided, err := n.propose(ctx, state.Entry(a.AppendItem(nil)))
	if err != nil {
		return nil, err
	}
	out := make([]state.Outcome, len(xids))
	for i, id := range xids {
		o, ok := n.Verdict(id)
		switch {
		case ok:
			out[i] = o
		case decided < uint64(len(xids)):
			return nil, fmt.Errorf("%w: no verdict on %q", ErrTooManyAborts, id)
		default:
			return nil, fmt.Errorf("consensus: no verdict on %q after it was forced", id)
		}
	}
	return out, nil
}
