package recovery

import (
	"context"
	"errors"
	"sync"
	"time"

	"cohort/consensus"
	"cohort/internal/mysqld"
	"cohort/internal/pause"
	"cohort/router"
)

// Errors of Start and Stop.
var (
	// ErrRunning: the member is in the group, or on its way.
	ErrRunning = errors.New("recovery: the member is in the group already")
	// ErrBusy: another Start or Stop is being carried out.
	ErrBusy = errors.New("recovery: another START or STOP is being carried out")
	// errStopped ends a life that was asked to leave.
	errStopped = errors.New("recovery: the member was asked to leave the group")
)

// leaveTimeout bounds how long a member that leaves tries to tell the group.
const leaveTimeout = 5 * time.Second

// vacateTimeout bounds how long a member that leaves waits for its clients' statements
// on the primary's server (those that the router's eviction ends end sooner), and
// applyTimeout how long for its own mysqld to apply what they may have seen there.
const (
	vacateTimeout = 3 * time.Second
	applyTimeout  = 5 * time.Second
)

// startLimit bounds how long a Start waits for its join to be ordered.
const startLimit = time.Minute

// control is whether this member is to be in the group; Start and Stop change it.
type control struct {
	mu      sync.Mutex
	wanted  bool
	command bool               // a Start or Stop is being carried out
	changed chan struct{}      // closed and replaced when wanted changes
	end     context.CancelFunc // ends the present life; nil between lives
	joined  chan error         // capacity 1: what a Start waits for; nil for none
	left    chan struct{}      // what a Stop waits for; nil for none
	leave   bool               // the group has to be told that this member is out
}

func (c *control) set(wanted bool) {
	c.wanted = wanted
	close(c.changed)
	c.changed = make(chan struct{})
}

// await returns when the member is wanted in the group.
func (c *control) await(ctx context.Context) error {
	for {
		c.mu.Lock()
		wanted, changed := c.wanted, c.changed
		c.mu.Unlock()
		if wanted {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// begin returns the context of one life; false if the member is not wanted (any
// more).
func (c *control) begin(ctx context.Context) (context.Context, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.wanted {
		return nil, false
	}
	ctx, cancel := context.WithCancelCause(ctx)
	c.end = func() { cancel(errStopped) }
	return ctx, true
}

// over frees what begin took.
func (c *control) over() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		c.end()
		c.end = nil
	}
}

// tell answers a Start: nil when the member has joined, otherwise why it could
// not; then it is not wanted any more.
func (c *control) tell(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.joined == nil {
		return
	}
	c.joined <- err
	c.joined = nil
	if err != nil {
		c.set(false)
	}
}

// giveUp has the member stay out until a Start.
func (c *control) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(false)
}

// leaving says whether the group has to be told, and mysqld to be closed.
func (c *control) leaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leave
}

// pause waits for d, or until what is wanted changes.
func (c *control) pause(ctx context.Context, d time.Duration) {
	c.mu.Lock()
	changed := c.changed
	c.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-t.C:
	}
}

// begins marks that a Start or Stop is carried out; c.mu is held.
func (c *control) begins() error {
	if c.command {
		return ErrBusy
	}
	c.command = true
	return nil
}

func (c *control) ends() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.command, c.joined, c.left = false, nil, nil
}

// Commanded says whether a Start or Stop is being carried out.
func (m *Member) Commanded() bool {
	m.control.mu.Lock()
	defer m.control.mu.Unlock()
	return m.control.command
}

// Wanted says whether this member is, or tries to be, in the group.
func (m *Member) Wanted() bool {
	m.control.mu.Lock()
	defer m.control.mu.Unlock()
	return m.control.wanted
}

// Start has this member join the group and returns when it has: it is RECOVERING
// or ONLINE then. Errors: ErrRunning, ErrBusy, ctx's cause, or why it cannot join;
// then it stays out until the next Start.
func (m *Member) Start(ctx context.Context) error {
	c := &m.control
	c.mu.Lock()
	if err := c.begins(); err != nil {
		c.mu.Unlock()
		return err
	}
	if c.wanted {
		c.mu.Unlock()
		c.ends()
		return ErrRunning
	}
	defer c.ends()
	joined := make(chan error, 1)
	c.joined = joined
	m.gaveUp.Store(false)
	if m.opt.Donors != nil {
		m.opt.Donors.Retry()
	}
	c.set(true)
	c.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errors.New("recovery: the group did not order the join in time; has it a majority?"))
	defer cancel()
	select {
	case err := <-joined:
		return err
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		// The join may be ordered all the same.
		c.leave = true
		c.set(false)
		if c.end != nil {
			c.end()
		}
		return context.Cause(ctx)
	}
}

// Stop takes this member out of the group and returns when its mysqld takes no
// writes any more. The group elects another primary if this one was it. A member
// that is out already stays so.
func (m *Member) Stop(ctx context.Context) error {
	c := &m.control
	c.mu.Lock()
	if err := c.begins(); err != nil {
		c.mu.Unlock()
		return err
	}
	defer c.ends()
	if !c.wanted {
		c.mu.Unlock()
		m.failed.Store(false) // from ERROR to OFFLINE
		return nil
	}
	left := make(chan struct{})
	c.left, c.leave = left, true
	c.set(false)
	if c.end != nil {
		c.end()
	}
	c.mu.Unlock()
	select {
	case <-left:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave ends this member's part in the group: the others are told, so that they
// need not find out, and mysqld is closed for writes. Both have a time limit: a
// member without quorum can leave too, and so can one whose mysqld is dead, which
// starts read-only again. Clients of this member find its own mysqld afterwards.
func (m *Member) leave(ctx context.Context) {
	m.opt.Router.SetPlace(router.OnNone)
	if m.sessions != nil {
		wait, cancel := context.WithTimeout(ctx, vacateTimeout)
		m.sessions.Vacated(wait)
		cancel()
	}
	at := time.Now()
	tell, cancel := context.WithTimeout(ctx, leaveTimeout)
	err := m.opt.Node.Leave(tell)
	if err != nil && ctx.Err() == nil && !errors.Is(err, consensus.ErrFenced) && !errors.Is(err, consensus.ErrNotJoined) {
		m.log.Warn().Err(err).Msg("left without telling the group; it will find out")
	}
	cancel()
	if err != nil {
		// The verdicts that its clients wait for may never come.
		m.opt.Router.Abandon()
	}
	if err == nil || errors.Is(err, consensus.ErrFenced) {
		// Decided here, so that all that was ordered, and shown by a primary, before it
		// was asked is decided here, too.
		n := m.opt.Node.LastN()
		m.opt.Router.SetDeparture(router.Departure{At: at, N: n})
		m.applyRest(ctx, n)
	}
	if m.close(ctx) {
		settle := func(ctx context.Context, l *life) error { return l.settleOrdered(ctx) }
		if err := m.onServer(ctx, settle); err != nil {
			m.log.Debug().Err(err).Msg("a transaction may be left prepared; START settles it")
		}
	}
	m.log.Info().Msg("member left the group")
}

// applyRest gives mysqld a moment to apply what was ordered before this member left,
// which its clients may have seen on the primary's.
func (m *Member) applyRest(ctx context.Context, upto uint64) {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	l, err := m.connect(ctx)
	if err != nil {
		return
	}
	defer l.disconnect()
	locks := l.newResolver(lockPatience, false)
	for {
		executed, err := mysqld.GroupExecuted(ctx, l.conn, m.opt.GroupName)
		if err != nil || executed.Low >= upto {
			return
		}
		if s, err := mysqld.ReadApplierStatus(ctx, l.conn); err != nil || s.Err() != nil || s.ApplierState != "ON" {
			return // a former primary, for instance
		}
		locks.look(ctx, executed.Low)
		if pause.For(ctx, pollBehind) != nil {
			m.log.Warn().Uint64("applied", executed.Low).Uint64("target", upto).Msg("left before mysqld has applied all; clients that may have seen it do not read here")
			return
		}
	}
}

// stopped answers a Stop.
func (c *control) stopped() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave = false
	if c.left != nil {
		close(c.left)
		c.left = nil
	}
}

// closeServer ends every session of the local mysqld and makes it read-only, also
// for its next start.
func (m *Member) closeServer(ctx context.Context) error {
	l, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer l.disconnect()
	if err := l.shut(ctx); err != nil {
		return err
	}
	return mysqld.SetGlobals(ctx, l.conn, map[string]string{"binlog_order_commits": "ON"})
}
