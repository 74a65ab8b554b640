package recovery

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"cohort/consensus/state"
	"cohort/internal/mysqld"
	"cohort/internal/pause"
)

// Reasons why a mysqld that runs is no use to the group.
var (
	errHung     = errors.New("mysqld does not answer")
	errDiskFull = errors.New("mysqld waits for space on its disk")
	errReadOnly = errors.New("mysqld has become read-only while it is the primary's")
)

const (
	// beatEvery is the pause between two looks at mysqld, beatTries how many in a row
	// must say the same before it is believed, hungTries how many must get no answer:
	// a busy machine has stalls of seconds.
	beatEvery = 500 * time.Millisecond
	beatTries = 3
	hungTries = 4
)

// beatWait is how long mysqld may take to answer a look. A variable for the tests
// only.
var beatWait = 2 * time.Second

// beat is one look at mysqld.
type beat struct {
	answered bool
	readOnly bool
	// secure is require_secure_transport.
	secure bool
	// stuck are the threads that are in a commit while mysqld says that its disk
	// is full.
	stuck []uint64
}

// vitals are what the latest beats had in common.
type vitals struct {
	unanswered, readOnly, full int
	stuck                      []uint64 // in all of the latest full beats
}

// take adds a beat and says what is wrong, nil for nothing. A mysqld that took
// its time once, was read-only for a moment, or commits something large, is well.
// writable says that it is the open primary's.
func (v *vitals) take(b beat, writable bool) error {
	if !b.answered {
		if v.unanswered++; v.unanswered >= hungTries {
			return fmt.Errorf("%w: %d tries of %s", errHung, v.unanswered, beatWait)
		}
		return nil
	}
	v.unanswered = 0
	if !b.readOnly || !writable {
		v.readOnly = 0
	} else if v.readOnly++; v.readOnly >= beatTries {
		return fmt.Errorf("%w; run SET GLOBAL super_read_only=OFF, read_only=OFF on a primary and never turn them on there", errReadOnly)
	}
	if v.full == 0 {
		v.stuck = b.stuck
	} else {
		v.stuck = slices.DeleteFunc(v.stuck, func(id uint64) bool { return !slices.Contains(b.stuck, id) })
	}
	switch {
	case len(v.stuck) > 0:
		v.full++
	case len(b.stuck) > 0: // others than before
		v.full, v.stuck = 1, b.stuck
	default:
		v.full = 0
	}
	if v.full >= beatTries {
		return fmt.Errorf("%w: free some, or make it larger", errDiskFull)
	}
	return nil
}

// pulse ends a life whose mysqld does not answer, cannot write for want of space,
// or takes no writes as the primary's, and tells the group at once: nobody else
// can know, and the end of the life may take a while. A mysqld that dies is
// noticed by whatever talks to it.
func (l *life) pulse(ctx context.Context) error {
	var v vitals
	said := false
	var conn *sql.Conn // a session of its own, that no other statement holds up
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	for {
		if err := pause.For(ctx, beatEvery); err != nil {
			return err
		}
		try, cancel := context.WithTimeout(ctx, beatWait)
		var b beat
		var err error
		if conn == nil {
			conn, err = l.pool.Conn(try)
		}
		if err == nil {
			if b, err = look(try, conn); b.answered {
				l.m.secure.Store(b.secure)
			}
		}
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			// An error of mysqld's is an answer.
			b = beat{answered: mysqld.Errno(err) != 0}
			if conn != nil {
				_ = conn.Close()
				conn = nil
			}
		}
		err = v.take(b, l.writable.Load())
		switch {
		case err == nil:
			said = false
		case l.alone():
			// Nobody could take over, and what waits may go on yet.
			if !said {
				l.log.Error().Err(err).Msg("no other member could take over: waiting for this server")
			}
			said = true
		default:
			l.log.Error().Err(err).Msg("this server is no use to the group: telling it so")
			l.report(ctx, err)
			return err
		}
	}
}

// alone says that no other member is ONLINE.
func (l *life) alone() bool {
	return !slices.ContainsFunc(l.m.opt.Node.View().Members, func(m state.Member) bool {
		return m.ID != l.m.opt.ReplicaID && m.State == state.StateOnline
	})
}

// stuckQuery finds sessions and appliers in a commit. XA PREPARE has no state of
// its own; mysqld's own threads keep that of their last commit.
const stuckQuery = `SELECT THREAD_ID FROM performance_schema.threads
	WHERE PROCESSLIST_ID IS NOT NULL AND PROCESSLIST_TIME >= 1 AND PROCESSLIST_COMMAND <> 'Sleep'
	AND (PROCESSLIST_STATE = 'waiting for handler commit' OR PROCESSLIST_INFO LIKE 'XA PREPARE%' OR PROCESSLIST_INFO LIKE 'XA COMMIT%')`

// fullQuery finds what mysqld says while it waits for space (EE_DISK_FULL_WITH_RETRY_MSG);
// it repeats it every 10 minutes.
const fullQuery = `SELECT COUNT(*) FROM performance_schema.error_log
	WHERE ERROR_CODE = 'MY-000035' AND LOGGED > NOW(6) - INTERVAL 11 MINUTE`

// look asks what needs no lock, no write and no transaction.
func look(ctx context.Context, c *sql.Conn) (b beat, err error) {
	if err := c.QueryRowContext(ctx, "SELECT @@GLOBAL.super_read_only OR @@GLOBAL.read_only, @@GLOBAL.require_secure_transport").Scan(&b.readOnly, &b.secure); err != nil {
		return b, err
	}
	b.answered = true
	rows, err := c.QueryContext(ctx, stuckQuery)
	if err != nil {
		return b, err
	}
	defer rows.Close()
	for rows.Next() {
		var id uint64
		if err := rows.Scan(&id); err != nil {
			return b, err
		}
		b.stuck = append(b.stuck, id)
	}
	if err := rows.Err(); err != nil || len(b.stuck) == 0 {
		return b, err
	}
	var said int
	if err := c.QueryRowContext(ctx, fullQuery).Scan(&said); err != nil {
		return b, err
	}
	if said == 0 {
		b.stuck = nil
	}
	return b, nil
}
