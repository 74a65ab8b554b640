package mysqld

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cohort/internal/pause"
)

const errNoSuchThread = 1094 // ER_NO_SUCH_THREAD

// sessionsQuery lists clients' sessions and running events, not mysqld's own
// threads: neither the event scheduler nor replication.
const sessionsQuery = `SELECT PROCESSLIST_ID FROM performance_schema.threads
	WHERE PROCESSLIST_ID IS NOT NULL AND PROCESSLIST_ID <> CONNECTION_ID()
	AND (NAME = 'thread/sql/one_connection' OR NAME LIKE 'thread/thread_pool/%' OR NAME = 'thread/sql/event_worker')`

// KillSessions kills every client session that exists when it is called, except
// its own and those in keep, and returns when all are gone: only then can none
// of them write any more. Sessions that begin later are not touched; whoever
// needs that none can write sets super_read_only or offline_mode too. q must be
// one connection, not a pool, and may need SYSTEM_USER.
func KillSessions(ctx context.Context, q Querier, keep ...uint64) error {
	left, err := sessions(ctx, q)
	if err != nil {
		return err
	}
	left = slices.DeleteFunc(left, func(id uint64) bool { return slices.Contains(keep, id) })
	const step = 5 * time.Millisecond
	for round := 0; len(left) > 0; round++ {
		// Repeated every 200 ms, so that nothing depends on when a KILL arrives.
		if round%40 == 0 {
			for _, id := range left {
				if err := KillSession(ctx, q, id); err != nil {
					return err
				}
			}
		}
		now, err := sessions(ctx, q)
		if err != nil {
			return err
		}
		left = slices.DeleteFunc(left, func(id uint64) bool { return !slices.Contains(now, id) })
		if len(left) == 0 {
			break
		}
		if pause.For(ctx, step) != nil {
			return fmt.Errorf("%d sessions would not end: %w", len(left), ctx.Err())
		}
	}
	return nil
}

// Preparing returns the text of every XA PREPARE that is being run. It asks the
// list that mysqld itself keeps: performance_schema may have no room for a session.
func Preparing(ctx context.Context, q Querier) ([]string, error) {
	rows, err := q.QueryContext(ctx, "SELECT INFO FROM information_schema.PROCESSLIST WHERE INFO LIKE '%XA%PREPARE%' AND ID <> CONNECTION_ID()")
	if err != nil {
		return nil, fmt.Errorf("list running statements: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var texts []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, fmt.Errorf("list running statements: %w", err)
		}
		texts = append(texts, text)
	}
	return texts, rows.Err()
}

// KillSession ends a session; one that has ended is no error.
func KillSession(ctx context.Context, q Querier, id uint64) error {
	if _, err := q.ExecContext(ctx, fmt.Sprintf("KILL CONNECTION %d", id)); err != nil && Errno(err) != errNoSuchThread {
		return fmt.Errorf("kill session %d: %w", id, err)
	}
	return nil
}

func sessions(ctx context.Context, q Querier) ([]uint64, error) { return ids(ctx, q, sessionsQuery) }

// ids reads one column of numbers.
func ids(ctx context.Context, q Querier, query string) ([]uint64, error) {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var list []uint64
	for rows.Next() {
		var id uint64
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		list = append(list, id)
	}
	return list, rows.Err()
}
