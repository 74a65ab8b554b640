package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Sessions are the clients of a member, as a planned change of the primary concerns
// them; the proxy is one.
type Sessions interface {
	// Hold has new transactions and statements that may write wait before they
	// begin, with all everything that needs the primary's server. Release ends it.
	Hold(all bool)
	// Refuse is Hold, only that new transactions are refused instead of waiting.
	Refuse(all bool)
	Release()
	// Drain waits until nothing runs that Hold would have had wait, or ctx ends, and
	// returns how much still runs, and for how long the oldest of it has.
	Drain(ctx context.Context, all bool) (running int, oldest time.Duration)
	// Vacated waits until no command runs any more on another member's server that
	// sessions have to leave, or ctx ends.
	Vacated(ctx context.Context)
	// End ends the connections of the clients for which Drain waits, except those
	// whose transaction is being committed.
	End()
}

// SetSessions says who the member's clients are. It is called before Run.
func (m *Member) SetSessions(s Sessions) { m.sessions = s }

const (
	// holdLease is how long clients wait for a member that changes the primary and
	// is not heard of again.
	holdLease = 3 * time.Second
	// holdCall is how long one request may be worked on; it is repeated.
	holdCall = 500 * time.Millisecond
	// methodHold is the request's name on the members' channel.
	methodHold = "hold"
)

// ErrSwitching means that the primary is being changed already.
var ErrSwitching = errors.New("recovery: the primary is being changed already")

// holdRequest is what the member that changes the primary asks of each member.
type holdRequest struct {
	// By names the change, Epoch is the one that it ends. The hold is over once
	// another one has begun.
	By    string
	Epoch uint64
	// Hold: new transactions wait. All: and all else. Neither: the hold ends.
	Hold, All bool
	// Refuse: new transactions are refused instead. End: what runs and is not being
	// committed is ended, with its connection.
	Refuse, End bool
	// Look changes nothing, and asks what runs.
	Look bool
	// Phase is what the change is at; see Member.Stages. Completed of Estimated
	// transactions have ended.
	Phase                phase
	Completed, Estimated uint64
	// Wait is how long the answer may wait until nothing runs.
	Wait time.Duration
}

// holdAnswer tells what still runs.
type holdAnswer struct {
	Running int
	Oldest  time.Duration
	// Busy: the clients wait for another change of the primary.
	Busy bool
}

// holds is the present hold of this member's clients.
type holds struct {
	mu    sync.Mutex
	by    string // "" for none
	epoch uint64
	until time.Time
	new   chan struct{} // capacity 1
	// progress is what members say of a change, whether or not clients wait.
	progress changeProgress
}

// onHold answers a request of the members' channel.
func (m *Member) onHold(ctx context.Context, payload []byte) ([]byte, error) {
	var q holdRequest
	if err := json.Unmarshal(payload, &q); err != nil {
		return nil, fmt.Errorf("hold: %w", err)
	}
	return json.Marshal(m.hold(ctx, q))
}

// hold does what is asked for with this member's clients.
func (m *Member) hold(ctx context.Context, q holdRequest) holdAnswer {
	m.holds.mu.Lock()
	first := m.holds.progress.take(&q, time.Now())
	m.holds.mu.Unlock()
	if !first && q.Phase != phaseNone && m.opt.Node.View().Primary == m.opt.ReplicaID {
		return holdAnswer{Busy: true}
	}
	if m.sessions == nil {
		return holdAnswer{}
	}
	if !q.Look {
		if !m.setHold(q) {
			return holdAnswer{Busy: true}
		}
		if !q.Hold {
			return holdAnswer{}
		}
		if q.End {
			m.sessions.End()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, q.Wait)
	defer cancel()
	var a holdAnswer
	a.Running, a.Oldest = m.sessions.Drain(ctx, q.All)
	return a
}

// setHold begins, changes or ends a hold; false says that there is another one.
func (m *Member) setHold(q holdRequest) bool {
	h := &m.holds
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.by != "" && h.by != q.By {
		return !q.Hold // to end what has ended is no mistake
	}
	switch {
	case !q.Hold:
		m.endHold()
		return true
	case m.opt.Node.View().Epoch > q.Epoch:
		return true // it is over
	}
	h.by, h.epoch, h.until = q.By, q.Epoch, time.Now().Add(holdLease)
	if q.Refuse {
		m.sessions.Refuse(q.All)
	} else {
		m.sessions.Hold(q.All)
	}
	select {
	case h.new <- struct{}{}:
	default:
	}
	return true
}

// endHold lets the clients go on. The caller holds holds.mu.
func (m *Member) endHold() {
	if m.holds.by != "" {
		m.holds.by = ""
		m.sessions.Release()
	}
}

// followHolds ends each hold when its epoch has ended, or when its lease has.
func (m *Member) followHolds(ctx context.Context) error {
	h := &m.holds
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		m.endHold()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.new:
		}
		for held := true; held; {
			changed := m.opt.Router.Changed()
			epoch := m.opt.Node.View().Epoch
			h.mu.Lock()
			left := time.Until(h.until)
			if h.by != "" && left <= 0 && epoch <= h.epoch {
				m.log.Warn().Str("by", h.by).Msg("the change of the primary that clients wait for is not heard of any more; they go on")
			}
			if epoch > h.epoch || left <= 0 {
				m.endHold()
			}
			held = h.by != ""
			h.mu.Unlock()
			if !held {
				break
			}
			t := time.NewTimer(left)
			select {
			case <-ctx.Done():
				t.Stop()
				return nil
			case <-changed:
				t.Stop()
			case <-h.new:
				t.Stop()
			case <-t.C:
			}
		}
	}
}
