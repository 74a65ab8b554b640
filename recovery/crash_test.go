package recovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"cohort/consensus/state"
	"cohort/internal/committer"
	"cohort/internal/mysqld"
	"cohort/internal/wire"
	"cohort/router"
)

// withTable starts a group whose log needs two votes beside the primary's, and
// makes the table d.t.
func withTable(t *testing.T, servers, voters int, opts ...string) *testGroup {
	t.Helper()
	return tableIn(newGroup(t, servers, voters, opts...))
}

func tableIn(g *testGroup) *testGroup {
	g.t.Helper()
	g.ddl("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)", "INSERT INTO d.t VALUES (0,0)")
	g.equal()
	return g
}

type noVerdicts struct{}

func (noVerdicts) Submit(...committer.Job) {}
func (noVerdicts) Prepared(string)         {}

// holdVerdicts keeps verdicts on the primary's present life from being carried
// out, as if it died before.
func (g *testGroup) holdVerdicts() {
	p := g.primary()
	p.router.SetOrigin(g.incarnation(p), noVerdicts{})
}

// ordered waits until the log has given numbers up to n.
func (g *testGroup) ordered(n uint64) {
	g.t.Helper()
	until(g.t, fmt.Sprintf("%d ordered", n), func() bool { return g.primary().node.LastN() >= n })
}

// orderedNotExecuted leaves a transaction that inserts id prepared on the
// primary's mysqld, with number n given to it.
func (g *testGroup) orderedNotExecuted(id int) (xid string, tk *router.Ticket, n uint64) {
	g.t.Helper()
	g.holdVerdicts()
	n = g.primary().node.LastN() + 1
	xid, tk, err := g.session(g.primary()).prepare(g.ctx(), fmt.Sprintf("INSERT INTO d.t VALUES (%d,0)", id))
	if err != nil {
		g.t.Fatal(err)
	}
	g.ordered(n)
	if v, ok := g.primary().node.Verdict(xid); !ok || v.N != n {
		g.t.Fatalf("verdict %+v %v, want %d", v, ok, n)
	}
	return xid, tk, n
}

// alone stops the processes of the other members with a mysqld, so that nobody
// can be elected while the primary is away and its mysqld has to settle its past
// as the primary. They come back with together, before the members are compared.
func (g *testGroup) alone() {
	g.t.Helper()
	p := g.primary()
	for _, m := range g.servers() {
		if m != p {
			g.stop(m)
			g.apart = append(g.apart, m)
		}
	}
	for _, m := range g.apart {
		until(g.t, "it is noticed", func() bool {
			v, _ := p.node.View().Member(m.id)
			return v.State == state.StateOffline
		})
	}
}

func (g *testGroup) together() {
	g.t.Helper()
	for _, m := range g.apart {
		g.start(m)
		g.online(m)
	}
	g.apart = nil
}

// settledBy are the roles in which a former primary may come back.
var settledBy = []string{"primary", "secondary"}

// settling starts a group whose primary comes back in such a role when it dies. A
// voter more than usual keeps the quorum.
func settling(t *testing.T, by string) *testGroup {
	t.Helper()
	g := withTable(t, 2, 3)
	if by == "primary" {
		g.alone()
	}
	return g
}

// replaced waits, after the primary's death, until there is another one if there
// can be.
func (g *testGroup) replaced(p *testMember) {
	g.t.Helper()
	if len(g.servers())-len(g.apart) > 1 {
		until(g.t, "another primary", func() bool { return g.all[len(g.all)-1].node.View().Primary != p.id })
	}
}

// crashMysqld kills the primary's mysqld and starts it again.
func (g *testGroup) crashMysqld() {
	g.t.Helper()
	p := g.primary()
	before := g.incarnation(p)
	p.db.Kill(g.t)
	g.replaced(p)
	p.db.Restart(g.t)
	g.nextLife(p, before)
}

// nextLife waits until a member is ONLINE in a life after the given one.
func (g *testGroup) nextLife(m *testMember, after uint64) {
	g.t.Helper()
	until(g.t, "the next life", func() bool { return g.incarnation(m) > after })
	g.online(m)
}

// restart ends the primary's process and starts it again.
func (g *testGroup) restart() {
	g.t.Helper()
	p := g.primary()
	g.stop(p)
	g.replaced(p)
	g.start(p)
	g.online(p)
}

// restartBoth does so with mysqld, too.
func (g *testGroup) restartBoth() {
	g.t.Helper()
	p := g.primary()
	g.stop(p)
	p.db.Kill(g.t)
	g.replaced(p)
	p.db.Restart(g.t)
	g.start(p)
	g.online(p)
}

func (g *testGroup) rows(want string) {
	g.t.Helper()
	for _, m := range g.servers() {
		if got := g.value(m, "SELECT GROUP_CONCAT(id ORDER BY id) FROM d.t"); got != want {
			g.t.Errorf("member %d: rows %s, want %s", m.id, got, want)
		}
	}
}

// §9.1, §9.2: prepared, never proposed. The fence aborts it, the client hears
// so, and it is not proposed again.
func TestPreparedAndUnknownIsRolledBack(t *testing.T) {
	for _, by := range settledBy {
		t.Run(by, func(t *testing.T) {
			g := settling(t, by)
			p, via := g.primary(), g.all[2]
			g.stop(p)
			g.replaced(p)
			xid, tk, err := g.sessionOn(p, via).prepare(g.ctx(), "INSERT INTO d.t VALUES (1,0)")
			if err != nil {
				t.Fatal(err)
			}
			g.start(p)
			if o := g.outcome(tk); o.Committed || by == "primary" && o.Errno != 3101 {
				t.Errorf("outcome %+v", o)
			}
			g.online(p)
			g.write(via, "INSERT INTO d.t VALUES (2,0)")
			g.together()
			g.equal()
			g.rows("0,2")
			for _, m := range g.all {
				// A late xid may get a forced abort; it is never ordered.
				if v, known := m.node.Verdict(xid); known && (by == "primary" || v.Committed) {
					t.Errorf("member %d: it was proposed again: %+v", m.id, v)
				}
			}
		})
	}
}

// §9.2: the log says abort, mysqld still holds it.
func TestPreparedAndAbortedIsRolledBack(t *testing.T) {
	g := withTable(t, 1, 2)
	p, via := g.primary(), g.all[2]
	g.stop(p)
	xid, tk, err := g.sessionOn(p, via).prepare(g.ctx(), "INSERT INTO d.t VALUES (1,0)")
	if err != nil {
		t.Fatal(err)
	}
	if o, err := via.node.ForceVerdict(g.ctx(), []string{xid}); err != nil || o[0].Committed {
		t.Fatalf("%+v %v", o, err)
	}
	if o := g.outcome(tk); o.Committed {
		t.Errorf("outcome %+v", o)
	}
	g.start(p)
	g.online(p)
	g.equal()
	g.rows("0")
}

// §9.2: N ordered, not executed, still prepared: mysqld died before XA COMMIT.
func TestOrderedAndPreparedIsCommitted(t *testing.T) {
	for _, dies := range []string{"mysqld", "process", "both"} {
		t.Run(dies, func(t *testing.T) { orderedAndPrepared(t, dies, "primary") })
	}
	// A process that dies: TestOrderedByFormerPrimary.
	t.Run("mysqld of a former primary", func(t *testing.T) { orderedAndPrepared(t, "mysqld", "secondary") })
}

func orderedAndPrepared(t *testing.T, dies, by string) {
	g := settling(t, by)
	via := g.all[2]
	xid, mine, n := g.orderedNotExecuted(1)
	tk := via.router.Expect(xid) // the session of another member's proxy
	switch dies {
	case "mysqld":
		g.crashMysqld()
		if o := g.outcome(mine); !o.Committed || o.N != n {
			t.Errorf("its own session: %+v", o)
		}
	case "process":
		g.restart()
	case "both":
		g.restartBoth()
	}
	if o := g.outcome(tk); !o.Committed || o.N != n {
		t.Errorf("outcome %+v", o)
	}
	g.write(via, "INSERT INTO d.t VALUES (2,0)")
	g.together()
	g.equal()
	g.rows("0,1,2")
}

// §9.2, the shape of MySQL's bug #109434: the number is executed, the xid is
// still prepared. XA COMMIT under the number would say OK and do nothing.
func TestExecutedButPreparedIsCommitted(t *testing.T) {
	for _, by := range settledBy {
		t.Run(by, func(t *testing.T) { executedButPrepared(t, by) })
	}
}

func executedButPrepared(t *testing.T, by string) {
	g := settling(t, by)
	p := g.primary()
	_, _, n := g.orderedNotExecuted(1)
	g.stop(p)
	g.replaced(p)
	p.db.SQL(t, "SET gtid_next='"+committer.GTID(groupName, n)+"'", "BEGIN", "COMMIT", "SET gtid_next='AUTOMATIC'")
	g.start(p)
	g.online(p)
	g.write(p, "INSERT INTO d.t VALUES (2,0)")
	g.together()
	g.equal()
	g.rows("0,1,2")
}

// §9.2, §9.3: ordered, but mysqld lost its prepared half: N comes from the
// feed, and the feed is gone before the mysqld takes writes of its own.
func TestOrderedAndLostComesFromTheFeed(t *testing.T) {
	g := settling(t, "primary")
	p := g.primary()
	xid, _, n := g.orderedNotExecuted(1)
	tk := g.all[2].router.Expect(xid)
	g.stop(p)
	p.db.SQL(t, "XA ROLLBACK "+committer.Quote(xid))
	g.start(p)
	if o := g.outcome(tk); !o.Committed || o.N != n {
		t.Errorf("outcome %+v", o)
	}
	g.online(p)
	life := g.incarnation(p)
	if x, err := mysqld.ReadApplierStatus(t.Context(), g.root(p)); err != nil || x.ApplierState == "ON" || x.ReceiverState == "ON" {
		t.Errorf("the primary takes writes while its feed runs: %+v %v", x, err)
	}
	for i := 2; i < 30; i++ {
		g.write(p, fmt.Sprintf("INSERT INTO d.t VALUES (%d,0)", i))
	}
	g.together()
	g.equal()
	if now := g.incarnation(p); now != life {
		t.Errorf("the member had to start again: %v", p.member.LastError())
	}
}

// §9.2: what an earlier life left running cannot write after the fence.
func TestSessionsOfEarlierLivesEnd(t *testing.T) {
	g := withTable(t, 1, 2)
	via := g.all[1]
	s := g.session(via)
	xid := via.router.NewXID()
	for _, x := range []string{"XA START " + committer.Quote(xid), "INSERT INTO d.t VALUES (1,0)"} {
		if _, err := s.Exec(g.ctx(), x); err != nil {
			t.Fatal(err)
		}
	}
	idle := g.session(via)
	g.restart()
	if _, err := s.Exec(g.ctx(), "XA END "+committer.Quote(xid)); err == nil {
		t.Error("a session of an earlier life goes on with its transaction")
	}
	if _, err := idle.Exec(g.ctx(), "DO 1"); err == nil {
		t.Error("an idle session of an earlier life goes on")
	}
	g.equal()
	g.rows("0")
}

// §9.1: an xid made under an earlier incarnation is prepared under the present
// one, by a coordinator that lags. It was told that the fence aborted it, so it
// must never commit.
func TestXIDOfAnEarlierLifeNeverCommits(t *testing.T) {
	g := withTable(t, 1, 2)
	via := g.all[1]
	xid := via.router.NewXID()
	tk := via.router.Expect(xid)
	g.restart()
	if o := g.outcome(tk); o.Committed {
		t.Fatalf("outcome %+v", o)
	}
	s, q := g.session(via), committer.Quote(xid)
	for _, x := range []string{"XA START " + q, "INSERT INTO d.t VALUES (1,0)", "XA END " + q, "XA PREPARE " + q} {
		if _, err := s.Exec(g.ctx(), x); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the verdict", func() bool { _, ok := via.node.Verdict(xid); return ok })
	if v, _ := via.node.Verdict(xid); v.Committed {
		t.Errorf("%+v", v)
	}
	root := g.root(g.primary())
	until(t, "its rollback", func() bool {
		x, err := mysqld.XARecover(t.Context(), root)
		return err == nil && len(x) == 0
	})
	g.rows("0")
}

// §9.8: a wait that ends without a verdict says so, and the verdict comes.
func TestNoVerdictIsNoAbort(t *testing.T) {
	g := withTable(t, 1, 2)
	g.loseQuorum()
	s := g.sessionOn(g.all[0], g.all[0])
	xid, tk, err := s.prepare(g.ctx(), "INSERT INTO d.t VALUES (1,0)")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if o, err := tk.Wait(ctx); err == nil {
		t.Fatalf("an undecided transaction was answered: %+v", o)
	}
	again := g.primary().router.Expect(xid)
	g.regainQuorum()
	if o := g.outcome(again); !o.Committed {
		t.Fatalf("%+v", o)
	}
	g.equal()
	g.rows("0,1")
}

// §9.9: a session that waits for a row which is prepared and undecided holds up
// super_read_only; the start-up must not wait for its lock timeout.
func TestStartDoesNotWaitBehindPreparedRows(t *testing.T) {
	g := withTable(t, 1, 2, "innodb_lock_wait_timeout=100000", "lock_wait_timeout=100000")
	p := g.primary()
	g.stop(p)
	xid, _, err := g.sessionOn(p, g.all[1]).prepare(g.ctx(), "UPDATE d.t SET v=1 WHERE id=0")
	if err != nil {
		t.Fatal(err)
	}
	blocked := g.sessionOn(p, g.all[1])
	errs := make(chan error, 1)
	go func() {
		_, err := blocked.Exec(g.ctx(), "UPDATE d.t SET v=2 WHERE id=0")
		errs <- err
	}()
	until(t, "the lock wait", func() bool {
		return g.value(p, "SELECT COUNT(*) FROM performance_schema.data_lock_waits") != "0"
	})
	g.start(p)
	g.online(p)
	if err := <-errs; err == nil {
		t.Error("the blocked session went on after the fence")
	}
	if v, known := p.node.Verdict(xid); known {
		t.Errorf("%+v", v)
	}
	g.equal()
	if v := g.value(p, "SELECT v FROM d.t WHERE id=0"); v != "0" {
		t.Errorf("v=%s", v)
	}
}

// §9.9 again: while the member's account is made, super_read_only is lifted for
// a moment; an administrator who comes in then and waits for a prepared row must
// not hold up the start.
func TestStartDoesNotWaitBehindAdministrators(t *testing.T) {
	g := withTable(t, 1, 2, "innodb_lock_wait_timeout=100000", "lock_wait_timeout=100000")
	p := g.primary()
	g.orderedNotExecuted(1)
	g.stop(p)
	p.db.Kill(t)
	p.db.Restart(t)
	ctx, cancel := context.WithCancel(g.ctx())
	done := make(chan struct{})
	go func() {
		defer close(done)
		var s *session
		for ctx.Err() == nil {
			if s == nil {
				var err error
				if s, err = g.dialOn(ctx, p, g.all[1]); err != nil {
					s = nil
					continue
				}
			}
			if _, err := s.Exec(ctx, "UPDATE d.t SET v=2 WHERE id=1"); err != nil && wire.ErrorCode(err) != 1290 {
				s.Close()
				s = nil
			}
		}
		if s != nil {
			s.Close()
		}
	}()
	g.start(p)
	g.online(p)
	cancel()
	<-done
	g.equal()
	g.rows("0,1")
}

// §8: the mysqld of a dead process comes back read-only and applies nothing.
func TestMysqldAloneStartsReadOnly(t *testing.T) {
	g := withTable(t, 2, 1)
	for _, m := range g.servers() {
		want := "1"
		if m == g.primary() {
			want = "0"
		}
		if v := g.value(m, "SELECT @@super_read_only"); v != want {
			t.Errorf("member %d ONLINE: super_read_only=%s", m.id, v)
		}
		if v := g.value(m, "SELECT @@binlog_order_commits"); v != want {
			t.Errorf("member %d ONLINE: binlog_order_commits=%s", m.id, v)
		}
	}
	for _, m := range g.servers() {
		g.stop(m)
		m.db.Kill(t)
		m.db.Restart(t)
		if v := g.value(m, "SELECT CONCAT(@@super_read_only,@@skip_replica_start)"); v != "11" {
			t.Errorf("member %d alone: super_read_only, skip_replica_start = %s", m.id, v)
		}
	}
}

// A secondary with transactions of its own never serves.
func TestForeignDataIsAnError(t *testing.T) {
	g := withTable(t, 2, 1)
	m := g.all[1]
	g.stop(m)
	m.db.SQL(t, "SET GLOBAL super_read_only=OFF", "INSERT INTO d.t VALUES (99,0)")
	g.start(m)
	until(t, "it gives up", func() bool { return m.member.gaveUp.Load() })
	if g.state(m) != state.StateError {
		t.Errorf("state %s", g.state(m))
	}
	if !errors.Is(m.member.LastError(), ErrDiverged) || m.member.Ready() {
		t.Errorf("ready %v, %v", m.member.Ready(), m.member.LastError())
	}
	if v := g.value(m, "SELECT @@super_read_only"); v != "1" {
		t.Error("it takes writes")
	}
	g.stop(m)
	m.db.SQL(t, "SET GLOBAL super_read_only=OFF", "SET gtid_next='"+groupName+":999'", "BEGIN", "COMMIT", "SET gtid_next='AUTOMATIC'")
	g.start(m)
	until(t, "the error", func() bool { return m.member.LastError() != nil })
	if err := m.member.LastError(); !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), ":999") {
		t.Error(err)
	}
}
