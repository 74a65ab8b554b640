package recovery

import (
	"context"
	"errors"
	"time"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/peer"
)

// expelSilence is how long a member may be silent before it is reported OFFLINE:
// six heartbeats of the members' channel. A variable for the tests only.
var expelSilence = 1500 * time.Millisecond

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

// suspects returns the members that should be reported OFFLINE. Only the log's
// leader reports: it has the majority with it, and one report is enough. of
// gives the evidence about a member's present incarnation, false if there is
// none.
func suspects(v *state.View, leader, self uint64, limit time.Duration, of func(*state.Member) (evidence, bool)) (out []state.Member) {
	if leader != self {
		return nil
	}
	for i := range v.Members {
		m := &v.Members[i]
		if m.ID == self || m.State != state.StateOnline && m.State != state.StateRecovering {
			continue
		}
		if e, ok := of(m); ok && (e.refused || e.silent >= limit) {
			out = append(out, *m)
		}
	}
	return out
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

// detect reports members OFFLINE whose process has ended or is silent. A mysqld
// that dies is reported by its own member, see life.report. Every member measures
// all the time, so that one which becomes the leader knows at once.
//
// It may be wrong, and harms nobody then: a member that finds itself OFFLINE
// joins anew.
func (m *Member) detect(ctx context.Context) error {
	a := &attention{awake: time.Now(), lives: make(map[uint64]lifeSeen)}
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
		for _, s := range suspects(v, node.LeaderID(), m.opt.ReplicaID, expelSilence, func(x *state.Member) (evidence, bool) {
			sub := m.subs.get(x.ID)
			if sub == nil {
				return evidence{}, false
			}
			c, ok := sub.Contact()
			if !ok {
				return evidence{}, false
			}
			return weigh(c, x, now, a.since(x, now))
		}) {
			m.expel(ctx, s)
		}
		// While the log takes no entry this loop stands still too.
		a.waited(time.Since(now), 0, time.Now())
	}
}

// expel reports a member OFFLINE. Without success it is tried again, if the
// evidence still holds.
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
