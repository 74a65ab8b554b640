package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"cohort/consensus/state"
	"cohort/internal/pause"
)

var (
	// ErrTarget means that a member cannot become the primary now.
	ErrTarget = errors.New("recovery: this member cannot become the primary")
	// ErrOvertaken means that something else decided who is the primary.
	ErrOvertaken = errors.New("recovery: another change of the primary came first")
)

// smallBacklog is how many transactions a member may lack when it is appointed:
// it applies them in a moment, while writes wait.
const smallBacklog = 200

const (
	// longRunning is the age from which on a transaction is waited for before others
	// have to wait.
	longRunning = time.Second
	// drainWindow is how long new transactions wait, at most, for those that run, if
	// the caller has set no limit; then they go on and it is tried again later.
	drainWindow = time.Second
	retrySwitch = 500 * time.Millisecond
	// catchUpWindow is how long they wait for the next primary to apply the last few
	// transactions before it is appointed, with which it could not lag much longer.
	catchUpWindow = time.Second
	// readWindow is how long reads may take to their end.
	readWindow = 200 * time.Millisecond
	// commitWindow is how long commits may take to their end once what else runs has
	// been ended.
	commitWindow = 5 * time.Second
	// tellEvery is how often members are told that a change goes on.
	tellEvery = time.Second
)

// errRunning: transactions would be lost if the primary changed now.
var errRunning = errors.New("recovery: transactions are running")

// SwitchPrimary makes the member with the server_uuid given the primary and
// returns when it takes writes. It may be called on any member. The former
// primary goes on taking writes until the other has nearly everything, and until
// no transaction runs for long. Then new ones wait, wherever their clients are
// connected, until those that run have ended and the other is the primary.
func (m *Member) SwitchPrimary(ctx context.Context, target string) error {
	return m.switchPrimary(ctx, target, -1)
}

// SwitchPrimaryWithin waits for running transactions no longer than limit; then
// they are ended with their connections, except those that are being committed. New
// ones are refused meanwhile.
func (m *Member) SwitchPrimaryWithin(ctx context.Context, target string, limit time.Duration) error {
	return m.switchPrimary(ctx, target, max(limit, 0))
}

func (m *Member) switchPrimary(ctx context.Context, target string, limit time.Duration) error {
	if !m.switching.CompareAndSwap(false, true) {
		return ErrSwitching
	}
	defer m.switching.Store(false)
	c := &change{m: m, by: fmt.Sprintf("%s/%x", m.opt.UUID, randomBytes(8))}
	defer c.over(ctx)
	var told time.Time
	for {
		v := m.opt.Node.View()
		c.view, c.deaf = v, make(map[uint64]bool)
		t, ok := v.MemberByUUID(target)
		switch {
		case !ok:
			return fmt.Errorf("%w: the group has no member %s", ErrTarget, target)
		case t.State != state.StateOnline:
			return fmt.Errorf("%w: %s is %s", ErrTarget, target, t.State)
		case v.Primary == t.ID:
			return c.waitOpen(ctx, t.ID, v.Epoch)
		}
		wait := pollBehind
		checks := holdRequest{Look: true, Phase: phaseChecks}
		if told.IsZero() {
			// Of two changes at a time the one that the primary hears of first goes on.
			if a := c.ask(ctx, v.Primary, checks); a.Busy {
				return ErrSwitching
			}
		}
		lacks := m.opt.Router.Tracker(t.ID).Low()+smallBacklog < m.opt.Node.LastN()
		if told.IsZero() || lacks && time.Since(told) > tellEvery {
			told = time.Now()
			c.askAll(ctx, checks)
		}
		if !lacks {
			err := c.attempt(ctx, t, limit)
			if err == nil {
				return c.waitOpen(ctx, t.ID, v.Epoch+1)
			}
			if !errors.Is(err, errRunning) {
				return err
			}
			wait = retrySwitch
		}
		if err := pause.For(ctx, wait); err != nil {
			return fmt.Errorf("%s cannot be appointed yet: %w", target, err)
		}
	}
}

// change is a planned change of the primary.
type change struct {
	m  *Member
	by string
	// view is that of the present attempt.
	view *state.View
	// most is how many transactions ran when the most did.
	most int

	mu   sync.Mutex
	deaf map[uint64]bool // did not answer
}

// over tells everybody that the change has ended.
func (c *change) over(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), holdCall)
	defer cancel()
	c.askAll(ctx, holdRequest{})
}

// pending is a request that tells how many transactions still run.
func (c *change) pending(running int, q holdRequest) holdRequest {
	c.most = max(c.most, running)
	q.Phase, q.Completed, q.Estimated = phasePending, uint64(c.most-running), uint64(c.most)
	return q
}

// attempt holds everybody's clients, waits for what runs, and appoints. limit below
// 0 is none: then nothing that runs is lost, and it fails with errRunning instead.
// With one new transactions are refused, as Group Replication does, and what still
// runs in the end loses its connection.
//
// Whatever happens here nobody waits for ever: a hold ends with the epoch, with the
// request that ends it, or with its lease.
func (c *change) attempt(ctx context.Context, t state.Member, limit time.Duration) (err error) {
	m, window := c.m, limit
	running, refuse := 0, limit >= 0
	if limit < 0 {
		window = drainWindow
		a := c.askAll(ctx, holdRequest{Look: true})
		if running = a.Running; a.Oldest > longRunning {
			c.askAll(ctx, c.pending(running, holdRequest{Look: true}))
			return errRunning
		}
	}
	began := time.Now()
	end := began.Add(window)
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), holdCall)
			defer cancel()
			c.askAll(ctx, holdRequest{})
		}
	}()
	if a := c.ask(ctx, c.view.Primary, c.pending(running, holdRequest{Hold: true, Refuse: refuse})); a.Busy {
		return ErrSwitching
	}
	for ended := false; ; {
		wait := min(max(time.Until(end), 0), holdCall)
		a := c.askAll(ctx, c.pending(running, holdRequest{Hold: true, Refuse: refuse, Wait: wait}))
		running = a.Running
		switch {
		case a.Busy:
			return ErrSwitching
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case a.Running > 0 && time.Now().Before(end):
			continue
		case a.Running > 0 && limit < 0:
			return errRunning
		case a.Running > 0 && !ended:
			m.log.Warn().Int("transactions", a.Running).Dur("limit", limit).Msg("the primary changes although transactions run: their connections are ended")
			ended, end = true, time.Now().Add(commitWindow)
			c.askAll(ctx, c.pending(running, holdRequest{Hold: true, Refuse: refuse, End: true}))
			continue
		case a.Running > 0:
			m.log.Warn().Int("transactions", a.Running).Msg("the primary changes although transactions are being committed: the group decides them")
		}
		break
	}
	tracker := m.opt.Router.Tracker(t.ID)
	for end := time.Now().Add(catchUpWindow); tracker.Low() < m.opt.Node.LastN() && time.Now().Before(end); {
		if err := pause.For(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	if a := c.askAll(ctx, holdRequest{Hold: true, Refuse: refuse, All: true, Wait: readWindow, Phase: phaseElection}); a.Busy {
		return ErrSwitching
	}
	if now, _ := m.opt.Node.View().Member(t.ID); now.State != state.StateOnline {
		return fmt.Errorf("%w: %s is %s", ErrTarget, t.Info.UUID, now.State)
	}
	c.mu.Lock()
	deaf := c.deaf[c.view.Primary]
	c.mu.Unlock()
	if deaf {
		// It may be cut off, and go on answering reads for as long as it may.
		if err := pause.For(ctx, lease(DetectDefault.Silence)); err != nil {
			return err
		}
	}
	m.log.Info().Dur("drained", time.Since(began)).Str("primary", t.Info.UUID).Msg("appointing another primary")
	if _, err := m.opt.Node.AppointPrimary(ctx, t.ID, c.view.Epoch); err != nil {
		return fmt.Errorf("appoint %s: %w", t.Info.UUID, err)
	}
	return nil
}

// askAll asks every member of the view at a time and puts their answers together.
func (c *change) askAll(ctx context.Context, q holdRequest) (sum holdAnswer) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, member := range c.view.Members {
		if member.State != state.StateOnline && member.State != state.StateRecovering {
			continue
		}
		wg.Go(func() {
			a := c.ask(ctx, member.ID, q)
			mu.Lock()
			defer mu.Unlock()
			sum.Running += a.Running
			sum.Oldest = max(sum.Oldest, a.Oldest)
			sum.Busy = sum.Busy || a.Busy
		})
	}
	wg.Wait()
	return sum
}

// ask asks one member. One that does not answer is left out from then on: its clients
// see what they would without a hold.
func (c *change) ask(ctx context.Context, id uint64, q holdRequest) (a holdAnswer) {
	q.By, q.Epoch = c.by, c.view.Epoch
	if id == c.m.opt.ReplicaID {
		return c.m.hold(ctx, q)
	}
	c.mu.Lock()
	deaf := c.deaf[id] && q.Hold
	c.mu.Unlock()
	s := c.m.subs.get(id)
	if deaf || s == nil {
		return a
	}
	within, cancel := context.WithTimeout(ctx, q.Wait+holdCall)
	defer cancel()
	payload, err := json.Marshal(q)
	if err == nil {
		payload, err = s.Call(within, methodHold, payload)
	}
	if err == nil {
		err = json.Unmarshal(payload, &a)
	}
	if err != nil && ctx.Err() == nil {
		c.m.log.Info().Err(err).Uint64("member", id).Msg("a member's clients do not wait for the change of the primary")
		c.mu.Lock()
		defer c.mu.Unlock()
		c.deaf[id] = true
	}
	return a
}

// waitOpen waits until a member is open as the primary of an epoch.
func (c *change) waitOpen(ctx context.Context, id, epoch uint64) error {
	m := c.m
	tell := time.NewTicker(tellEvery)
	defer tell.Stop()
	for {
		changed := m.opt.Router.Changed()
		v := m.opt.Node.View()
		t, _ := v.Member(id)
		switch {
		case v.Primary != id || v.Epoch != epoch:
			return fmt.Errorf("%w: member %d is the primary of epoch %d", ErrOvertaken, v.Primary, v.Epoch)
		case t.OpenEpoch == epoch && t.State == state.StateOnline:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is appointed and not open yet: %w", t.Info.UUID, context.Cause(ctx))
		case <-tell.C:
			c.askAll(ctx, holdRequest{Look: true, Phase: phaseElection})
		case <-changed:
		}
	}
}
