package recovery

import (
	"context"
	"errors"
	"sync"
	"time"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/pause"
	"cohort/internal/peer"
)

// Detection is how fast a member notices the silence of others. Members may differ:
// each judges for itself.
type Detection struct {
	// Heartbeat is the pause between two of this member's own.
	Heartbeat time.Duration
	// Silence is how long a member may be silent before it is suspected: several
	// heartbeats, also of one that sends them at another member's pace.
	Silence time.Duration
}

// The profiles. What a suspicion costs that was wrong is a change of the primary.
var (
	// DetectDefault bears the stalls of a machine that is busy.
	DetectDefault = Detection{Heartbeat: 100 * time.Millisecond, Silence: 900 * time.Millisecond}
	// DetectFast is for machines and networks that have none of more than a quarter
	// of a second.
	DetectFast = Detection{Heartbeat: 50 * time.Millisecond, Silence: 400 * time.Millisecond}
)

// callElection is how long a leader of the log may be silent before an election is
// called: it is over when the silence is long enough for a suspicion.
func (d Detection) callElection() time.Duration { return d.Silence * 3 / 4 }

// usual is the detection of members that were given none. A variable for the tests
// only.
var usual = DetectDefault

// detection returns this member's.
func (m *Member) detection() Detection {
	if m.opt.Detection == (Detection{}) {
		return usual
	}
	return m.opt.Detection
}

const (
	// detectEvery is the pause between two looks at the members.
	detectEvery = 25 * time.Millisecond
	// longestStep is how much silence one look can add. What it comes later by, this
	// process was not scheduled, and others on the same machine likely were not.
	longestStep = 100 * time.Millisecond
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

// patience is what is borne of a member that is silent.
type patience struct {
	// silence is how long until it is suspected, expel how much longer until it is
	// reported OFFLINE.
	silence, expel time.Duration
}

// suspects says that nothing should be left to the member for now. A suspicion
// ends with the next word from it.
func (p patience) suspects(e evidence) bool { return e.refused || e.silent >= p.silence }

// gone says that the member is no longer waited for. A process that has ended does
// not come back as the same incarnation, so there is nothing to wait for.
func (p patience) gone(e evidence) bool { return e.refused || e.silent >= p.silence+p.expel }

// inGroup says that a member takes part.
func inGroup(m *state.Member) bool {
	return m.State == state.StateOnline || m.State == state.StateRecovering
}

// unreachable returns the incarnations of the members that self suspects, by id.
func unreachable(v *state.View, self uint64, p patience, of func(*state.Member) (evidence, bool)) map[uint64]uint64 {
	var out map[uint64]uint64
	for i := range v.Members {
		m := &v.Members[i]
		if m.ID == self || !inGroup(m) {
			continue
		}
		if e, ok := of(m); ok && p.suspects(e) {
			if out == nil {
				out = make(map[uint64]uint64)
			}
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
	// waited is which of these have had their time: the log goes on without them at
	// once. One whose process has ended may begin anew, and keeps its vote longer.
	waited map[uint64]bool
}

// decide returns what the log's leader should do, nothing for any other member:
// it has the majority with it, and one report is enough. of gives the evidence
// about a member's present incarnation, false if there is none.
//
// A suspected primary is replaced at once, since writes wait for it. That is all
// that a suspicion costs anybody before expel has passed.
func decide(v *state.View, leader, self uint64, bear patience, of func(*state.Member) (evidence, bool)) (p plan) {
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
		case !ok || !bear.suspects(e):
			heard, left = append(heard, *m), append(left, *m)
		case bear.gone(e):
			p.expel = append(p.expel, *m)
			if e.silent >= bear.silence+bear.expel {
				if p.waited == nil {
					p.waited = make(map[uint64]bool)
				}
				p.waited[m.ID] = true
			}
		default:
			left = append(left, *m)
		}
		if ok && m.ID == v.Primary {
			suspected, gone = bear.suspects(e), bear.gone(e)
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

// weigh turns contact with a member into evidence about m, which has been silent
// for so long. Contact with another process than the one that m's incarnation runs
// in says nothing about m.
func weigh(c peer.Contact, m *state.Member, silent time.Duration) (evidence, bool) {
	if c.Target != targetOf(m) {
		return evidence{}, false
	}
	return evidence{silent: silent, refused: c.Refused}, true
}

// attention is what this process has listened for.
type attention map[uint64]hearing

// hearing is how long one member has been silent.
type hearing struct {
	incarnation uint64
	heard       time.Time // the latest word that was counted
	silent      time.Duration
}

// listen returns for how long m has been silent, after a look that took so long
// since the one before. Silence is counted in what this process was awake for, and
// from when it learnt of m's incarnation: who joins is alive.
func (a attention) listen(m *state.Member, heard, now time.Time, took time.Duration) time.Duration {
	h, step := a[m.ID], min(took, longestStep)
	switch {
	case h.incarnation != m.Incarnation, took > detectEvery+stalledAfter:
		h.silent = 0
	case heard.After(h.heard):
		h.silent = min(max(now.Sub(heard), 0), step)
	default:
		h.silent += step
	}
	h.incarnation, h.heard = m.Incarnation, heard
	a[m.ID] = h
	return h.silent
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
	a := make(attention)
	var acting sync.WaitGroup
	defer acting.Wait()
	free := make(chan struct{}, 1) // one plan at a time is carried out
	free <- struct{}{}
	for before := time.Now(); pause.For(ctx, detectEvery) == nil; {
		now := time.Now()
		took := now.Sub(before)
		before = now
		node := m.opt.Node
		v := node.View()
		known := make(map[uint64]evidence, len(v.Members))
		for i := range v.Members {
			x := &v.Members[i]
			c, ok := m.contact(x.ID)
			heard := c.Heard
			if asked := m.leases.heard(x.ID); asked.After(heard) {
				heard = asked
			}
			silent := a.listen(x, heard, now, took)
			if e, counts := weigh(c, x, silent); ok && counts {
				known[x.ID] = e
			}
		}
		m.known.Store(&known)
		of := func(x *state.Member) (evidence, bool) {
			e, ok := known[x.ID]
			return e, ok
		}
		bear := patience{m.detection().Silence, m.Policy().ExpelTimeout}
		m.suspected(unreachable(v, m.opt.ReplicaID, bear, of))
		p := decide(v, node.LeaderID(), m.opt.ReplicaID, bear, of)
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
	return nil
}

// contact returns what the channel to a member tells of it.
func (m *Member) contact(id uint64) (peer.Contact, bool) {
	if s := m.subs.get(id); s != nil {
		return s.Contact()
	}
	return peer.Contact{}, false
}

// of returns what is known of a member, as the latest look found it.
func (m *Member) of(id uint64) (evidence, bool) {
	known := m.known.Load()
	if known == nil {
		return evidence{}, false
	}
	e, ok := (*known)[id]
	return e, ok
}

// doubts says that a member is no good leader of the log: it may well be suspected
// soon.
func (m *Member) doubts(id uint64) bool {
	e, ok := m.of(id)
	return ok && (e.refused || e.silent >= m.detection().Silence/2)
}

// Unheard says whether nothing can be expected at present of the member with the
// server_uuid given, whatever its state is.
func (m *Member) Unheard(uuid string) bool {
	x, ok := m.opt.Node.View().MemberByUUID(uuid)
	if !ok {
		return false
	}
	e, ok := m.of(x.ID)
	return ok && e.silent >= m.detection().Silence
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
		m.expel(ctx, s, p.waited[s.ID])
	}
}

// expel reports a member OFFLINE, and has the log go on without it if it was waited
// for.
func (m *Member) expel(ctx context.Context, s state.Member, waited bool) {
	m.log.Warn().Uint64("member", s.ID).Str("uuid", s.Info.UUID).Uint64("incarnation", s.Incarnation).
		Msg("this member does not answer: reporting it OFFLINE")
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := m.opt.Node.SetMemberState(ctx, s.ID, s.Incarnation, state.StateOffline)
	if err != nil && !errors.Is(err, consensus.ErrFenced) {
		m.log.Warn().Err(err).Uint64("member", s.ID).Msg("could not report it OFFLINE")
	}
	if err == nil && waited {
		// Otherwise the log's leader does it, after another expel timeout.
		if err := m.opt.Node.Evict(ctx, s); err != nil {
			m.log.Debug().Err(err).Uint64("member", s.ID).Msg("it keeps its vote for now")
		}
	}
}
