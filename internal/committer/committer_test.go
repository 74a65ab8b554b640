package committer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/mysqldtest"
	"cohort/internal/wire"
)

const group = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

func dialer(s *mysqldtest.Server) func(context.Context) (Conn, error) {
	return func(ctx context.Context) (Conn, error) {
		c, err := wire.Dial(ctx, wire.Config{Network: "unix", Addr: s.Socket, User: "root"})
		if err != nil {
			return nil, err
		}
		if _, err := c.Exec(ctx, "SET SESSION session_track_gtids=OWN_GTID"); err != nil {
			return nil, err
		}
		return c, nil
	}
}

// collector gathers finished jobs.
type collector struct {
	mu   sync.Mutex
	done []Job
	all  chan struct{}
	want int
}

func (c *collector) add(j Job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done = append(c.done, j); len(c.done) == c.want {
		close(c.all)
	}
}

func start(t *testing.T, s *mysqldtest.Server, want int) (*Committer, *collector, <-chan error) {
	t.Helper()
	col := &collector{all: make(chan struct{}), want: want}
	c := New(Options{Dial: dialer(s), Conns: 4, GroupName: group, Done: col.add, Logger: zerolog.Nop()})
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	go func() { errs <- c.Run(ctx) }()
	t.Cleanup(cancel)
	return c, col, errs
}

func wait(t *testing.T, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(3 * time.Minute):
		t.Fatal("the jobs were not finished in time")
	}
}

// prepare leaves a transaction that inserts id prepared under xid.
func prepare(t *testing.T, s *mysqldtest.Server, xid string, id int) {
	t.Helper()
	ctx := t.Context()
	c, err := wire.Dial(ctx, wire.Config{Network: "unix", Addr: s.Socket, User: "root"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := Quote(xid)
	for _, sql := range []string{"XA START " + q, fmt.Sprintf("INSERT INTO test.t VALUES (%d)", id), "XA END " + q, "XA PREPARE " + q} {
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func query(t *testing.T, s *mysqldtest.Server, sql string) string {
	t.Helper()
	c, err := wire.Dial(t.Context(), wire.Config{Network: "unix", Addr: s.Socket, User: "root"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Query(t.Context(), sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return r.Str(0, 0)
}

func TestCommitterCarriesOutVerdicts(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "SET GLOBAL super_read_only=OFF", "SET GLOBAL read_only=OFF", "CREATE DATABASE IF NOT EXISTS test", "CREATE TABLE test.t (id INT PRIMARY KEY)")
	c, col, _ := start(t, s, 7)
	for i := 1; i <= 4; i++ {
		prepare(t, s, fmt.Sprintf("cohort.x.1.%d.r", i), i)
	}
	// The verdict of 5 overtakes its PREPARE: the committer has to try again.
	c.Submit(Job{Kind: Commit, XID: "cohort.x.1.5.r", N: 5})
	c.Submit(Job{Kind: Commit, XID: "cohort.x.1.1.r", N: 1}, Job{Kind: Commit, XID: "cohort.x.1.2.r", N: 2})
	c.Submit(Job{Kind: Rollback, XID: "cohort.x.1.3.r"})
	c.Submit(Job{Kind: Empty, N: 3}, Job{Kind: Commit, XID: "cohort.x.1.4.r", N: 4})
	prepare(t, s, "cohort.x.1.5.r", 5)
	c.Submit(Job{Kind: Empty, N: 6})
	wait(t, col.all)
	if got := query(t, s, "SELECT GROUP_CONCAT(id ORDER BY id) FROM test.t"); got != "1,2,4,5" {
		t.Errorf("rows %s", got)
	}
	if got := query(t, s, "SELECT GTID_SUBSET('"+group+":1-6', @@gtid_executed)"); got != "1" {
		t.Errorf("gtid_executed lacks group transactions: %s", query(t, s, "SELECT @@gtid_executed"))
	}
	if got := query(t, s, "XA RECOVER"); got != "" {
		t.Errorf("a transaction is still prepared: %s", got)
	}
}

// A commit whose GTID is already executed does nothing but answers OK; it must
// not pass for done (DESIGN §9.4).
func TestCommitterDemandsProof(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "SET GLOBAL super_read_only=OFF", "SET GLOBAL read_only=OFF", "CREATE DATABASE IF NOT EXISTS test", "CREATE TABLE test.t (id INT PRIMARY KEY)")
	s.SQL(t, "SET gtid_next='"+group+":1'", "BEGIN", "COMMIT", "SET gtid_next='AUTOMATIC'")
	prepare(t, s, "cohort.x.1.1.r", 1)
	c, col, errs := start(t, s, 1)
	c.Submit(Job{Kind: Commit, XID: "cohort.x.1.1.r", N: 1})
	select {
	case err := <-errs:
		if !errors.Is(err, ErrUnproven) {
			t.Fatalf("Run: %v", err)
		}
	case <-col.all:
		t.Fatal("a commit that did nothing was reported as done")
	case <-time.After(3 * time.Minute):
		t.Fatal("no answer in time")
	}
}

func TestQuoteIsSafe(t *testing.T) {
	if got := Quote("a'\x00"); got != "X'612700'" {
		t.Fatal(got)
	}
}
