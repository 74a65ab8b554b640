package e2e

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"cohort/internal/e2e/cluster"
	"cohort/internal/loadgen"
)

// noStaleReads stops the primary's processes, writes through another member, and lets
// them go on: what a client of the old primary asked meanwhile is not answered with
// what its server had.
func (g *group) noStaleReads(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	members := g.awaitOnline(t)
	old, err := cluster.Primary(members)
	if err != nil {
		t.Fatal(err)
	}
	other, err := cluster.Secondary(members)
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, other.Through("app", "plain"), "")
	execAll(t, db, "CREATE TABLE stale (id INT PRIMARY KEY)", "INSERT INTO stale VALUES (1)")
	const query = "SELECT MAX(id) FROM plain.stale"
	readers := make([]*loadgen.Conn, 8)
	for i := range readers {
		c, err := loadgen.Dial(ctx, old.Through("app", ""))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		readers[i] = c
		_ = c.SetDeadline(time.Now().Add(patience))
		if got, err := c.QueryString(query); err != nil || got != "1" {
			t.Fatalf("before: %q %v", got, err)
		}
	}
	signal := func(s syscall.Signal) error {
		return errors.Join(syscall.Kill(old.MysqldPid, s), syscall.Kill(old.Pid, s))
	}
	defer func() { _ = signal(syscall.SIGCONT) }()
	if err := signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := g.awaitStatus(ctx, func(now []cluster.Member) error { return replaced(now, old) }); err != nil {
		t.Fatal(err)
	}
	execAll(t, db, "INSERT INTO stale VALUES (2)")
	answers := make(chan error, len(readers))
	for _, c := range readers {
		go func() {
			got, err := c.QueryString(query)
			if err == nil && got != "2" {
				answers <- fmt.Errorf("a client of the old primary reads %s", got)
				return
			}
			if err != nil {
				err = fmt.Errorf("a client of the old primary: %w", err)
			}
			answers <- err
		}()
	}
	time.Sleep(100 * time.Millisecond) // the questions wait for it when it goes on
	if err := signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for range readers {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if err := g.returned(ctx, old); err != nil {
		t.Fatal(err)
	}
}
