// Package committer carries out the group's verdicts on the mysqld of this
// member: XA COMMIT under the group's GTID, XA ROLLBACK, and the empty
// transaction that takes the GTID of a direct statement.
//
// It owns a small set of privileged connections. It decides nothing: every job
// is a verdict of the ordered log. It must never be given a job of an earlier
// incarnation of this member (the start-up sequence settles those).
package committer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/wire"
)

// Errors of MySQL that the committer treats specially.
const (
	errXAERNotA        = 1397 // the PREPARE has not ended yet, or the branch is gone
	errLockWaitTimeout = 1205 // FLUSH TABLES WITH READ LOCK blocks XA COMMIT; it stays prepared
	errXAERRMFail      = 1399 // the branch is still attached to a session that has not ended PREPARE
	errXAERProto       = 1402
	errLockDeadlock    = 1213
	errQueryInterrupt  = 1317
)

// ErrUnproven means that mysqld answered OK to a commit but did not prove it
// with the GTID: the transaction may still be prepared. The member has to run
// its start-up sequence again, which settles it.
var ErrUnproven = errors.New("committer: XA COMMIT was answered without its GTID")

// maxTries bounds how long a job waits for mysqld to be ready (about a minute
// at the longest pause); then the start-up sequence settles it.
const maxTries = 3000

// maxRollbackTries is how often (about two seconds) a rollback waits for its
// branch to appear.
const maxRollbackTries = 100

// Kind says what a Job does.
type Kind uint8

// The kinds of jobs.
const (
	// Commit is XA COMMIT of the job's xid under group:N.
	Commit Kind = iota
	// Rollback is XA ROLLBACK of the job's xid.
	Rollback
	// Empty commits an empty transaction under group:N: it stands for a direct
	// statement that mysqld has already run under a local GTID.
	Empty
)

// Job is one verdict to carry out.
type Job struct {
	Kind Kind
	XID  string // for Commit and Rollback: the gtrid; bqual is empty, formatID 1
	// Literal, for a Rollback of an xid that is not cohort's, is the whole xid as
	// XA statements take it: X'..',X'..',n.
	Literal string
	N       uint64 // for Commit and Empty: the number within the group
	// LocalGTID is that of the direct statement that Empty stands for.
	LocalGTID string
}

// Conn is a privileged connection that can write several commands at once.
type Conn interface {
	Pipeline(ctx context.Context, sqls ...string) ([]wire.Reply, error)
	Close() error
}

// Options configure a Committer.
type Options struct {
	// Dial opens a privileged connection to the local mysqld with
	// session_track_gtids=OWN_GTID.
	Dial func(ctx context.Context) (Conn, error)
	// Conns is the number of connections (default 64): as many commits as can
	// share one flush of mysqld's logs.
	Conns int
	// GroupName is the UUID of the group's GTIDs.
	GroupName string
	// Done is called, from any goroutine, when a job is carried out and, for
	// Commit and Empty, visible on the local mysqld.
	Done func(Job)
	// RetryInterval is the pause before a job that mysqld is not ready for is
	// tried again (default 200 µs, doubling to 20 ms).
	RetryInterval time.Duration
	Logger        zerolog.Logger
}

// Committer carries out jobs over its connections, in parallel and in no
// particular order.
type Committer struct {
	opt  Options
	jobs queue
}

// New returns a Committer; it does nothing before Run.
func New(opt Options) *Committer {
	if opt.Conns <= 0 {
		opt.Conns = 64
	}
	if opt.RetryInterval <= 0 {
		opt.RetryInterval = 200 * time.Microsecond
	}
	return &Committer{opt: opt}
}

// Submit queues a job. It never blocks: what is queued is bounded by the
// number of sessions, each of which waits for one verdict.
func (c *Committer) Submit(jobs ...Job) { c.jobs.push(jobs) }

// Backlog is the number of jobs that wait for a connection.
func (c *Committer) Backlog() int { return c.jobs.len() }

// Run works until ctx ends or a connection fails; in both cases jobs not yet
// done are dropped, since a new start-up sequence settles them from the log.
func (c *Committer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, c.jobs.close)
	defer stop()
	var wg sync.WaitGroup
	for range c.opt.Conns {
		wg.Go(func() {
			if err := c.work(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// work runs one connection, opened when the first job reaches it.
func (c *Committer) work(ctx context.Context) error {
	var conn Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	me := newTaker()
	for {
		job, ok := c.jobs.pop(me)
		if !ok {
			return nil
		}
		if conn == nil {
			var err error
			if conn, err = c.opt.Dial(ctx); err != nil {
				return fmt.Errorf("committer: connect to mysqld: %w", err)
			}
		}
		if err := c.do(ctx, conn, job); err != nil {
			return err
		}
		if c.opt.Done != nil {
			c.opt.Done(job)
		}
	}
}

// do carries out one job, trying again while mysqld is not ready for it.
func (c *Committer) do(ctx context.Context, conn Conn, job Job) error {
	stmts := Statements(c.opt.GroupName, job)
	pause := c.opt.RetryInterval
	for try := 1; ; try++ {
		replies, err := conn.Pipeline(ctx, stmts...)
		if err != nil {
			return fmt.Errorf("committer: %w", err)
		}
		failed := firstError(replies)
		if failed == nil {
			return c.prove(job, replies)
		}
		if job.Kind == Rollback && wire.ErrorCode(failed) == errXAERNotA && try > maxRollbackTries {
			// Nothing is left to roll back: its session gave it up before it was
			// prepared for good.
			return nil
		}
		if try > maxTries {
			return fmt.Errorf("%w: %s gave %w after %d tries", ErrUnproven, stmts[len(stmts)-1], failed, try)
		}
		switch wire.ErrorCode(failed) {
		case errXAERNotA, errLockWaitTimeout, errXAERRMFail, errXAERProto, errLockDeadlock, errQueryInterrupt:
		default:
			return fmt.Errorf("committer: %s: %w", stmts[len(stmts)-1], failed)
		}
		// A session that owns a GTID gives it back before it tries again.
		if _, err := conn.Pipeline(ctx, "ROLLBACK", "SET gtid_next='AUTOMATIC'"); err != nil {
			return fmt.Errorf("committer: %w", err)
		}
		if try%200 == 0 {
			c.opt.Logger.Warn().Str("xid", job.XID).Uint64("n", job.N).Err(failed).Int("tries", try).
				Msg("mysqld does not yet take the verdict of a prepared transaction")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		if pause *= 2; pause > 20*time.Millisecond {
			pause = 20 * time.Millisecond
		}
	}
}

// prove checks that mysqld says which GTID it committed: an XA COMMIT under a
// GTID that is already executed answers OK and does nothing.
func (c *Committer) prove(job Job, replies []wire.Reply) error {
	if job.Kind == Rollback {
		return nil
	}
	want := GTID(c.opt.GroupName, job.N)
	for _, r := range replies {
		if r.Err == nil && r.OK.Trackers.GTID() == want {
			return nil
		}
	}
	return fmt.Errorf("%w: %s, xid %s", ErrUnproven, want, job.XID)
}

// GTID is the text of group:n.
func GTID(group string, n uint64) string {
	return group + ":" + strconv.FormatUint(n, 10)
}

// Statements are the SQL statements of a job, to be written in one burst.
func Statements(group string, job Job) []string {
	switch job.Kind {
	case Commit:
		return []string{"SET gtid_next='" + GTID(group, job.N) + "'", "XA COMMIT " + Quote(job.XID)}
	case Empty:
		return []string{"SET gtid_next='" + GTID(group, job.N) + "'", "BEGIN", "COMMIT"}
	default:
		xid := job.Literal
		if xid == "" {
			xid = Quote(job.XID)
		}
		return []string{"SET gtid_next='AUTOMATIC'", "XA ROLLBACK " + xid}
	}
}

// Quote writes an xid as a hexadecimal literal, safe for any bytes.
func Quote(xid string) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 2*len(xid)+3)
	out = append(out, "X'"...)
	for i := range len(xid) {
		out = append(out, digits[xid[i]>>4], digits[xid[i]&15])
	}
	return string(append(out, '\''))
}

func firstError(replies []wire.Reply) error {
	for _, r := range replies {
		if r.Err != nil {
			return r.Err
		}
	}
	return nil
}
