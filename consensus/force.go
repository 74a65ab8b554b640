package consensus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/raftpb"

	"cohort/consensus/state"
	"cohort/internal/pause"
)

// A membership is forced upon a group that has lost its majority for good
// (group_replication_force_members). What Raft has no way for is done to the
// listed members' logs while their replicas are stopped:
//
//  1. Each agrees, keeps that in mind (fence) and stops its replica. A member
//     with a majority does not agree.
//  2. Of the logs that have all that any of them knows to be committed, the one with
//     the highest last term and index counts, as in an election. So no entry
//     is lost that some listed member has and that may have been acknowledged.
//  3. The others are given what they lack of it, and all of them the same ending, in
//     a term that nobody used: the other replicas removed, a new lineage begun.
//  4. When all have that on disk, it is committed on each. So nothing is said to
//     be committed that a listed member could lack, and no reply to a client
//     depends on fewer members than the group now has.
//  5. The replicas run again, under the new generation, which the transport lets
//     nobody of another one talk to.
//
// A crash before 4 leaves members whose replicas do not run: forcing again, on any
// of them, goes on from there. Whoever is at 3 with its log and finds that another
// one is at 5 follows (runFence).

// ErrForce is wrapped by Force's errors; nothing was changed if the error does not
// say so.
var ErrForce = errors.New("consensus: the membership was not forced")

// ErrForceUnfinished is what Enter returns while this member is fenced.
var ErrForceUnfinished = errors.New("consensus: a membership was being forced upon the group and is not complete")

// hostInfoOption leaves the logs of the node host out.
var hostInfoOption = dragonboat.NodeHostInfoOption{SkipLogInfo: true}

const (
	// forceTimeout bounds Force.
	forceTimeout = 2 * time.Minute
	// forcePause is the pause before a step is tried again.
	forcePause = 50 * time.Millisecond
	// forcedLook is how long a member that starts asks whether a membership was
	// forced without it.
	forcedLook = 2 * time.Second
	// stepPatience is how long a step is tried at one member.
	stepPatience = 20 * time.Second
)

// Force makes the members at the addresses the group, this one among them. They
// must see no majority, and all of them agree. It returns when they have a
// majority among themselves and the first view of the new group.
func (n *Node) Force(ctx context.Context, addrs []string) error {
	if !n.forcing.TryLock() {
		return fmt.Errorf("%w: another group_replication_force_members is being carried out", ErrForce)
	}
	defer n.forcing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, forceTimeout)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	f, err := n.plan(addrs)
	if err == nil {
		err = f.run(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForce, err)
	}
	n.log.Warn().Strs("members", addrs).Uint64("lineage", f.generation).Msg("a membership was forced: these members are the group")
	return nil
}

// forced is one attempt, as its coordinator has it.
type forced struct {
	n          *Node
	generation uint64
	base       uint64
	founding   uint64
	members    []forcedPlace
	// touched: some log may hold entries of this attempt. wrote are earlier ones of
	// which some does.
	touched bool
	wrote   []uint64
	// promised are the members that are fenced for it.
	promised []bool
}

// plan finds out who is meant.
func (n *Node) plan(addrs []string) (*forced, error) {
	v := n.View()
	id, ok, err := loadIdentity(n.cfg.Dir)
	switch {
	case err != nil:
		return nil, err
	case n.static():
		return nil, errors.New("the members of this log were given in its configuration")
	case !ok || id.Replica == 0 || !v.Founded:
		return nil, ErrNotAdmitted
	}
	f := &forced{n: n, generation: nonZero(), base: id.Generation, founding: v.Founding}
	self := false
	for _, a := range addrs {
		a = strings.TrimSpace(a)
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fmt.Errorf("%q is not host:port: %w", a, err)
		}
		i := slices.IndexFunc(v.Members, func(m state.Member) bool { return m.Replica != 0 && sameAddress(m.Address, a) })
		if i < 0 {
			return nil, fmt.Errorf("%s is not the group_replication_local_address of a member of the group; the members are at %s", a, memberAddresses(v))
		}
		m := &v.Members[i]
		if slices.ContainsFunc(f.members, func(p forcedPlace) bool { return p.Member == m.ID }) {
			return nil, fmt.Errorf("%s is listed twice", a)
		}
		self = self || m.ID == n.cfg.ReplicaID
		f.members = append(f.members, forcedPlace{Member: m.ID, Replica: m.Replica, Address: m.Address})
	}
	f.promised = make([]bool, len(f.members))
	if !self {
		return nil, fmt.Errorf("this member (%s) is not listed; set the variable on a member that is", n.cfg.LocalAddress)
	}
	return f, nil
}

func memberAddresses(v *state.View) string {
	var out []string
	for _, m := range v.Members {
		if m.Replica != 0 {
			out = append(out, m.Address)
		}
	}
	return strings.Join(out, ", ")
}

func (f *forced) run(ctx context.Context) error {
	if err := f.agree(ctx); err != nil {
		f.cancel()
		return err
	}
	if err := f.surgery(ctx); err != nil {
		f.cancel()
		if f.touched || len(f.wrote) > 0 {
			return fmt.Errorf("%w; the listed members' logs are closed until it is done: set the variable again", err)
		}
		return err
	}
	return f.awaitGroup(ctx)
}

// agree has all members promise, after all said that they could.
func (f *forced) agree(ctx context.Context) error {
	replies, err := f.all(ctx, forceRequest{Step: stepCheck})
	if err != nil {
		return err
	}
	for i, a := range replies {
		for k, b := range replies[:i] {
			if strangers(a.Wrote, b.Wrote) {
				return fmt.Errorf("%s and %s took part in attempts to force different memberships; list those of one only", f.members[i].Address, f.members[k].Address)
			}
		}
		f.wrote = append(f.wrote, a.Wrote...)
	}
	slices.Sort(f.wrote)
	f.wrote = slices.Compact(f.wrote)
	_, err = f.all(ctx, forceRequest{Step: stepClose})
	return err
}

// strangers reports whether two logs hold entries of attempts that knew nothing of
// each other: then what one has in place of the other's may be committed somewhere.
func strangers(a, b []uint64) bool {
	return len(a) > 0 && len(b) > 0 && !slices.Contains(a, b[len(b)-1]) && !slices.Contains(b, a[len(a)-1])
}

// surgery makes the logs equal and committed.
func (f *forced) surgery(ctx context.Context) error {
	ends, err := f.all(ctx, forceRequest{Step: stepEnd})
	if err != nil {
		return err
	}
	best, err := best(ends, func(i int, index uint64) (uint64, error) {
		a, err := f.one(ctx, i, forceRequest{Step: stepTerm, From: index})
		return a.Term, err
	})
	if err != nil {
		return err
	}
	item := state.Force{Lineage: f.generation}
	var term, given uint64
	for i, a := range ends {
		term, given = max(term, a.End.Term, a.End.LastTerm), max(given, a.Given)
		// What any of them applied was committed.
		item.SureN, item.SureIndex = max(item.SureN, a.LastN), max(item.SureIndex, a.Index)
		item.Members = append(item.Members, state.Place{Member: f.members[i].Member, Replica: f.members[i].Replica})
	}
	// At random, so that two attempts which know nothing of each other do not give
	// one term to two different endings.
	term += 1 + rand.Uint64N(1<<20)
	top := ends[best].End
	named, err := f.tailChanges(ctx, best, ends[best].Index, top.Last)
	if err != nil {
		return err
	}
	es, err := ending(top.Last, term, f.others(given, named), item)
	if err != nil {
		return err
	}
	// From here on a log may hold what only this attempt can make sense of.
	f.touched = true
	f.n.log.Warn().Str("from", f.members[best].Address).Uint64("last", top.Last).Uint64("last_term", top.LastTerm).
		Msg("forcing a membership: this member's log is the one that counts")
	for i := range f.members {
		if err := f.bring(ctx, i, ends[i].End, best, top, term, es); err != nil {
			return fmt.Errorf("%s: %w", f.members[i].Address, err)
		}
	}
	_, err = f.all(ctx, forceRequest{Step: stepFinish})
	return err
}

// best returns whose log counts: of those that hold the last entry that any knows to
// be committed, the one with the highest last term, then index. The rest of an
// election's rule is not enough here: a leader of a later term, which the others had
// not heard of, may have an entry in the place of one that was committed without it.
// term returns that of an entry in a log, 0 for one that is not there.
func best(ends []forceReply, term func(i int, index uint64) (uint64, error)) (int, error) {
	sure := 0
	for i, a := range ends {
		if a.End.Commit > ends[sure].End.Commit {
			sure = i
		}
	}
	commit := ends[sure].End.Commit
	want, err := term(sure, commit)
	if err != nil {
		return 0, err
	}
	best := sure
	for i, a := range ends {
		higher := a.End.LastTerm > ends[best].End.LastTerm ||
			a.End.LastTerm == ends[best].End.LastTerm && a.End.Last > ends[best].End.Last
		if i == sure || !higher || a.End.Last < commit {
			continue
		}
		has, err := term(i, commit)
		if err != nil {
			return 0, err
		}
		if has == want {
			best = i
		}
	}
	return best, nil
}

// tailChanges returns the replicas that changes of the log's members name which
// the best log holds and has not applied. A listed one that an earlier attempt
// removed there cannot come back under its id.
func (f *forced) tailChanges(ctx context.Context, best int, applied, last uint64) (named []uint64, err error) {
	for from := applied + 1; from <= last; {
		a, err := f.one(ctx, best, forceRequest{Step: stepRead, From: from, Upto: last})
		if err != nil {
			return nil, err
		}
		es, err := unpackEntries(a.Entries)
		if err != nil || len(es) == 0 {
			return nil, fmt.Errorf("%w: no entries from %d on: %w", ErrCorrupt, from, err)
		}
		ids, removed, err := changes(es)
		if err != nil {
			return nil, err
		}
		for _, p := range f.members {
			if slices.Contains(removed, p.Replica) {
				return nil, fmt.Errorf("%s was left out by an earlier attempt, of which %s has the entries: force it without, and it will join by itself", p.Address, f.members[best].Address)
			}
		}
		named = append(named, ids...)
		from += uint64(len(es))
	}
	return named, nil
}

// others are all replicas that there may be in the log beside the listed ones.
func (f *forced) others(given uint64, named []uint64) []uint64 {
	ids := named
	for id := uint64(1); id <= given; id++ {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id uint64) bool {
		return slices.ContainsFunc(f.members, func(p forcedPlace) bool { return p.Replica == id })
	})
}

// bring has member i's log end as the best one does, and with the ending.
func (f *forced) bring(ctx context.Context, i int, end logEnd, best int, top logEnd, term uint64, es []raftpb.Entry) error {
	at, prev := top.Last, top.LastTerm // the last entry that i has of the best log
	if i != best {
		at, prev = end.Last, end.LastTerm
		has, err := f.one(ctx, best, forceRequest{Step: stepTerm, From: at})
		if err != nil {
			return err
		}
		if at > top.Last || has.Term != prev {
			// What it has beyond what it knows to be committed may differ.
			at = end.Commit
			if has, err = f.one(ctx, i, forceRequest{Step: stepTerm, From: at}); err != nil {
				return err
			}
			prev = has.Term
		}
	}
	for at < top.Last {
		a, err := f.one(ctx, best, forceRequest{Step: stepRead, From: at + 1, Upto: top.Last})
		if err != nil {
			return fmt.Errorf("it lacks more than %s has kept of the log; force the membership without it, and it will join by itself: %w", f.members[best].Address, err)
		}
		part, err := unpackEntries(a.Entries)
		if err != nil || len(part) == 0 {
			return fmt.Errorf("%w: no entries after %d: %w", ErrCorrupt, at, err)
		}
		if _, err := f.one(ctx, i, forceRequest{Step: stepAppend, Entries: a.Entries, PrevTerm: prev, Term: term, Wrote: f.attempts()}); err != nil {
			return err
		}
		at, prev = part[len(part)-1].Index, part[len(part)-1].Term
	}
	packed, err := packEntries(es)
	if err != nil {
		return err
	}
	_, err = f.one(ctx, i, forceRequest{Step: stepAppend, Entries: packed, PrevTerm: prev, Term: term, Ready: true, Wrote: f.attempts()})
	return err
}

// attempts are those of which a log may hold entries that this one writes to.
func (f *forced) attempts() []uint64 {
	return append(slices.DeleteFunc(slices.Clone(f.wrote), func(g uint64) bool { return g == f.generation }), f.generation)
}

// one makes a step at member i, and again while it is not ready or cannot be
// reached: its log may be about to close or to open. Every step may be repeated.
func (f *forced) one(ctx context.Context, i int, q forceRequest) (forceReply, error) {
	p := f.members[i]
	q.Generation, q.Base, q.Founding, q.Members = f.generation, f.base, f.founding, f.members
	q.Member, q.Replica = p.Member, p.Replica
	for end := time.Now().Add(stepPatience); ; {
		var a forceReply
		var err error
		if fault := f.n.cfg.forceFault; fault != nil {
			if err := fault(q.Step, p.Member); err != nil {
				return a, err
			}
		}
		if p.Member == f.n.cfg.ReplicaID {
			a = f.n.step(ctx, &q)
		} else {
			a, err = f.n.call(ctx, p.Address, &q)
		}
		switch {
		case err == nil && a.No != "":
			return a, fmt.Errorf("%s does not agree: %s", p.Address, a.No)
		case err == nil && !a.Wait:
			f.promised[i] = f.promised[i] || q.Step == stepClose
			return a, nil
		case ctx.Err() != nil || time.Now().After(end) || err != nil && q.Step == stepCheck:
			return a, fmt.Errorf("%s cannot be reached; start it, or leave it out of the list: %w", p.Address, errors.Join(err, context.Cause(ctx)))
		}
		_ = pause.For(ctx, forcePause) // the next attempt fails where ctx is done
	}
}

// all makes a step at every member, at this one last: its own calls end when its
// log closes.
func (f *forced) all(ctx context.Context, q forceRequest) ([]forceReply, error) {
	replies, errs := make([]forceReply, len(f.members)), make([]error, len(f.members))
	var wg sync.WaitGroup
	self := 0
	for i, p := range f.members {
		if p.Member == f.n.cfg.ReplicaID {
			self = i
			continue
		}
		wg.Go(func() { replies[i], errs[i] = f.one(ctx, i, q) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var err error
	replies[self], err = f.one(ctx, self, q)
	return replies, err
}

// cancel has the members forget what they promised, where no log was written to.
// Nobody but this coordinator could complete the attempt, and it does not.
func (f *forced) cancel() {
	if f.touched {
		return
	}
	ctx, cancel := context.WithTimeout(f.n.ctx, callTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, promised := range f.promised {
		if !promised {
			continue
		}
		wg.Go(func() {
			if _, err := f.one(ctx, i, forceRequest{Step: stepCancel}); err != nil {
				f.n.log.Debug().Err(err).Msg("forcing a membership: not canceled")
			}
		})
	}
	wg.Wait()
}

// awaitGroup waits until this member has a majority of the new group and applied
// its first entry.
func (f *forced) awaitGroup(ctx context.Context) error {
	for {
		if _, err := f.n.ReadIndex(ctx); err != nil {
			return fmt.Errorf("the membership was forced, but its members have not found to each other yet: %w", err)
		}
		v := f.n.View()
		if _, over := v.Fork(f.generation); over || v.Lineage == f.generation {
			return nil
		}
		_ = pause.For(ctx, forcePause) // the next ReadIndex fails where ctx is done
	}
}

// fenceEvery is the pause between two looks of a fenced member.
const fenceEvery = time.Second

// runFence completes a forced membership whose coordinator is gone: one that
// another listed member has completed, or that this one is alone in. It also finds
// out when the group has gone on without this member.
func (n *Node) runFence(ctx context.Context) {
	t := time.NewTicker(fenceEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		f, c := n.fence.Load(), n.closed.Load()
		if f == nil || c == nil {
			continue
		}
		if f.Ready && n.othersDone(ctx, f) {
			n.forceMu.Lock()
			if n.fence.Load() == f && n.closed.Load() == c {
				if err := n.complete(f, c); err != nil {
					n.log.Error().Err(err).Msg("the forced membership could not be completed")
				}
			}
			n.forceMu.Unlock()
			continue
		}
		if n.forcing.TryLock() {
			gone := n.removed(ctx, askRemoved, c.id)
			n.forcing.Unlock()
			if gone {
				if err := n.retireClosed(c); err != nil {
					n.machine.fail(err)
					return
				}
			}
		}
	}
}

// othersDone reports whether all listed members are known to hold what the
// membership begins with: one of them has completed it, or there is only this one.
func (n *Node) othersDone(ctx context.Context, f *fence) bool {
	if len(f.Members) == 1 {
		return true
	}
	for _, p := range f.Members {
		if p.Member == n.cfg.ReplicaID {
			continue
		}
		q := forceRequest{Step: stepDone, Generation: f.Generation, Member: p.Member, Replica: p.Replica}
		if a, err := n.call(ctx, p.Address, &q); err == nil && a.Done {
			return true
		}
	}
	return false
}
