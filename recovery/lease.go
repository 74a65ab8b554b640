package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"cohort/consensus/state"
	"cohort/internal/peer"
)

// The lease on reads. The primary's server answers reads without asking anybody, so
// its member has to know that nobody else can be the primary by then. It asks every
// vote, all the time, whether they take it for the primary. Who answers has heard it,
// at the moment it was asked or later, and so does not suspect it for Silence from
// then on. The leader of the log alone replaces a silent primary, and needs votes of a
// majority to lead:
//
//   - the leader of the time is among those whose answers count, and all name it;
//   - another one leads only with a vote of theirs, and needs the same silence.
//
// What a lease does not outlive is one failure. Two at once, of a leader and of the
// connection of the next one to the primary, may leave reads of a lease's length that
// are old.
//
// The others' clients read on the same server: their members ask the primary's for
// what is left of its lease, counted from when they asked.

// lease is how long contact is good for, where members suspect after so much silence.
// The rest is for the last answers, which the leader may have missed.
func lease(silence time.Duration) time.Duration { return silence * 2 / 3 }

const (
	// methodPrimary asks a member whom it takes for the primary, methodLease the
	// primary's for what is left of its lease.
	methodPrimary, methodLease = "primary", "lease"
	// leaseCall is how long an answer may take, leaseCalls how many questions may wait
	// for theirs: a long way must not make them rare.
	leaseCall  = time.Second
	leaseCalls = 4
)

// primaryRequest says who asks: the answer is also news of it.
type primaryRequest struct{ Member, Incarnation uint64 }

// primaryAnswer is what a member knows, and how long it bears silence.
type primaryAnswer struct {
	Primary, Epoch, Leader, Incarnation uint64
	Silence                             time.Duration
}

// leaseAnswer is what is left of the lease in an epoch; 0 for none.
type leaseAnswer struct {
	Epoch uint64
	Left  time.Duration
}

// grant is an answer, and when it was asked for.
type grant struct {
	primaryAnswer
	asked time.Time
}

// leased returns until when self may have reads answered as the primary of v; leader
// leads the log as self knows it, own is how long self bears silence, grants are the
// members' latest answers. The zero time is never.
func leased(v *state.View, self, leader uint64, now time.Time, own time.Duration, grants map[uint64]grant) time.Time {
	if v.Primary != self || leader == 0 {
		return time.Time{}
	}
	votes, shortest := len(v.Unclaimed), own
	var asked []time.Time // of those that count, and the leader's
	var led time.Time
	for i := range v.Members {
		m := &v.Members[i]
		if m.Replica == 0 {
			continue
		}
		g, ok := grants[m.ID]
		ok = ok && g.Incarnation == m.Incarnation
		switch {
		case m.ID == self:
			g.asked = now
			ok = true
		case ok:
			shortest = min(shortest, g.Silence)
			ok = g.Primary == self && g.Epoch == v.Epoch && g.Leader == leader
		default: // it may be the most impatient there is
			shortest = min(shortest, DetectFast.Silence)
		}
		if m.Voter {
			votes++
		}
		if !ok || !m.Voter {
			continue
		}
		asked = append(asked, g.asked)
		if m.ID == leader {
			led = g.asked
		}
	}
	if len(asked) <= votes/2 || led.IsZero() {
		return time.Time{}
	}
	slices.SortFunc(asked, func(a, b time.Time) int { return b.Compare(a) })
	from := asked[votes/2]
	if led.Before(from) {
		from = led
	}
	return from.Add(lease(shortest))
}

// leases is what the lease is made of.
type leases struct {
	mu     sync.Mutex
	grants map[uint64]grant
	busy   map[uint64]int // questions that wait for an answer
	until  time.Time      // this member's, as the primary of epoch
	epoch  uint64
	// words are when members last asked this one something, by id.
	words map[uint64]time.Time
}

// word notes that a member has just been heard.
func (l *leases) word(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.words == nil {
		l.words = make(map[uint64]time.Time)
	}
	l.words[id] = time.Now()
}

// heard returns the latest word of a member's.
func (l *leases) heard(id uint64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.words[id]
}

// onPrimary answers a request of the members' channel.
func (m *Member) onPrimary(_ context.Context, payload []byte) ([]byte, error) {
	var q primaryRequest
	if err := json.Unmarshal(payload, &q); err != nil {
		return nil, fmt.Errorf("primary: %w", err)
	}
	v := m.opt.Node.View()
	if x, ok := v.Member(q.Member); !ok || x.Incarnation != q.Incarnation {
		return nil, errors.New("primary: of another incarnation")
	}
	m.leases.word(q.Member)
	me, _ := v.Member(m.opt.ReplicaID)
	return json.Marshal(primaryAnswer{Primary: v.Primary, Epoch: v.Epoch, Leader: m.opt.Node.LeaderID(),
		Incarnation: me.Incarnation, Silence: m.detection().Silence})
}

// onLease answers a request of the members' channel.
func (m *Member) onLease(context.Context, []byte) ([]byte, error) {
	m.leases.mu.Lock()
	defer m.leases.mu.Unlock()
	return json.Marshal(leaseAnswer{Epoch: m.leases.epoch, Left: max(time.Until(m.leases.until), 0)})
}

// keepLease keeps the router's lease up to date.
func (m *Member) keepLease(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	t := time.NewTimer(0)
	defer t.Stop()
	var lacking time.Time // since when there is none
	said := false
	for {
		changed := m.opt.Router.Changed()
		v := m.opt.Node.View()
		if v.Primary == m.opt.ReplicaID {
			m.renew(v)
			me, _ := v.Member(m.opt.ReplicaID)
			q, err := json.Marshal(primaryRequest{me.ID, me.Incarnation})
			for i := range v.Members {
				if x := &v.Members[i]; err == nil && x.Replica != 0 && x.ID != me.ID {
					m.askLease(ctx, &wg, x.ID, methodPrimary, q, m.granted)
				}
			}
		} else if v.Primary != 0 {
			m.askLease(ctx, &wg, v.Primary, methodLease, nil, m.borrowed)
		}
		now := time.Now()
		if lacks := m.Ready() && !m.opt.Router.Leased(); !lacks {
			lacking = time.Time{}
		} else if lacking.IsZero() {
			lacking = now
		}
		if lost := !lacking.IsZero() && now.Sub(lacking) > m.timing.lostAfter; lost != said {
			said = lost
			if lost {
				m.log.Warn().Msg("not certain who the primary is: reads wait (group_replication_consistency)")
			} else {
				m.log.Info().Msg("reads do not wait any more")
			}
		}
		wait := m.detection().Heartbeat
		if !lacking.IsZero() {
			wait /= 5
		}
		t.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-t.C:
		}
	}
}

// askLease asks a member, unless it lets too many questions wait, and has take do with
// the answer.
func (m *Member) askLease(ctx context.Context, wg *sync.WaitGroup, id uint64, method string, q []byte, take func(id uint64, asked time.Time, answer []byte, err error)) {
	s := m.subs.get(id)
	l := &m.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	if s == nil || l.busy[id] == leaseCalls {
		return
	}
	if l.busy == nil {
		l.busy = make(map[uint64]int)
	}
	l.busy[id]++
	wg.Go(func() {
		call, cancel := context.WithTimeout(ctx, leaseCall)
		defer cancel()
		asked := time.Now()
		answer, err := s.Call(call, method, q)
		l.mu.Lock()
		l.busy[id]--
		l.mu.Unlock()
		take(id, asked, answer, err)
	})
}

// granted takes the answer to methodPrimary.
func (m *Member) granted(id uint64, asked time.Time, answer []byte, err error) {
	g := grant{asked: asked}
	if err != nil || json.Unmarshal(answer, &g.primaryAnswer) != nil {
		return
	}
	m.leases.mu.Lock()
	if m.leases.grants == nil {
		m.leases.grants = make(map[uint64]grant)
	}
	if g.asked.After(m.leases.grants[id].asked) {
		m.leases.grants[id] = g
	}
	m.leases.mu.Unlock()
	m.renew(m.opt.Node.View())
}

// renew computes this member's lease as the primary.
func (m *Member) renew(v *state.View) {
	l := &m.leases
	l.mu.Lock()
	l.epoch = v.Epoch
	l.until = leased(v, m.opt.ReplicaID, m.opt.Node.LeaderID(), time.Now(), m.detection().Silence, l.grants)
	until := l.until
	l.mu.Unlock()
	if v.Primary == m.opt.ReplicaID {
		m.opt.Router.SetLease(until)
	}
}

// borrowed takes the answer to methodLease.
func (m *Member) borrowed(id uint64, asked time.Time, answer []byte, err error) {
	v := m.opt.Node.View()
	if v.Primary != id {
		return
	}
	var a leaseAnswer
	switch {
	case errors.Is(err, peer.ErrDown), errors.Is(err, peer.ErrLost):
		m.opt.Router.SetLease(time.Time{})
	case err == nil && json.Unmarshal(answer, &a) == nil && a.Epoch == v.Epoch:
		m.opt.Router.SetLease(asked.Add(a.Left))
	}
}

// parted ends what was borrowed of a primary to which the channel was lost: its
// process may have ended, and another be appointed at once.
func (m *Member) parted(id uint64) {
	if v := m.opt.Node.View(); v.Primary == id {
		m.opt.Router.SetLease(time.Time{})
	}
}
