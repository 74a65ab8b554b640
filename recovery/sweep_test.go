package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/binlog"
	"cohort/internal/committer"
	"cohort/internal/mysqld"
	"cohort/router"
)

// often is how often the tests look for what was left behind.
const often = time.Second

// withSweeps starts a group that looks for transactions left behind at such
// intervals.
func withSweeps(t *testing.T, every time.Duration, servers, voters int) *testGroup {
	t.Helper()
	g := emptyGroup(t)
	g.sweepEvery = every
	return tableIn(startGroup(g, servers, voters))
}

// leave prepares a transaction as the proxy of via would, and ends its session
// before anyone asks for a verdict.
func (g *testGroup) leave(via *testMember, before string, stmts ...string) (xid string) {
	g.t.Helper()
	xid = via.router.NewXID()
	g.leaveAs(via, xid, before, stmts...)
	return xid
}

func (g *testGroup) leaveAs(via *testMember, xid, before string, stmts ...string) {
	g.t.Helper()
	q := committer.Quote(xid)
	s := g.session(via)
	for _, x := range append(append([]string{before, "XA START " + q}, stmts...), "XA END "+q, "XA PREPARE "+q) {
		if _, err := s.Exec(g.ctx(), x); err != nil {
			g.t.Fatalf("%s: %v", x, err)
		}
	}
	if err := s.Close(); err != nil {
		g.t.Fatal(err)
	}
}

// prepared says which transactions are prepared on the primary's mysqld.
func (g *testGroup) prepared() map[string]bool {
	g.t.Helper()
	xids, err := mysqld.XARecover(g.t.Context(), g.primary().db.DB(g.t))
	if err != nil {
		g.t.Fatal(err)
	}
	is := map[string]bool{}
	for _, x := range xids {
		is[string(x.Gtrid)] = true
	}
	return is
}

// sweeps waits until the primary has looked n more times for what was left
// behind.
func (g *testGroup) sweeps(n int) {
	g.t.Helper()
	looks := func() int {
		v, err := strconv.Atoi(g.value(g.primary(), `SELECT COUNT_STAR FROM performance_schema.events_statements_summary_global_by_event_name
			WHERE EVENT_NAME='statement/sql/xa_recover'`))
		if err != nil {
			g.t.Fatal(err)
		}
		return v
	}
	start := looks()
	until(g.t, "the sweep looks again", func() bool { return looks() >= start+n })
}

// Invariant 5: a prepared transaction of which capture sees nothing is decided by
// an entry in the log, on every member alike, and rolled back; no life has to end
// for that.
func TestLeftBehindGetsAVerdict(t *testing.T) {
	g := withSweeps(t, often, 1, 2)
	p, via := g.primary(), g.all[2]
	life := g.incarnation(p)
	left := map[string]string{
		// Locks, and no event in the binary log.
		"wrote nothing": g.leave(via, "DO 0", "SELECT * FROM d.t WHERE id=0 FOR UPDATE"),
		// Rows that the group can never get to know.
		"unlogged": g.leave(via, "SET SESSION sql_log_bin=0", "INSERT INTO d.t VALUES (1,0)"),
	}
	for what, xid := range left {
		tk := via.router.Expect(xid) // whoever still waits hears of it
		if o := g.outcome(tk); o.Committed {
			t.Errorf("%s: %+v", what, o)
		}
		until(t, what+": its rollback", func() bool { return !g.prepared()[xid] })
		for _, m := range g.all {
			until(t, what+": the verdict on every member", func() bool { _, ok := m.node.Verdict(xid); return ok })
			if o, _ := m.node.Verdict(xid); o.Committed || o.Reason != state.ReasonForced {
				t.Errorf("%s: member %d: %+v", what, m.id, o)
			}
		}
	}
	until(t, "a write of its row, which is free", func() bool {
		o, err := g.session(via).commit(g.ctx(), "INSERT INTO d.t VALUES (1,1)")
		if err != nil {
			t.Fatal(err)
		}
		return o.Committed
	})
	if now := g.incarnation(p); now != life {
		t.Errorf("the member had to start again: %v", p.member.LastError())
	}
	g.equal()
	g.rows("0,1")
}

// What the log has decided the sweep leaves to those who carry that out, however long it takes them.
func TestSweepSparesWhatIsDecided(t *testing.T) {
	g := withSweeps(t, often, 2, 1)
	p := g.primary()
	xid, tk, n := g.orderedNotExecuted(1)
	g.sweeps(4)
	// One that has gone says that what was seen together with it has had its turn.
	for range 2 {
		left := g.leave(p, "DO 0", "SELECT * FROM d.t WHERE id=0 FOR UPDATE")
		until(t, "the rollback of one left behind", func() bool { return !g.prepared()[left] })
	}
	if !g.prepared()[xid] {
		t.Fatal("a transaction that the group has committed is not prepared any more")
	}
	g.crashMysqld()
	if o := g.outcome(tk); !o.Committed || o.N != n {
		t.Errorf("%+v, want %d", o, n)
	}
	g.equal()
	g.rows("0,1")
}

// The entry that forces a verdict may be ordered when whoever asked for it waits
// no longer: the rollback is still carried out.
func TestForcedVerdictIsCarriedOutLate(t *testing.T) {
	g := withSweeps(t, often, 1, 2)
	p := g.primary()
	life := g.incarnation(p)
	xid := p.router.NewXID()
	if o, err := g.all[1].node.ForceVerdictOf(g.ctx(), life, []string{xid}); err != nil || o[0].Committed {
		t.Fatalf("%+v, %v", o, err)
	}
	until(t, "the verdict", func() bool { _, ok := p.node.Verdict(xid); return ok })
	g.leaveAs(p, xid, "DO 0", "SELECT * FROM d.t WHERE id=0 FOR UPDATE")
	until(t, "its rollback", func() bool { return !g.prepared()[xid] })
	if now := g.incarnation(p); now != life {
		t.Errorf("the member had to start again: %v", p.member.LastError())
	}
	g.equal()
}

// Invariant 5: a transaction on its way to a log without a quorum has no verdict
// for as long as that takes. None is guessed meanwhile; afterwards mysqld does
// what the log says, and the client hears the same.
func TestSweepNeverGuesses(t *testing.T) {
	g := withSweeps(t, often, 2, 1)
	p := g.primary()
	g.loseQuorum()
	xids := map[string]*router.Ticket{}
	for _, x := range []string{"INSERT INTO d.t VALUES (1,0)", "INSERT INTO d.t VALUES (2,0)"} {
		xid, tk, err := g.sessionOn(p, p).prepare(g.ctx(), x)
		if err != nil {
			t.Fatal(err)
		}
		xids[xid] = tk
	}
	idle := g.leave(p, "DO 0", "SELECT * FROM d.t WHERE id=0 FOR UPDATE")
	g.sweeps(4)
	now := g.prepared()
	if !now[idle] {
		t.Error("one that was left behind was decided without a quorum")
	}
	for xid := range xids {
		if _, known := p.node.Verdict(xid); known || !now[xid] {
			t.Errorf("%s was decided without a quorum", xid)
		}
	}
	g.regainQuorum()
	committed := 0
	for xid, tk := range xids {
		o := g.outcome(tk)
		if v, ok := p.node.Verdict(xid); !ok || v.Committed != o.Committed || v.Reason == state.ReasonForced {
			t.Errorf("%s: its session was told %+v, the log says %+v", xid, o, v)
		}
		if o.Committed {
			committed++
		}
	}
	until(t, "nothing is prepared", func() bool { return len(g.prepared()) == 0 })
	g.equal()
	for _, m := range g.servers() {
		if v := g.value(m, "SELECT COUNT(*) FROM d.t"); v != strconv.Itoa(1+committed) {
			t.Errorf("member %d: %s rows, %d transactions committed", m.id, v, committed)
		}
	}
}

// A transaction that commits is not aborted by a look at a bad moment. Long rows
// keep many on their way.
func TestSweepSparesWhatIsOnItsWay(t *testing.T) {
	g := withSweeps(t, time.Second, 1, 2)
	g.ddl("CREATE TABLE d.big (id INT PRIMARY KEY, v LONGTEXT)")
	ctx, cancel := context.WithCancel(g.ctx())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i := range 8 {
		s := g.session(g.all[i%3])
		wg.Go(func() {
			for n := range 100000 {
				if ctx.Err() != nil {
					return
				}
				o, err := s.commit(g.ctx(), fmt.Sprintf("INSERT INTO d.big VALUES (%d,REPEAT('x',200000))", 1+i*100000+n))
				if err != nil || !o.Committed {
					t.Errorf("aborted: %+v, %v", o, err)
					return
				}
			}
		})
	}
	g.sweeps(5)
	cancel()
	wg.Wait()
	g.equal()
}

// stuckBody is a body that cannot be read, which shows only when it is released:
// what it belongs to stays in the proposer until then, and is refused.
type stuckBody struct{ released <-chan struct{} }

func (b stuckBody) Read([]byte) (int, error) {
	<-b.released
	return 0, io.ErrUnexpectedEOF
}

func (stuckBody) Close() error { return nil }

// However long capture or the proposer stand still, nothing that waits in them, or
// in the binary log behind them, gets a verdict forced. What wrote nothing does as
// soon as capture is past its time.
func TestSweepSparesWhatStandsStill(t *testing.T) {
	g := withSweeps(t, often, 1, 2)
	g.ddl("CREATE TABLE d.big (id INT PRIMARY KEY, v LONGTEXT)")
	p := g.primary()
	released := make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	t.Cleanup(release) // before the group ends: its proposer waits for the body
	submit := func(ctx context.Context, xid string) error {
		return p.node.Submit(ctx, &consensus.Proposal{XID: xid, Epoch: p.node.View().Epoch, BodyLen: 1, Meta: binlog.Meta{Kind: binlog.KindTransaction},
			Open: func() (io.ReadCloser, error) { return stuckBody{released}, nil }})
	}
	undecided := func(xids ...string) {
		t.Helper()
		now := g.prepared()
		for _, xid := range xids {
			if v, known := p.node.Verdict(xid); known || !now[xid] {
				t.Errorf("%s was decided: %+v", xid, v)
			}
		}
	}

	// In the proposer; capture goes on.
	submitted := g.leave(p, "SET SESSION sql_log_bin=0", "INSERT INTO d.t VALUES (1,0)")
	if err := submit(g.ctx(), submitted); err != nil {
		t.Fatal(err)
	}
	idle := g.leave(p, "DO 0", "SELECT * FROM d.t WHERE id=0 FOR UPDATE")
	until(t, "the rollback of one that wrote nothing", func() bool { return !g.prepared()[idle] })
	g.sweeps(3)
	undecided(submitted)

	// The proposer takes no more: the next one stands still in capture, and what
	// comes later is in the binary log only.
	for full := false; !full; {
		ctx, cancel := context.WithTimeout(g.ctx(), 200*time.Millisecond)
		err := submit(ctx, p.router.NewXID())
		cancel()
		if full = errors.Is(err, context.DeadlineExceeded); err != nil && !full {
			t.Fatal(err)
		}
	}
	tickets := map[string]*router.Ticket{}
	for i := range 3 {
		xid, tk, err := g.sessionOn(p, p).prepare(g.ctx(), fmt.Sprintf("INSERT INTO d.big VALUES (%d,REPEAT('x',600000))", i))
		if err != nil {
			t.Fatal(err)
		}
		tickets[xid] = tk
	}
	late := g.leave(p, "DO 0", "SELECT * FROM d.t WHERE id=0 FOR UPDATE")
	g.sweeps(4)
	undecided(append(slices.Collect(maps.Keys(tickets)), submitted, late)...)

	release()
	for xid, tk := range tickets {
		if o := g.outcome(tk); !o.Committed {
			t.Errorf("%s: %+v", xid, o)
		}
	}
	for xid, why := range map[string]state.Reason{submitted: state.ReasonRefused, late: state.ReasonForced} {
		until(t, "the end of what was left behind", func() bool { return !g.prepared()[xid] })
		if o, known := p.node.Verdict(xid); !known || o.Committed || o.Reason != why {
			t.Errorf("%s: %+v, want the reason %v", xid, o, why)
		}
	}
	g.equal()
}
