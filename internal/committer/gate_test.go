package committer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/mysqld"
	"cohort/internal/mysqldtest"
	"cohort/internal/wire"
)

// passed collects what a Gate lets through.
type passed struct {
	mu   sync.Mutex
	jobs []Job
	more chan struct{}
}

func (p *passed) submit(js ...Job) {
	p.mu.Lock()
	p.jobs = append(p.jobs, js...)
	p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
}

func (p *passed) xids() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, j := range p.jobs {
		out = append(out, j.XID+j.Literal)
	}
	slices.Sort(out)
	return out
}

// until waits until exactly these have passed.
func (p *passed) until(t *testing.T, want ...string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !slices.Equal(p.xids(), want) {
		select {
		case <-p.more:
		case <-deadline:
			t.Fatalf("passed %q, want %q", p.xids(), want)
		}
	}
}

func newPassed() *passed { return &passed{more: make(chan struct{}, 1)} }

func TestGateWaitsForTheSession(t *testing.T) {
	p := newPassed()
	g := NewGate(GateOptions{Submit: p.submit, Logger: zerolog.Nop()})
	g.Prepared("early")
	g.Submit(Job{Kind: Commit, XID: "early", N: 1}, Job{Kind: Commit, XID: "late", N: 2}, Job{Kind: Rollback, XID: "gone"}, Job{Kind: Empty, N: 3})
	if got := p.xids(); !slices.Equal(got, []string{"", "early"}) {
		t.Fatalf("passed %q", got)
	}
	g.Prepared("late")
	g.Prepared("late")
	if got := p.xids(); !slices.Equal(got, []string{"", "early", "late"}) {
		t.Fatalf("passed %q", got)
	}
}

// Where no session speaks, mysqld is asked; what it still prepares stays.
func TestGateAsksMysqld(t *testing.T) {
	p := newPassed()
	var mu sync.Mutex
	running := []string{"XA PREPARE 'cohort.b'", "xa prepare " + Quote("cohort.c")}
	g := NewGate(GateOptions{Submit: p.submit, Logger: zerolog.Nop(), Preparing: func(context.Context) ([]string, error) {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(running), nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	g.Submit(Job{Kind: Commit, XID: "cohort.a", N: 1}, Job{Kind: Commit, XID: "cohort.b", N: 2}, Job{Kind: Rollback, XID: "cohort.c"}, Job{Kind: Rollback, Literal: "X'00',X'00',7"})
	p.until(t, "X'00',X'00',7", "cohort.a")
	mu.Lock()
	running = running[1:]
	mu.Unlock()
	p.until(t, "X'00',X'00',7", "cohort.a", "cohort.b")
	mu.Lock()
	running = nil
	mu.Unlock()
	p.until(t, "X'00',X'00',7", "cohort.a", "cohort.b", "cohort.c")
	g.Submit(Job{Kind: Commit, XID: "cohort.d", N: 3}) // after the gate was empty
	p.until(t, "X'00',X'00',7", "cohort.a", "cohort.b", "cohort.c", "cohort.d")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Word without a verdict is forgotten after two generations, and then costs a
// question only.
func TestGateForgets(t *testing.T) {
	g := NewGate(GateOptions{Submit: func(...Job) {}, Logger: zerolog.Nop()})
	g.Prepared("a")
	g.turn()
	if !g.take("a") {
		t.Error("forgotten after one generation")
	}
	g.Prepared("b")
	g.turn()
	g.turn()
	if g.take("b") || len(g.fresh)+len(g.stale) != 0 {
		t.Error("kept after two generations")
	}
}

// TestVerdictWaitsForPrepare hands each verdict in while XA PREPARE runs, as the
// group does, which hears of it through the binary log. Without the gate mysqld
// 9.7.4 answers some XA COMMITs with OK and leaves their branches prepared in
// InnoDB, unknown to XA RECOVER; binlog_order_commits=OFF, which a primary runs
// with, makes that likely.
func TestVerdictWaitsForPrepare(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "SET GLOBAL super_read_only=OFF", "SET GLOBAL read_only=OFF", "SET GLOBAL binlog_order_commits=OFF", "SET GLOBAL innodb_lock_wait_timeout=5", "CREATE DATABASE IF NOT EXISTS test", "CREATE TABLE test.t (id INT PRIMARY KEY, v INT)",
		"INSERT INTO test.t VALUES (0,0),(1,0),(2,0),(3,0)")
	const sessions, each, rows = 32, 100, 4
	db, err := mysqld.Open(s.Socket, "root", "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	col := &collector{all: make(chan struct{}), want: sessions * each}
	c := New(Options{Dial: dialer(s), GroupName: group, Done: col.add, Logger: zerolog.Nop()})
	g := NewGate(GateOptions{Submit: c.Submit, Logger: zerolog.Nop(),
		Preparing: func(ctx context.Context) ([]string, error) { return mysqld.Preparing(ctx, db) }})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = c.Run(ctx) })
	wg.Go(func() { _ = g.Run(ctx) })
	var workers sync.WaitGroup
	var failed sync.Once
	for w := range sessions {
		workers.Go(func() {
			conn, err := wire.Dial(ctx, wire.Config{Network: "unix", Addr: s.Socket, User: "root"})
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for i := range each {
				n := w*each + i + 1
				xid := fmt.Sprintf("cohort.g.1.%d.r", n)
				q := Quote(xid)
				rs, err := conn.Pipeline(ctx, "XA START "+q, fmt.Sprintf("UPDATE test.t SET v=v+1 WHERE id=%d", w%rows), "XA END "+q)
				if err != nil || firstError(rs) != nil {
					failed.Do(func() { t.Error(err, firstError(rs)) })
					return
				}
				// Some come while PREPARE is being logged, or right after.
				time.AfterFunc(time.Duration(i)*4*time.Microsecond, func() { g.Submit(Job{Kind: Commit, XID: xid, N: uint64(n)}) })
				rs, err = conn.Pipeline(ctx, "XA PREPARE "+q)
				if err != nil || firstError(rs) != nil {
					failed.Do(func() { t.Error(err, firstError(rs)) })
					return
				}
				if i%8 > 0 { // of every eighth nobody speaks
					g.Prepared(xid)
				}
			}
		})
	}
	workers.Wait()
	if t.Failed() {
		return
	}
	wait(t, col.all)
	if got := query(t, s, "SELECT SUM(v) FROM test.t"); got != fmt.Sprint(sessions*each) {
		t.Errorf("%s updates of %d", got, sessions*each)
	}
	if got := query(t, s, "SELECT COUNT(*) FROM information_schema.innodb_trx"); got != "0" {
		t.Errorf("%s transactions are left in InnoDB", got)
	}
}
