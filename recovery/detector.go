package recovery

import (
	"context"
	"errors"
	"sync"
	"time"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/peer"
)

// suspectSilence is how long a member may be silent before it is suspected: six
// heartbeats of the members' channel. A variable for the tests only.
var suspectSilence = 1500 * time.Millisecond

const (
	// detectEvery is the pause between two looks at the members.
	detectEvery = 100 * time.Millisecond
	// stalledAfter: a look that comes so much too late shows that this process
	// itself stood still, so it cannot have heard anybody.
	stalledAfter = 500 * time.Millisecond
)

// evidence is what this process knows of whether another member's process lives.
type evidence struct {
	silent time.Duration
	// refused: its channel was up, and now nobody listens there.
	refused bool
}

// suspect says that nothing should be left to the member for now. A suspicion
// ends with the next word from it.
func (e evidence) suspect() bool { return e.refused || e.silent >= suspectSilence }

// gone says that the member is no longer waited for. A process that has ended does
// not come back as the same incarnation, so there is nothing to wait for.
func (e evidence) gone(expel time.Duration) bool {
	return e.refused || e.silent >= suspectSilence+expel
}

// inGroup says that a member takes part.
func inGroup(m *state.Member) bool {
	return m.State == state.StateOnline || m.State == state.StateRecovering
}

// unreachable returns the incarnations of the members that self suspects, by id.
func unreachable(v *state.View, self uint64, of func(*state.Member) (evidence, bool)) map[uint64]uint64 {
	out := make(map[uint64]uint64)
	for i := range v.Members {
		m := &v.Members[i]
		if m.ID == self || !inGroup(m) {
			continue
		}
		if e, ok := of(m); ok && e.suspect() {
			out[m.ID] = m.Incarnation
		}
	}
	return out
}

// plan is what should be done about the members that are not heard.
type plan struct {
	// appoint is who should be the primary instead of one that is suspected, in
	// the epoch after this one; 0 for nobody.
	appoint, epoch uint64
	// expel are to be reported OFFLINE, after that.
	expel []state.Member
}

// decide returns what the log's leader should do, nothing for any other member:
// it has the majority with it, and one report is enough. of gives the evidence
// about a member's present incarnation, false if there is none.
//
// A suspected primary is replaced at once, since writes wait for it. That is all
// that a suspicion costs anybody before expel has passed.
func decide(v *state.View, leader, self uint64, expel time.Duration, of func(*state.Member) (evidence, bool)) (p plan) {
	if leader != self {
		return p
	}
	var heard, left []state.Member  // who could be elected, and who will be
	suspected, gone := false, false // the primary is
	for i := range v.Members {
		m := &v.Members[i]
		e, ok := evidence{}, false
		if m.ID != self && inGroup(m) {
			e, ok = of(m)
		}
		switch {
		case !ok || !e.suspect():
			heard, left = append(heard, *m), append(left, *m)
		case e.gone(expel):
			p.expel = append(p.expel, *m)
		default:
			left = append(left, *m)
		}
		if ok && m.ID == v.Primary {
			suspected, gone = e.suspect(), e.gone(expel)
		}
	}
	best, ok := state.Elect(heard)
	if !suspected || !ok {
		return p
	}
	// The report of a primary's end elects by itself, but knows of no suspicion.
	if elected, _ := state.Elect(left); !gone || elected != best {
		p.appoint, p.epoch = best, v.Epoch
	}
	return p
}

// weigh turns contact with a member into evidence about m, of which nothing is
// known before since. Contact with another process than the one that m's
// incarnation runs in says nothing about m.
func weigh(c peer.Contact, m *state.Member, now, since time.Time) (evidence, bool) {
	if c.Target != targetOf(m) {
		return evidence{}, false
	}
	if c.Heard.After(since) {
		since = c.Heard
	}
	return evidence{silent: now.Sub(since), refused: c.Refused}, true
}

// attention is since when this process can tell silence.
type attention struct {
	// awake: it has not stood still since then.
	awake time.Time
	// lives are the members' incarnations and when this process learnt of them:
	// who joins is alive.
	lives map[uint64]lifeSeen
}

type lifeSeen struct {
	incarnation uint64
	at          time.Time
}

// since returns from when on silence of m's incarnation counts.
func (a *attention) since(m *state.Member, now time.Time) time.Time {
	l := a.lives[m.ID]
	if l.incarnation != m.Incarnation {
		l = lifeSeen{m.Incarnation, now}
		a.lives[m.ID] = l
	}
	if a.awake.After(l.at) {
		return a.awake
	}
	return l.at
}

// waited is told how long something took that should have taken no longer than
// due.
func (a *attention) waited(took, due time.Duration, now time.Time) {
	if took > due+stalledAfter {
		a.awake = now
	}
}

func targetOf(m *state.Member) peer.Target {
	return peer.Target{MemberID: m.Info.UUID, Addr: m.Info.PeerAddress, Token: m.Info.PeerToken}
}

// detect judges the others by what is heard of them. A mysqld that dies is reported
// by its own member, see life.report. Every member measures all the time, so that
// one which becomes the leader knows at once.
//
// It may be wrong, and harms nobody then: a primary that finds another epoch begun,
// and a member that finds itself OFFLINE, joins anew.
func (m *Member) detect(ctx context.Context) error {
	a := &attention{awake: time.Now(), lives: make(map[uint64]lifeSeen)}
	var acting sync.WaitGroup
	defer acting.Wait()
	free := make(chan struct{}, 1) // one plan at a time is carried out
	free <- struct{}{}
	for {
		before := time.Now()
		if pause(ctx, detectEvery) != nil {
			return nil
		}
		now := time.Now()
		a.waited(now.Sub(before), detectEvery, now)
		node := m.opt.Node
		v := node.View()
		for i := range v.Members {
			a.since(&v.Members[i], now)
		}
		of := func(x *state.Member) (evidence, bool) {
			sub := m.subs.get(x.ID)
			if sub == nil {
				return evidence{}, false
			}
			c, ok := sub.Contact()
			if !ok {
				return evidence{}, false
			}
			return weigh(c, x, now, a.since(x, now))
		}
		m.suspected(unreachable(v, m.opt.ReplicaID, of))
		p := decide(v, node.LeaderID(), m.opt.ReplicaID, m.Policy().ExpelTimeout, of)
		if p.appoint == 0 && len(p.expel) == 0 {
			continue
		}
		select {
		case <-free:
			// Not here: while the log takes no entry, the others are listened to.
			acting.Go(func() {
				m.act(ctx, p)
				free <- struct{}{}
			})
		default:
		}
	}
}

// suspected notes who is suspected.
func (m *Member) suspected(now map[uint64]uint64) {
	before := m.suspects.Swap(&now)
	for id := range now {
		if before == nil || (*before)[id] != now[id] {
			m.log.Warn().Uint64("member", id).Msg("this member does not answer: it is UNREACHABLE")
		}
	}
	if before == nil {
		return
	}
	for id := range *before {
		if _, still := now[id]; !still {
			m.log.Info().Uint64("member", id).Msg("this member is not UNREACHABLE any more")
		}
	}
}

// Unreachable says whether this member suspects another one, as it is in a view:
// it has not been heard for a while.
func (m *Member) Unreachable(x state.Member) bool {
	s := m.suspects.Load()
	return s != nil && x.Incarnation != 0 && (*s)[x.ID] == x.Incarnation && inGroup(&x)
}

// act carries out a plan. What fails is tried again, if the evidence still holds.
func (m *Member) act(ctx context.Context, p plan) {
	if p.appoint != 0 {
		m.log.Warn().Uint64("to", p.appoint).Msg("the primary does not answer: appointing another one")
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := m.opt.Node.AppointPrimary(ctx, p.appoint, p.epoch)
		cancel()
		if err != nil && !errors.Is(err, consensus.ErrNotAppointed) {
			m.log.Warn().Err(err).Uint64("to", p.appoint).Msg("could not appoint it")
		}
	}
	for _, s := range p.expel {
		m.expel(ctx, s)
	}
}

// expel reports a member OFFLINE.
func (m *Member) expel(ctx context.Context, s state.Member) {
	m.log.Warn().Uint64("member", s.ID).Str("uuid", s.Info.UUID).Uint64("incarnation", s.Incarnation).
		Msg("this member does not answer: reporting it OFFLINE")
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := m.opt.Node.SetMemberState(ctx, s.ID, s.Incarnation, state.StateOffline)
	if err != nil && !errors.Is(err, consensus.ErrFenced) {
		m.log.Warn().Err(err).Uint64("member", s.ID).Msg("could not report it OFFLINE")
	}
}
