package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"cohort/consensus/state"
	"cohort/internal/mysqld"
	"cohort/internal/pause"
	"cohort/router"
)

// ExitAction is what a member does that is out of the group against its will and
// cannot come back: a value of group_replication_exit_state_action. In any case
// its mysqld takes no writes.
type ExitAction string

const (
	// ExitReadOnly: its clients read from its own mysqld; also the zero value.
	ExitReadOnly ExitAction = "READ_ONLY"
	// ExitOffline: its mysqld is put into offline_mode, which refuses and ends the
	// sessions of everybody without CONNECTION_ADMIN.
	ExitOffline ExitAction = "OFFLINE_MODE"
	// ExitAbort: its mysqld is shut down, and Options.Failed is told.
	ExitAbort ExitAction = "ABORT_SERVER"
)

// ErrAborted is what Options.Failed is told by ExitAbort.
var ErrAborted = errors.New("recovery: the member has left the group against its will, and group_replication_exit_state_action is ABORT_SERVER")

var (
	// errMajority ends a life that was without a majority for too long.
	errMajority = errors.New("no contact to a majority of the group for longer than group_replication_unreachable_majority_timeout")
	// errNotLetIn ends a try to come back.
	errNotLetIn = errors.New("the member could not rejoin the group")
)

// timing are intervals that only tests change.
type timing struct {
	// rejoinEvery is the pause between two tries to rejoin, as Group Replication
	// has it; the return of the majority ends it. rejoinTry is how long a try looks
	// for the majority.
	rejoinEvery, rejoinTry time.Duration
	// lostAfter is how long there is no majority before it counts as lost: an
	// election takes a while.
	lostAfter time.Duration
	// adriftAfter is how long there is neither a majority nor a primary before
	// clients are let in to administer the group only: they wait as long for one.
	adriftAfter time.Duration
}

var defaultTiming = timing{rejoinEvery: 5 * time.Minute, rejoinTry: 10 * time.Second, lostAfter: 3 * time.Second, adriftAfter: 10 * time.Second}

// joinTries is how many times rejoinTry the Join of a try may take: the group is
// there by then, so it is slow at most.
const joinTries = 6

// majorityEvery is the pause between two looks for a majority.
const majorityEvery = 500 * time.Millisecond

// quorum says whether a majority answers within d.
func (m *Member) quorum(ctx context.Context, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for m.opt.Node.LeaderID() == 0 {
		if pause.For(ctx, majorityEvery/10) != nil {
			return false
		}
	}
	_, err := m.opt.Node.ReadIndex(ctx)
	return err == nil
}

// Majority says whether this member has contact to a majority of the group.
func (m *Member) Majority(ctx context.Context) bool { return m.quorum(ctx, m.timing.lostAfter) }

// minority is since when there has been no majority.
type minority struct{ since time.Time }

// take adds a look and says whether the time is up. A process that stood still
// meanwhile has not looked.
func (k *minority) take(now time.Time, majority, awake bool, limit time.Duration) bool {
	switch {
	case majority || limit == 0:
		k.since = time.Time{}
		return false
	case !awake || k.since.IsZero():
		k.since = now
	}
	return now.Sub(k.since) >= limit
}

// watchMajority ends a life without a majority when the policy says so.
func (l *life) watchMajority(ctx context.Context) error {
	var k minority
	said := false
	for {
		before := time.Now()
		if err := pause.For(ctx, majorityEvery); err != nil {
			return err
		}
		limit := l.m.Policy().MajorityTimeout
		majority := limit == 0 || l.m.quorum(ctx, majorityEvery)
		if limit > 0 {
			limit += l.m.timing.lostAfter
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		now := time.Now()
		if k.take(now, majority, now.Sub(before) < 2*majorityEvery+stalledAfter, limit) {
			return errMajority
		}
		lost := !majority && now.Sub(k.since) >= l.m.timing.lostAfter
		if lost && !said {
			l.log.Warn().Dur("exit_in", limit-now.Sub(k.since)).Msg("no contact to a majority of the group: writes wait")
		}
		said = lost
	}
}

// exile is what is known of a member that is not, or not any more, in the group.
type exile struct {
	// joined: it has been in the group since it was told to START.
	joined bool
	// tries to rejoin that have failed, and data errors in a row.
	tries uint64
	bad   int
}

// fate is what follows the end of a life.
type fate int

const (
	// again: the next life, at once or after a moment.
	again fate = iota
	againLater
	// rejoin: the next life is a try to rejoin. Until it succeeds the member
	// takes no writes and is in ERROR; rejoinLater waits before.
	rejoin
	rejoinLater
	// rejoinQuietly: a member that was expelled may be back before anybody looks.
	rejoinQuietly
	// exitNow: the member takes its exit action.
	exitNow
	// stayOut: it has never been in the group since it was told to START.
	stayOut
)

// ended decides what follows the end of a life, or a failed try, that ended with
// err.
func (e *exile) ended(err error, limit uint64) fate {
	if errors.Is(err, errRows) {
		// As in Group Replication: trying on is the donors' business, and over.
		return exitNow
	}
	if errors.Is(err, ErrDiverged) || errors.Is(err, mysqld.ErrApplier) {
		// The first such life may have left mysqld open for writes; the second one
		// has closed it and found the same. A third would only kill the sessions of
		// whoever comes to look.
		if e.bad++; e.bad < 2 {
			return againLater
		}
		if e.joined {
			return exitNow
		}
		return stayOut
	}
	e.bad = 0
	switch {
	case errors.Is(err, errReplaced):
		return again
	case errors.Is(err, errNotLetIn):
		if e.tries++; e.tries < limit {
			return rejoinLater
		}
		return exitNow
	case errors.Is(err, errMajority) || errors.Is(err, errExpelled):
		e.tries = 0
		switch {
		case limit == 0:
			return exitNow
		case errors.Is(err, errExpelled):
			return rejoinQuietly
		}
		return rejoin
	}
	return againLater // mysqld is gone, for instance
}

// Failed says that this member is out of the group against its will: its state is
// ERROR.
func (m *Member) Failed() bool { return m.failed.Load() }

// Rejoining says that this member was in the group and tries to come back.
func (m *Member) Rejoining() bool { return m.rejoining.Load() }

// entered is called when a life has joined.
func (m *Member) entered() {
	m.exile.joined, m.exile.tries = true, 0
	m.rejoining.Store(false)
	m.failed.Store(false)
	m.opt.Router.Resume()
	m.opt.Router.SetPlace(router.OnPrimary)
	m.control.tell(nil)
}

// fail takes a member out of service whose part in the group is over for now:
// clients that wait for the group are told so, and its mysqld takes no writes.
func (m *Member) fail(ctx context.Context) {
	if m.failed.Swap(true) {
		return
	}
	m.opt.Router.SetPlace(router.OnNone)
	m.opt.Router.Abandon()
	m.close(ctx)
	m.opt.Router.SetPlace(router.OnLocal)
}

// close is closeServer within leaveTimeout, and reports whether that was enough.
func (m *Member) close(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	for {
		err := m.closeServer(ctx)
		if err == nil {
			return true
		}
		if pause.For(ctx, 100*time.Millisecond) != nil {
			m.log.Warn().Err(err).Msg("left without closing mysqld for writes")
			return false
		}
	}
}

// awaitRejoin waits before another try: for the interval, the return of the
// majority, or a STOP.
func (m *Member) awaitRejoin(ctx context.Context) {
	end := time.Now().Add(m.timing.rejoinEvery)
	// A group that is there and does not let this member in is asked again only
	// after the interval.
	removed := m.opt.Node.Removed()
	back := !m.quorum(ctx, majorityEvery)
	for time.Now().Before(end) && ctx.Err() == nil && m.Wanted() {
		m.control.pause(ctx, min(2*majorityEvery, time.Until(end)))
		// One that lost its place meanwhile can ask to be let in again.
		if back && m.quorum(ctx, majorityEvery) || !removed && m.opt.Node.Removed() {
			return
		}
	}
}

// exit takes the exit action; the member stays out until a START.
func (m *Member) exit(ctx context.Context, cause error) {
	action := m.Policy().ExitAction
	if action == "" {
		action = ExitReadOnly
	}
	m.log.Error().Err(cause).Str("group_replication_exit_state_action", string(action)).
		Msg("this member is out of the group and stays out until START GROUP_REPLICATION")
	m.rejoining.Store(false)
	m.control.giveUp()
	m.fail(ctx)
	diverged := errors.Is(cause, ErrDiverged)
	if diverged {
		m.log.Error().Msg("this server must be provisioned anew before")
		m.gaveUp.Store(true)
	}
	switch {
	case action == ExitAbort:
		if err := m.shutDown(ctx); err != nil {
			m.log.Error().Err(err).Msg("could not shut mysqld down")
		}
		if m.opt.Failed != nil {
			m.opt.Failed(fmt.Errorf("%w: %w", ErrAborted, cause))
		}
	case action == ExitOffline:
		if err := m.setOffline(ctx); err != nil {
			m.log.Error().Err(err).Msg("could not put mysqld into offline_mode: its clients are not served")
			m.opt.Router.SetPlace(router.OnNone)
		}
	case diverged:
		// Nothing to read from: its clients are served by the group's primary.
		m.opt.Router.Resume()
		m.opt.Router.SetPlace(router.OnPrimary)
	}
}

// tellOut has the group know that this member is out, as soon as there is a
// majority, until ctx ends: its log goes on, so nobody else would find out.
func (m *Member) tellOut(ctx context.Context) {
	to := state.StateOffline
	err := m.LastError()
	if errors.Is(err, ErrDiverged) || errors.Is(err, mysqld.ErrApplier) {
		to = state.StateError
	}
	for {
		// A Join of its last try may be ordered late, so it is said again and again:
		// that of a START which had no majority and was given up, too.
		if errors.Is(err, errRows) {
			// This member's view is of long ago: what is ordered is not applied here.
			tell, cancel := context.WithTimeout(ctx, leaveTimeout)
			_ = m.opt.Node.ReportError(tell)
			cancel()
		} else if me, ok := m.opt.Node.View().Member(m.opt.ReplicaID); ok && inGroup(&me) {
			_ = m.opt.Node.SetMemberState(ctx, me.ID, me.Incarnation, to)
		}
		if pause.For(ctx, time.Second) != nil {
			return
		}
	}
}

// shutDown shuts the local mysqld down.
func (m *Member) shutDown(ctx context.Context) error {
	return m.onServer(ctx, func(ctx context.Context, l *life) error { return l.exec(ctx, "SHUTDOWN") })
}

// offlineMark is the file that says that offline_mode is this member's doing.
const offlineMark = "offline_mode"

func (m *Member) setOffline(ctx context.Context) error {
	if err := os.WriteFile(filepath.Join(m.opt.Dir, offlineMark), nil, 0o600); err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	return m.onServer(ctx, func(ctx context.Context, l *life) error {
		return mysqld.SetGlobals(ctx, l.conn, map[string]string{"offline_mode": "ON"})
	})
}

// liftOffline ends what setOffline began, also in an earlier process. An
// offline_mode that somebody else has set stays.
func (l *life) liftOffline(ctx context.Context) error {
	mark := filepath.Join(l.m.opt.Dir, offlineMark)
	if _, err := os.Stat(mark); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := mysqld.SetGlobals(ctx, l.conn, map[string]string{"offline_mode": "OFF"}); err != nil {
		return err
	}
	if err := os.Remove(mark); err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	return nil
}

// onServer runs f on a connection to the local mysqld.
func (m *Member) onServer(ctx context.Context, f func(context.Context, *life) error) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	l, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer l.disconnect()
	return f(ctx, l)
}
