package consensus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lni/dragonboat/v4"

	"cohort/consensus/state"
)

// The members of the log follow the state machine's: it says which replicas there
// are to be, the log's leader carries that out, one change at a time. So a majority
// is one of the members that the group counts, and whoever leads next goes on
// where another one stopped.

const (
	// reconcileEvery is how often the leader compares.
	reconcileEvery = 100 * time.Millisecond
	// changeTimeout bounds one change.
	changeTimeout = 3 * time.Second
	// admitPatience is how long one that was let in may take to join: it has to
	// catch up with the log first.
	admitPatience = 10 * time.Minute
)

// place is what a replica is to be.
type place struct {
	addr  string
	voter bool
}

// places returns the replicas that the log is to have. Of those that the log was
// begun with the address is not known here, and not needed: they are there.
func places(v *state.View) map[uint64]place {
	out := make(map[uint64]place)
	for _, id := range v.Unclaimed {
		out[id] = place{voter: true}
	}
	for _, m := range v.Members {
		if m.Replica != 0 {
			out[m.Replica] = place{m.Address, m.Voter}
		}
	}
	return out
}

// change is one step of the log's membership.
type change struct {
	kind    changeKind
	replica uint64
	addr    string
}

type changeKind int

const (
	noChange   changeKind = iota
	removeOne             // the replica ends
	addLearner            // it begins, without a vote
	promoteOne            // it gets its vote
	handOver              // the leader itself is to end: another one first
)

// nextChange returns the next step towards the wanted places; self is the leader's
// replica. Who goes, goes first: a dead vote costs more than one that is missing.
func nextChange(want map[uint64]place, have *dragonboat.Membership, self uint64) change {
	ids := func(m map[uint64]string) []uint64 { return slices.Sorted(maps.Keys(m)) }
	for _, id := range append(ids(have.Nodes), ids(have.NonVotings)...) {
		if _, ok := want[id]; ok || id == self {
			continue
		}
		return change{kind: removeOne, replica: id}
	}
	for _, id := range slices.Sorted(maps.Keys(want)) {
		_, votes := have.Nodes[id]
		_, learns := have.NonVotings[id]
		_, gone := have.Removed[id]
		switch p := want[id]; {
		case gone || votes:
		case learns && p.voter:
			return change{kind: promoteOne, replica: id, addr: have.NonVotings[id]}
		case !learns && p.addr != "":
			return change{kind: addLearner, replica: id, addr: p.addr}
		}
	}
	if _, ok := want[self]; !ok {
		for _, id := range ids(have.Nodes) {
			if p, ok := want[id]; ok && p.voter {
				return change{kind: handOver, replica: id}
			}
		}
	}
	return change{}
}

// reconciler is what the leader remembers.
type reconciler struct {
	// since is from when on this member, as the leader, has seen others out.
	since map[state.Evict]time.Time
	// settled is what was found to need no change.
	settled string
}

func (n *Node) runReconcile(ctx context.Context) {
	r := &reconciler{since: make(map[state.Evict]time.Time)}
	t := time.NewTicker(reconcileEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		h := n.host.Load()
		leader, term, _ := n.leader.get()
		if h == nil || leader != h.replica || !n.View().Founded {
			clear(r.since)
			r.settled = ""
			continue
		}
		n.evictLate(ctx, r, time.Now())
		if err := n.reconcile(ctx, r, h, term); err != nil && ctx.Err() == nil {
			n.log.Debug().Err(err).Msg("the log's members were not changed now")
		}
	}
}

// reconcile makes one change, if one is needed.
func (n *Node) reconcile(ctx context.Context, r *reconciler, h *host, term uint64) error {
	want := places(n.View())
	key := fmt.Sprint(h.replica, term, want)
	if r.settled == key {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	have, err := h.members(ctx)
	if err != nil {
		return err
	}
	c := nextChange(want, have, h.replica)
	switch c.kind {
	case removeOne:
		err = h.nh.SyncRequestDeleteReplica(ctx, shardID, c.replica, have.ConfigChangeID)
	case addLearner:
		err = h.nh.SyncRequestAddNonVoting(ctx, shardID, c.replica, c.addr, have.ConfigChangeID)
	case promoteOne:
		err = h.nh.SyncRequestAddReplica(ctx, shardID, c.replica, c.addr, have.ConfigChangeID)
	case handOver:
		return h.nh.RequestLeaderTransfer(shardID, c.replica)
	default:
		r.settled = key
		return nil
	}
	if err == nil {
		n.log.Info().Uint64("replica", c.replica).Str("change", [...]string{"", "removed", "added", "given its vote", ""}[c.kind]).
			Msg("the members of the log changed")
	}
	return err
}

// evictLate has members taken out that have been OFFLINE or in ERROR for longer
// than the expel timeout, as this leader sees it.
func (n *Node) evictLate(ctx context.Context, r *reconciler, now time.Time) {
	expel := time.Duration(n.expel.Load())
	if expel <= 0 {
		return
	}
	seen := make(map[state.Evict]bool)
	for _, m := range n.View().Members {
		if m.Replica == 0 || m.State != state.StateOffline && m.State != state.StateError {
			continue
		}
		e := state.Evict{Member: m.ID, Replica: m.Replica, Incarnation: m.Incarnation}
		seen[e] = true
		if _, ok := r.since[e]; !ok {
			r.since[e] = now
		}
		limit := expel
		if !m.Voter {
			limit = max(limit, admitPatience)
		}
		if now.Sub(r.since[e]) < limit {
			continue
		}
		// Refused for the last one, it is asked for again only after as long.
		r.since[e] = now
		_ = n.Evict(ctx, m)
	}
	maps.DeleteFunc(r.since, func(e state.Evict, _ time.Time) bool { return !seen[e] })
}

// SetExpelTimeout changes Config.ExpelTimeout, unless that was 0. What has passed
// of it counts.
func (n *Node) SetExpelTimeout(d time.Duration) {
	if n.cfg.ExpelTimeout > 0 {
		n.expel.Store(int64(max(d, time.Nanosecond)))
	}
}

// Evict has the log go on without a member that is OFFLINE or in ERROR in the
// incarnation and with the replica that m has; one that is back, or the last vote,
// stays. Nothing happens where Config.ExpelTimeout is 0.
func (n *Node) Evict(ctx context.Context, m state.Member) error {
	if n.cfg.ExpelTimeout <= 0 || m.Replica == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	e := state.Evict{Member: m.ID, Replica: m.Replica, Incarnation: m.Incarnation}
	res, err := n.propose(ctx, state.Entry(e.AppendItem(nil)))
	if err != nil {
		return err
	}
	if res == 1 {
		n.log.Warn().Uint64("member", m.ID).Str("uuid", m.Info.UUID).
			Msg("this member was away for longer than group_replication_member_expel_timeout: the group goes on without it")
	}
	return nil
}

const (
	// doubtAfter is how long a replica may be without a leader before its member
	// asks whether it was removed: whoever was removed while it was away is never
	// told.
	doubtAfter = 2 * time.Second
	// doubtEvery is the pause between two such questions.
	doubtEvery = time.Second
	// watchEvery is how often the member looks.
	watchEvery = 100 * time.Millisecond
)

// runRemovalWatch retires the replica once the log is proven to go on without it.
func (n *Node) runRemovalWatch(ctx context.Context) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	var led, asked time.Time
	var of *host
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		h, now := n.host.Load(), time.Now()
		if h == nil {
			continue
		}
		if leader, _, _ := n.leader.get(); leader != 0 || h != of {
			led, of = now, h
		}
		if !n.evicted() && (now.Sub(led) < doubtAfter || now.Sub(asked) < doubtEvery) {
			continue
		}
		asked = now
		if !h.ended() && !n.removed(ctx, askRemoved, identity{Replica: h.replica, Generation: h.generation}) {
			continue
		}
		if err := n.retire(h); err != nil {
			n.machine.fail(err)
			return
		}
	}
}

// ended reports whether the replica applied its own end.
func (h *host) ended() bool {
	_, err := h.nh.GetNodeUser(shardID)
	return errors.Is(err, dragonboat.ErrShardNotFound)
}

// removed asks the others whether the log has been proven to go on without a
// replica: one with a majority says so, or one of a membership that was forced
// without it. That the state machine was told to go on without it is not enough:
// until the log's members are changed, their majority may need this one.
//
// One whose data are not a beginning of the forced membership's is not removed: they
// may be all that is left of what the others lost, so that is for somebody to decide
// (see n.strayed).
func (n *Node) removed(ctx context.Context, op string, id identity) bool {
	v := n.View()
	q := question{Op: op, Replica: id.Replica, Generation: id.Generation,
		Lineage: v.Lineage, LastN: n.LastN(), Index: n.Applied(), Executed: n.executed.Load()}
	q.Checksum, _ = n.ChecksumAt(q.LastN)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	addrs := n.acquaintances()
	answers := make(chan answer, len(addrs))
	for _, addr := range addrs {
		go func() { // ends with ctx, or its question
			a, err := n.ask(ctx, addr, q)
			if err != nil {
				a = answer{}
			}
			answers <- a
		}()
	}
	for range addrs {
		var a answer
		select {
		case a = <-answers:
		case <-ctx.Done():
			return false
		}
		switch err := a.err(); {
		case !a.Removed:
		case err == nil:
			return true
		case errors.Is(err, ErrOtherHistory):
			if n.strayed.Swap(&err) == nil {
				n.log.Error().Err(err).Msg("a membership was forced upon the group without this member, whose data are not a beginning of the group's: it does not rejoin; provision it anew, or stop the others and force a membership here if these are the data to keep")
			}
			return false
		}
	}
	return false
}
