package mysqld_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"cohort/internal/mysqld"
	"cohort/internal/mysqldtest"
)

// A plain session stands for the applier's worker: the locks are the same.
func TestBlockers(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "SET GLOBAL super_read_only=OFF", "SET GLOBAL read_only=OFF", "CREATE DATABASE c",
		"CREATE TABLE c.t (id INT PRIMARY KEY, v INT)", "CREATE TABLE c.other (id INT PRIMARY KEY)", "INSERT INTO c.t VALUES (1,1),(2,2)")
	const update, alter = "UPDATE c.t SET v=v+1 WHERE id=1", "ALTER TABLE c.t COMMENT='x'"
	for _, tc := range []struct {
		name     string
		hold     []string
		blocked  string
		lock     string // part of its description
		backup   bool
		prepared bool
		release  string
	}{
		{"row for update", []string{"BEGIN", "SELECT * FROM c.t WHERE id=1 FOR UPDATE"}, update, "RECORD lock c.t PRIMARY (1)", false, false, "ROLLBACK"},
		{"row for share", []string{"BEGIN", "SELECT * FROM c.t FOR SHARE"}, update, "RECORD lock c.t", false, false, "ROLLBACK"},
		{"update", []string{"BEGIN", update}, update, "RECORD lock c.t", false, false, "ROLLBACK"},
		{"prepared row", []string{"XA START 'x'", update, "XA END 'x'", "XA PREPARE 'x'"}, update, "RECORD lock c.t", false, true, "XA ROLLBACK 'x'"},
		{"prepared table", []string{"XA START 'x'", update, "XA END 'x'", "XA PREPARE 'x'"}, alter, "SHARED_WRITE TABLE c.t", false, true, "XA ROLLBACK 'x'"},
		{"lock tables read", []string{"LOCK TABLES c.t READ"}, update, "SHARED_READ_ONLY TABLE c.t", false, false, "UNLOCK TABLES"},
		{"lock tables write", []string{"LOCK TABLES c.t WRITE"}, update, "SHARED_NO_READ_WRITE TABLE c.t", false, false, "UNLOCK TABLES"},
		{"flush tables for export", []string{"FLUSH TABLES c.t FOR EXPORT"}, update, "TABLE c.t", false, false, "UNLOCK TABLES"},
		{"transaction that read", []string{"BEGIN", "SELECT * FROM c.t"}, alter, "SHARED_READ TABLE c.t", false, false, "ROLLBACK"},
		{"global read lock", []string{"FLUSH TABLES WITH READ LOCK"}, update, "SHARED GLOBAL", true, false, "UNLOCK TABLES"},
		{"backup lock", []string{"LOCK INSTANCE FOR BACKUP"}, alter, "SHARED BACKUP LOCK", true, false, "UNLOCK INSTANCE"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q, holder, idle, waiter := connTo(t, s.DB(t)), connTo(t, s.DB(t)), connTo(t, s.DB(t)), connTo(t, s.DB(t))
			number := func(c *sql.Conn, expr string) (n uint64) {
				t.Helper()
				if err := c.QueryRowContext(ctxFor(t), "SELECT "+expr).Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n
			}
			run := func(c *sql.Conn, stmts ...string) {
				t.Helper()
				for _, x := range stmts {
					if _, err := c.ExecContext(ctxFor(t), x); err != nil {
						t.Fatalf("%s: %v", x, err)
					}
				}
			}
			thread, want := number(waiter, "PS_CURRENT_THREAD_ID()"), number(holder, "CONNECTION_ID()")
			// Somebody with other locks is in nobody's way.
			run(idle, "BEGIN", "SELECT * FROM c.other")
			run(holder, tc.hold...)
			if list, err := mysqld.Blockers(ctxFor(t), q, []uint64{thread}); err != nil || len(list) > 0 {
				t.Fatalf("before anybody waits: %+v, %v", list, err)
			}
			done := make(chan error, 1)
			ctx := ctxFor(t)
			go func() {
				_, err := waiter.ExecContext(ctx, tc.blocked)
				done <- err
			}()
			var list []mysqld.Blocker
			waitFor(t, func() bool {
				var err error
				time.Sleep(mysqld.BlockersSpacing)
				if list, err = mysqld.Blockers(ctxFor(t), q, []uint64{thread}); err != nil {
					t.Fatal(err)
				}
				return len(list) > 0
			})
			for _, b := range list {
				if !strings.Contains(b.Lock, tc.lock) || b.Backup != tc.backup || b.Prepared != tc.prepared {
					t.Errorf("%+v", b)
				}
				if !tc.prepared && (b.Session != want || b.Statement != tc.hold[len(tc.hold)-1] || b.User != "root@localhost") {
					t.Errorf("%+v, want session %d", b, want)
				}
			}
			if !tc.prepared {
				if err := mysqld.KillSession(context.Background(), q, want); err != nil {
					t.Fatal(err)
				}
			} else {
				run(holder, tc.release)
			}
			if err := <-done; err != nil {
				t.Errorf("after the lock is free: %v", err)
			}
			run(idle, "ROLLBACK")
		})
	}
}

// Who waits for more than it has is served before later ones: then it is in their
// way, and not whom it waits for.
func TestBlockersThatQueue(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "SET GLOBAL super_read_only=OFF", "SET GLOBAL read_only=OFF", "CREATE DATABASE c", "CREATE TABLE c.t (id INT PRIMARY KEY)")
	reader, locker, writer, q := connTo(t, s.DB(t)), connTo(t, s.DB(t)), connTo(t, s.DB(t)), connTo(t, s.DB(t))
	var thread, want uint64
	if err := errors.Join(
		writer.QueryRowContext(ctxFor(t), "SELECT PS_CURRENT_THREAD_ID()").Scan(&thread),
		locker.QueryRowContext(ctxFor(t), "SELECT CONNECTION_ID()").Scan(&want)); err != nil {
		t.Fatal(err)
	}
	for _, x := range []string{"BEGIN", "SELECT * FROM c.t"} {
		if _, err := reader.ExecContext(ctxFor(t), x); err != nil {
			t.Fatal(err)
		}
	}
	ctx, ended := ctxFor(t), make(chan error, 2)
	start := func(c *sql.Conn, x string) { _, err := c.ExecContext(ctx, x); ended <- err }
	go start(locker, "LOCK TABLES c.t WRITE")
	waitFor(t, func() bool {
		return s.Value(t, "SELECT COUNT(*) FROM performance_schema.metadata_locks WHERE LOCK_STATUS='PENDING'") == "1"
	})
	go start(writer, "INSERT INTO c.t VALUES (1)")
	var list []mysqld.Blocker
	waitFor(t, func() bool {
		var err error
		time.Sleep(mysqld.BlockersSpacing)
		if list, err = mysqld.Blockers(ctxFor(t), q, []uint64{thread}); err != nil {
			t.Fatal(err)
		}
		return len(list) > 0
	})
	if len(list) != 1 || list[0].Session != want || list[0].Lock != "waits for SHARED_NO_READ_WRITE TABLE c.t" {
		t.Errorf("%+v, want session %d", list, want)
	}
	if err := mysqld.KillSession(ctxFor(t), q, want); err != nil {
		t.Fatal(err)
	}
	if a, b := <-ended, <-ended; (a == nil) == (b == nil) {
		t.Errorf("one ends with its session, the other goes on: %v, %v", a, b)
	}
}
