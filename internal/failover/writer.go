package failover

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cohort/internal/loadgen"
	"cohort/internal/pause"
)

const (
	schema = "failover"
	table  = schema + ".writes"
)

// tableStatements leave the id without a unique key, so that a write that was
// done twice shows as two rows.
var tableStatements = []string{
	"DROP DATABASE IF EXISTS " + schema,
	"CREATE DATABASE " + schema,
	"CREATE TABLE " + table + " (pk BIGINT AUTO_INCREMENT PRIMARY KEY, id BIGINT NOT NULL, KEY (id))",
}

// writer is a client that inserts one row after the other and never sends a row
// a second time.
type writer struct {
	limit time.Duration // for one answer

	mu      sync.Mutex
	writes  []write
	dropped int // connections that ended under it
	dials   int // attempts to connect that failed
}

// run writes until the context ends; the write that is under way then has its
// answer, or its limit.
func (w *writer) run(ctx context.Context, to loadgen.Target) {
	var c *loadgen.Conn
	defer func() {
		if c != nil {
			_ = c.Close()
		}
	}()
	for ctx.Err() == nil {
		if c == nil {
			var err error
			if c, err = dial(ctx, to); err != nil {
				c = nil
				w.mu.Lock()
				w.dials++
				w.mu.Unlock()
				_ = pause.For(ctx, 10*time.Millisecond)
				continue
			}
		}
		_ = c.SetDeadline(time.Now().Add(w.limit))
		err := w.insert(c)
		var se *loadgen.ServerError
		switch {
		case err == nil:
		case errors.As(err, &se):
			_ = pause.For(ctx, 5*time.Millisecond)
		default:
			_ = c.Close()
			c = nil
			w.mu.Lock()
			w.dropped++
			w.mu.Unlock()
		}
	}
}

func dial(ctx context.Context, to loadgen.Target) (*loadgen.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return loadgen.Dial(ctx, to)
}

func (w *writer) insert(c *loadgen.Conn) error {
	w.mu.Lock()
	id := len(w.writes) + 1 // this goroutine alone appends
	w.mu.Unlock()
	begun := time.Now()
	_, err := c.Query(fmt.Sprintf("INSERT INTO %s (id) VALUES (%d)", table, id))
	what, errno := classify(err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes = append(w.writes, write{begun: begun, answered: time.Now(), outcome: what, errno: errno})
	return err
}

// ackedSince counts the acknowledged writes that began after a moment.
func (w *writer) ackedSince(t time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for i := len(w.writes) - 1; i >= 0 && w.writes[i].begun.After(t); i-- {
		if w.writes[i].outcome == acked {
			n++
		}
	}
	return n
}

// await waits for n acknowledged writes that began after a moment; false means
// that they did not come within the limit.
func (w *writer) await(ctx context.Context, t time.Time, n int, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for w.ackedSince(t) < n {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return false
		}
		_ = pause.For(ctx, 5*time.Millisecond)
	}
	return true
}

// snapshot is the record so far. Writes are only ever appended.
func (w *writer) snapshot() (writes []write, dropped, dials int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes[:len(w.writes):len(w.writes)], w.dropped, w.dials
}

// prepare creates the table anew.
func prepare(ctx context.Context, to loadgen.Target) error {
	c, err := dial(ctx, to)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	for _, sql := range tableStatements {
		if _, err := c.Query(sql); err != nil {
			return fmt.Errorf("failover: %s: %w", sql, err)
		}
	}
	return nil
}
