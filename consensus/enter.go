package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"cohort/consensus/state"
)

// Entrance is what a member shows to be let into the group.
type Entrance struct {
	// Bootstrap founds the group if nobody has.
	Bootstrap bool
	// UUID and ServerID are those of its mysqld.
	UUID     string
	ServerID uint64
	// Executed is the highest number of a group transaction that its mysqld has
	// executed.
	Executed uint64
	// Settings are those that all members must share, one name=value a line.
	Settings string
	// Check is told, before anything changes, what the group began with and
	// whether it has seen this member before; its error keeps the member out. May
	// be nil.
	Check func(ctx context.Context, base string, known bool) error
}

// Pauses of Enter between two rounds of questions.
const (
	enterFirst = 50 * time.Millisecond
	enterLast  = time.Second
	// enterPatience is how long Enter looks for somebody who lets this member in.
	enterPatience = 15 * time.Second
)

// Enter sees to it that this member has a place in the log. One that has returns
// at once: whether there is a majority is another question. One that has none
// founds the group, or asks its seeds and the members it knows until one lets it
// in, and returns when it has everything that was ordered before.
//
// Errors: ErrAddress, and those of a refusal (ErrOtherGroup, ErrOtherSettings,
// ErrOtherHistory, ErrDuplicateUUID, ErrDuplicateServerID, ErrDuplicateAddress,
// ErrGroupFull, or Check's), which trying again does not help; ErrNoSeed when nobody
// could be asked, or nobody was able to answer.
func (n *Node) Enter(ctx context.Context, e Entrance) error {
	if n.static() {
		return nil
	}
	n.executed.Store(e.Executed)
	if err := n.awaitRetirement(ctx); err != nil {
		return err
	}
	if err := n.awaitFence(ctx); err != nil {
		return err
	}
	if h := n.host.Load(); h != nil {
		// Once more, with patience: whoever was asked at the start may have been slow.
		if n.checked.Swap(true) || !n.removed(ctx, askRemoved, identity{Replica: h.replica, Generation: h.generation}) {
			return nil
		}
		if err := n.retire(h); err != nil {
			return err
		}
	}
	if c := n.closed.Load(); c != nil {
		if !n.removed(ctx, askRemoved, c.id) {
			if err := n.strayed.Load(); err != nil {
				return fmt.Errorf("consensus: %w", *err)
			}
			return fmt.Errorf("%w: a membership was forced upon the group without this member, and none of its members answers now", ErrNoSeed)
		}
		if err := n.retireClosed(c); err != nil {
			return err
		}
	}
	if err := n.tryAddress(); err != nil {
		return err
	}
	nonce := nonZero()
	began, pause := time.Now(), enterFirst
	for {
		id, keep, err := n.seek(ctx, e, nonce)
		switch {
		case err == nil && id.Founder && n.View().Founded:
			// It had a group before, which must be found.
			err = fmt.Errorf("%w: nobody answers, and this member cannot found the group a second time", ErrNoSeed)
		case err == nil:
			if err := n.adopt(id, keep); err != nil {
				return err
			}
			n.log.Info().Uint64("replica", id.Replica).Bool("founder", id.Founder).Msg("this member has a place in the group's log")
			_, err := n.ReadIndex(ctx)
			return err
		}
		if !temporary(err) || time.Since(began) > enterPatience {
			return fmt.Errorf("consensus: %w", err)
		}
		t := time.NewTimer(pause)
		pause = min(2*pause, enterLast)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("consensus: %w (%w)", err, context.Cause(ctx))
		case <-n.ctx.Done():
			t.Stop()
			return ErrClosed
		}
	}
}

// tryAddress finds out, before anybody is bothered, whether this member can listen.
func (n *Node) tryAddress() error {
	n.hostMu.Lock() // an earlier replica may be about to end
	defer n.hostMu.Unlock()
	l, err := net.Listen("tcp", n.cfg.ListenAddress)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAddress, err)
	}
	return l.Close()
}

// temporary reports whether the same request may succeed later.
func temporary(err error) bool { return errors.Is(err, ErrNoSeed) || errors.Is(err, ErrPresent) }

// seek asks everybody once. A founder is told to be one when nobody knows of a
// group.
func (n *Node) seek(ctx context.Context, e Entrance, nonce uint64) (id identity, keep bool, err error) {
	q := question{Op: askInfo, Settings: e.Settings, UUID: e.UUID,
		ServerID: e.ServerID, Nonce: nonce, Executed: e.Executed}
	if v := n.View(); v.Founded {
		q.Lineage, q.LastN, q.Index = v.Lineage, n.LastN(), n.Applied()
		q.Checksum, _ = n.ChecksumAt(q.LastN)
	}
	var causes []error
	for _, addr := range n.acquaintances() {
		a, err := n.ask(ctx, addr, q)
		if err != nil {
			causes = append(causes, err)
			continue
		}
		if err := a.err(); err != nil {
			if definite(err) {
				return identity{}, false, err
			}
			causes = append(causes, err)
			continue
		}
		if e.Check != nil {
			if err := e.Check(ctx, a.Base, a.Known); err != nil {
				return identity{}, false, err
			}
		}
		q.Op = askAdmit
		a, err = n.ask(ctx, addr, q)
		if err == nil {
			err = a.err()
		}
		if err == nil {
			return identity{Replica: a.Replica, Generation: a.Generation}, a.Keep, nil
		}
		if definite(err) || errors.Is(err, ErrPresent) {
			return identity{}, false, err
		}
		causes = append(causes, err)
		q.Op = askInfo
	}
	// Not while somebody has a group and cannot speak for it now.
	if e.Bootstrap && !slices.ContainsFunc(causes, func(err error) bool { return errors.Is(err, ErrNoMajority) }) {
		return identity{Replica: 1, Founder: true}, true, nil
	}
	if len(causes) == 0 {
		return identity{}, false, fmt.Errorf("%w: group_replication_group_seeds names no other member; give it some, or set group_replication_bootstrap_group=ON on the one that is to found the group", ErrNoSeed)
	}
	return identity{}, false, fmt.Errorf("%w: %w", ErrNoSeed, errors.Join(causes...))
}

// definite reports whether an answer speaks for the group.
func definite(err error) bool {
	for _, e := range []error{ErrOtherGroup, ErrOtherSettings, ErrOtherHistory, ErrDuplicateUUID, ErrDuplicateServerID, ErrDuplicateAddress, ErrGroupFull} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// acquaintances are the addresses of who may be a member: the seeds, then those
// in the last view, but not this one's.
func (n *Node) acquaintances() []string {
	addrs := slices.Clone(n.cfg.Seeds)
	for _, m := range n.View().Members {
		addrs = append(addrs, m.Address)
	}
	var out []string
	for _, a := range addrs {
		if a != "" && !strings.EqualFold(a, n.cfg.LocalAddress) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// awaitFence waits while the log is closed for a membership that is being forced.
func (n *Node) awaitFence(ctx context.Context) error {
	end := time.NewTimer(enterPatience)
	defer end.Stop()
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for n.Fenced() {
		select {
		case <-t.C:
		case <-end.C:
			return fmt.Errorf("%w: set group_replication_force_members again, on this member or another that was listed", ErrForceUnfinished)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrForceUnfinished, context.Cause(ctx))
		case <-n.ctx.Done():
			return ErrClosed
		}
	}
	return nil
}

// awaitRetirement waits while the replica at work here is one that the group goes
// on without.
func (n *Node) awaitRetirement(ctx context.Context) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for n.evicted() {
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("consensus: %w: %w", ErrNotAdmitted, context.Cause(ctx))
		case <-n.ctx.Done():
			return ErrClosed
		}
	}
	return nil
}

// voteTimeout bounds how long a member that joined waits for its vote.
const voteTimeout = 10 * time.Second

// awaitVote waits until the log counts this member's vote, which its Join asked
// for: before it is ONLINE the group must be able to do without one more of the
// others. Without success it goes on, as a member whose vote the leader has still
// to count.
func (n *Node) awaitVote(ctx context.Context, h *host) {
	if n.static() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, voteTimeout)
	defer cancel()
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		m, err := h.members(ctx)
		if err == nil && m.Nodes[h.replica] != "" {
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			n.log.Warn().Err(err).Msg("the log does not count this member's vote yet")
			return
		case <-n.ctx.Done():
			return
		}
	}
}

// evicted reports whether the state says that the replica at work is not the
// member's any more.
func (n *Node) evicted() bool {
	h := n.host.Load()
	if h == nil || n.static() {
		return false
	}
	v := n.View()
	m, ok := v.Member(n.cfg.ReplicaID)
	// What was given later than all that is applied here is not known here yet.
	return ok && m.Replica != h.replica && v.LastReplica >= h.replica
}

// Removed reports whether this member has no place in the log, or is about to lose it:
// see Enter.
func (n *Node) Removed() bool { return n.host.Load() == nil || n.evicted() }

// Leave reports this member OFFLINE and has the log go on without it. Without
// others it stays in the log, so that the group can be entered again through it.
func (n *Node) Leave(ctx context.Context) error {
	p, h := n.proposer.Load(), n.host.Load()
	if p == nil || h == nil {
		return ErrNotJoined
	}
	s := state.SetState{Member: n.cfg.ReplicaID, Incarnation: p.incarnation, State: state.StateOffline}
	items := [][]byte{s.AppendItem(nil)}
	if !n.static() {
		e := state.Evict{Member: n.cfg.ReplicaID, Replica: h.replica, Incarnation: p.incarnation}
		items = append(items, e.AppendItem(nil))
	}
	res, err := n.propose(ctx, state.Entry(items...))
	if err == nil && res == 0 {
		return ErrFenced
	}
	return err
}
