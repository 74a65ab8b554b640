package recovery

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"cohort/consensus/state"
	"cohort/internal/applied"
	"cohort/internal/binlog/capture"
	"cohort/internal/mysqld"
	"cohort/internal/mysqlversion"
	"cohort/router"
)

// life is one life of mysqld as a member: from the Join that fences what was
// before to the end of mysqld or of this process.
type life struct {
	m    *Member
	log  zerolog.Logger
	pool *sql.DB   // administrator's connections
	conn *sql.Conn // one of them, for what must be one session
	// connMu is held where goroutines share conn: two statements at once on it
	// would end the life.
	connMu sync.Mutex
	id     mysqld.Identity
	// settings are those that all members must share.
	settings string

	incarnation uint64
	// epoch is the one that this life is, or is becoming, the primary of; 0 for a
	// secondary. A life is primary once at most.
	epoch atomic.Uint64
	// joinedAt is the last number ordered before this life.
	joinedAt uint64
	// scanned is where the binary log stood when it was last read for statements
	// that the group did not order, local what mysqld had executed then, or a
	// little before, beside the group's transactions.
	scanned capture.StartAt
	local   string

	// lastly is what a primary still has to do when it is replaced; nil for nothing.
	lastly atomic.Pointer[func(context.Context)]

	feeding, marking bool // the feed channel runs; watermarks are reported

	// writable: mysqld takes writes as the primary's, until another is appointed.
	writable atomic.Bool
	// reported: this life has told the group its end itself.
	reported atomic.Bool
}

// connect opens what a life works with; disconnect closes it.
func (m *Member) connect(ctx context.Context) (*life, error) {
	pool, err := mysqld.Open(m.opt.Socket, m.opt.AdminUser, m.opt.AdminPassword)
	if err != nil {
		return nil, err
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to mysqld: %w", err), pool.Close())
	}
	return &life{m: m, log: m.log, pool: pool, conn: conn}, nil
}

func (l *life) disconnect() {
	_ = l.conn.Close()
	_ = l.pool.Close()
}

// shut ends what applies and whoever is connected, and makes mysqld read-only:
// the sessions go first, since super_read_only waits behind rows that are prepared
// and undecided (DESIGN §9.9).
func (l *life) shut(ctx context.Context) error {
	if err := l.stopReplication(ctx); err != nil {
		return err
	}
	if err := mysqld.KillSessions(ctx, l.conn); err != nil {
		return err
	}
	return l.setReadOnly(ctx)
}

// stopReplication stops what applies. STOP REPLICA waits for an applier that waits for
// a lock, for as long as somebody holds that: whoever it is is killed before.
func (l *life) stopReplication(ctx context.Context) error {
	for {
		if err := mysqld.KillSessions(ctx, l.conn); err != nil {
			return err
		}
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := mysqld.StopReplication(try, l.pool)
		late := try.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil {
			return err
		}
	}
}

// live runs one life and returns why it ended.
func (m *Member) live(ctx context.Context) (err error) {
	l, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer l.disconnect()
	if err := l.prepare(ctx); err != nil {
		return err
	}
	if err := l.comeIn(ctx); err != nil {
		return err
	}
	// From here on the group knows of this life: an end that is this server's
	// own fault is reported.
	err = l.serve(ctx)
	if ctx.Err() != nil {
		return err
	}
	if l.replaced() && !errors.Is(err, errReplaced) && !errors.Is(err, ErrDiverged) {
		err = fmt.Errorf("%w; %w", errReplaced, err)
	}
	l.report(ctx, err)
	return err
}

// comeIn fences what was before and has this life's incarnation ordered. Clients that
// read on mysqld while this member was out would be killed by that: they wait for how
// it ends, and not sooner, since a member that cannot enter goes on serving them.
func (l *life) comeIn(ctx context.Context) (err error) {
	if rt := l.m.opt.Router; rt.Suspend() {
		defer func() {
			if err != nil {
				rt.SetPlace(router.OnLocal)
			}
		}()
	}
	if err := l.fence(ctx); err != nil {
		return err
	}
	if err := l.limited(ctx, l.join); err != nil {
		return err
	}
	l.m.entered()
	return nil
}

// limited runs a step that waits for the group. In a try to rejoin it has a time
// limit; the Join of one that failed may be ordered all the same, and the next one
// ends that incarnation.
func (l *life) limited(ctx context.Context, step func(context.Context) error) error {
	if !l.m.rejoining.Load() {
		return step(ctx)
	}
	try, cancel := context.WithTimeout(ctx, joinTries*l.m.timing.rejoinTry)
	defer cancel()
	err := step(try)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errNotLetIn, err)
	}
	return nil
}

// report tells the group how this life ended.
func (l *life) report(ctx context.Context, cause error) {
	if errors.Is(cause, errReplaced) || errors.Is(cause, errExpelled) || errors.Is(cause, errMajority) {
		return // the next life follows at once, or nobody would hear it
	}
	if l.reported.Swap(true) {
		return
	}
	to := state.StateOffline
	if errors.Is(cause, ErrDiverged) || errors.Is(cause, mysqld.ErrApplier) {
		to = state.StateError
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := l.m.opt.Node.SetState(ctx, to); err != nil {
		l.reported.Store(false)
		l.log.Debug().Err(err).Msg("could not report the end of this life")
	}
}

// prepare checks mysqld and gives it the account and the settings it needs.
func (l *life) prepare(ctx context.Context) (err error) {
	if l.id, err = mysqld.ReadIdentity(ctx, l.conn); err != nil {
		return err
	}
	if l.id.ServerUUID != l.m.opt.UUID {
		return fmt.Errorf("%w: server_uuid is %s, it was %s when this process started; restart cohort",
			mysqld.ErrSettings, l.id.ServerUUID, l.m.opt.UUID)
	}
	l.m.secure.Store(l.id.RequireSecureTransport)
	if err := l.liftOffline(ctx); err != nil {
		return err
	}
	if err := mysqld.Check(ctx, l.conn); err != nil {
		return err
	}
	if err := l.limited(ctx, l.enter); err != nil {
		return err
	}
	return l.admit(ctx)
}

// account sees to it that the member's own account exists. On a read-only
// mysqld that takes a moment without super_read_only. An administrator's
// session that comes in then and waits for a row which is prepared and
// undecided would hold up super_read_only's return until its lock wait ends
// (DESIGN §9.9), so what keeps this from its end is killed, and an account
// that this process has made before is left as it is.
func (l *life) account(ctx context.Context) error {
	if l.m.hasAccount && l.canLogIn(ctx) {
		return nil
	}
	var own uint64
	if err := l.conn.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&own); err != nil {
		return fmt.Errorf("prepare the member's account: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- mysqld.EnsureAccount(ctx, l.conn, AccountName, l.m.password) }()
	for {
		t := time.NewTimer(time.Second)
		select {
		case err := <-done:
			t.Stop()
			l.m.hasAccount = err == nil
			return err
		case <-t.C:
		}
		if err := l.killOthers(ctx, own); err != nil {
			l.log.Warn().Err(err).Msg("could not kill the sessions that hold up the start")
		}
	}
}

// killOthers kills every session but the life's own, from a connection of its
// own, also when ctx has ended: the life cannot end before that either.
func (l *life) killOthers(ctx context.Context, own uint64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	c, err := l.pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return mysqld.KillSessions(ctx, c, own)
}

func (l *life) canLogIn(ctx context.Context) bool {
	pool, err := mysqld.Open(l.m.opt.Socket, AccountName, l.m.password)
	if err != nil {
		return false
	}
	defer pool.Close()
	return pool.PingContext(ctx) == nil
}

// fence makes sure that nothing of an earlier life can write any more: first
// the sessions go, since super_read_only waits behind rows that are prepared
// and undecided (DESIGN §9.9), then what came in between.
func (l *life) fence(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := l.shut(ctx); err != nil {
		return err
	}
	if err := l.account(ctx); err != nil {
		return err
	}
	if err := mysqld.KillSessions(ctx, l.conn); err != nil {
		return err
	}
	// binlog_order_commits=ON keeps the applier's commit order (DESIGN §8).
	if err := mysqld.SetGlobals(ctx, l.conn, map[string]string{"binlog_order_commits": "ON"}); err != nil {
		return err
	}
	// What the relay log holds may have been cut by the crash; it is fetched
	// again.
	if err := mysqld.ResetFeedChannel(ctx, l.conn); err != nil {
		return err
	}
	return l.markScanned(ctx)
}

// markScanned notes where the binary log ends.
func (l *life) markScanned(ctx context.Context) (err error) {
	// In this order: what comes in between makes a later comparison fail, which
	// costs reading the binary log, and is never missed.
	if l.local, err = mysqld.LocalExecuted(ctx, l.conn, l.m.opt.GroupName); err != nil {
		return err
	}
	l.scanned, err = binlogEnd(ctx, l.conn, l.id.Number)
	return err
}

// setReadOnly sets super_read_only, also for mysqld's next start without us.
// Sessions that hold it up are killed until it succeeds.
func (l *life) setReadOnly(ctx context.Context) error {
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := mysqld.SetPersist(try, l.pool, map[string]string{"super_read_only": "ON", "skip_replica_start": "ON"})
		late := try.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil {
			return err
		}
		if err := mysqld.KillSessions(ctx, l.conn); err != nil {
			return err
		}
	}
}

// join founds the group if that is this member's task, and orders the
// incarnation: every proposal of an earlier life is rejected after it.
func (l *life) join(ctx context.Context) error {
	o := &l.m.opt
	executed, err := mysqld.GroupExecuted(ctx, l.conn, o.GroupName)
	if err != nil {
		return err
	}
	if !o.Node.View().Founded {
		if o.Bootstrap {
			base, err := mysqld.GTIDExecuted(ctx, l.conn)
			if err != nil {
				return err
			}
			if _, err := o.Node.Bootstrap(ctx, state.Bootstrap{Primary: o.ReplicaID, StartN: executed.Last(), Base: base, Settings: l.settings}); err != nil {
				return fmt.Errorf("found the group: %w", err)
			}
			l.log.Info().Str("group", o.GroupName).Msg("group founded")
		} else if err := l.waitFounded(ctx); err != nil {
			return err
		}
	}
	// The data set that the founder brought is everyone's beginning.
	var holdsBase bool
	if err := l.conn.QueryRowContext(ctx, "SELECT GTID_SUBSET(?, @@GLOBAL.gtid_executed)", o.Node.View().Base).Scan(&holdsBase); err != nil {
		return fmt.Errorf("compare gtid_executed with the group's beginning: %w", err)
	}
	if !holdsBase {
		return fmt.Errorf("%w: it lacks transactions that the founding member brought (%s)", ErrDiverged, o.Node.View().Base)
	}
	info := o.Info
	info.Weight = l.m.weight.Load()
	info.UUID, info.ServerVersion, info.MysqldVersion, info.ServerID = l.id.ServerUUID, uint64(l.id.Number), l.id.Version, uint64(l.id.ServerID)
	var epoch uint64
	told := l.m.tellFetch(ctx)
	l.incarnation, epoch, err = o.Node.Join(ctx, info)
	told()
	if err != nil {
		return fmt.Errorf("order this member's incarnation: %w", err)
	}
	v := o.Node.View()
	l.joinedAt = v.LastN
	l.log = l.log.With().Uint64("incarnation", l.incarnation).Logger()
	l.log.Info().Uint64("epoch", epoch).Uint64("last_ordered", v.LastN).Uint64("executed", executed.Low).Msg("member joined")
	// More than the group ordered is another history, whatever its name.
	if executed.Last() > v.LastN {
		return fmt.Errorf("%w: it has %s:%d, the group ordered up to %d", ErrDiverged, o.GroupName, executed.Last(), v.LastN)
	}
	return nil
}

func (l *life) waitFounded(ctx context.Context) error {
	l.log.Info().Msg("waiting for the group to be founded by its bootstrap member")
	for {
		changed := l.m.opt.Router.Changed()
		if l.m.opt.Node.View().Founded {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// serve settles the past, catches up, and runs this mysqld in its role.
func (l *life) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.watch(ctx) })
	g.Go(func() error { return l.pulse(ctx) })
	g.Go(func() error { return l.watchMajority(ctx) })
	g.Go(func() error { return l.followWeight(ctx) })
	g.Go(func() error {
		if err := l.settle(ctx); err != nil {
			return err
		}
		if err := l.catchUp(ctx); err != nil {
			return err
		}
		g.Go(func() error { return l.followDefinitions(ctx) })
		if !l.appointed() {
			if err := l.runSecondary(ctx, g); err != nil {
				return err
			}
		}
		return l.promote(ctx, g)
	})
	return g.Wait()
}

// settle decides what earlier lives left behind.
func (l *life) settle(ctx context.Context) error {
	if err := l.settlePrepared(ctx); err != nil {
		return err
	}
	if err := l.settleDirects(ctx); err != nil {
		return err
	}
	executed, err := mysqld.GroupExecuted(ctx, l.conn, l.m.opt.GroupName)
	if err != nil {
		return err
	}
	l.m.opt.Router.Tracker(l.m.opt.ReplicaID).Reset(setOf(executed))
	return nil
}

func setOf(s mysqld.GroupSet) applied.Set {
	set := applied.Set{Low: s.Low}
	for _, n := range s.Extra {
		if k := len(set.Extra); k > 0 && set.Extra[k-1].To+1 == n {
			set.Extra[k-1].To = n
			continue
		}
		set.Extra = append(set.Extra, applied.Range{From: n, To: n})
	}
	return set
}

// binlogEnd is where mysqld will write its next event.
func binlogEnd(ctx context.Context, q mysqld.Querier, version mysqlversion.Version) (capture.StartAt, error) {
	stmt := version.BinlogStatus()
	rows, err := q.QueryContext(ctx, stmt)
	if err != nil {
		return capture.StartAt{}, fmt.Errorf("%s: %w", stmt, err)
	}
	defer rows.Close()
	var at capture.StartAt
	var ignore sql.RawBytes
	if !rows.Next() {
		return at, fmt.Errorf("%s: no rows, is the binary log off? %w", stmt, rows.Err())
	}
	if err := rows.Scan(&at.File, &at.Pos, &ignore, &ignore, &ignore); err != nil {
		return at, fmt.Errorf("%s: %w", stmt, err)
	}
	return at, nil
}
