package recovery

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"cohort/internal/mysqld"
	"cohort/internal/pause"
)

// pairs says of transactions, by number, which earlier one they must wait for.
type pairs map[uint64]uint64

// backlog runs load while the secondaries apply nothing, then lets them apply
// it all at once, in parallel, and checks that none had to start again. The
// dependencies themselves are checked too, since an applier may be lucky.
func (g *testGroup) backlog(load func() pairs) {
	g.t.Helper()
	lives, locks := map[*testMember]uint64{}, map[*testMember]*sql.Conn{}
	for _, m := range g.servers()[1:] {
		lives[m] = g.incarnation(m)
		// Not by stopping the applier, which the member would notice.
		locks[m] = g.root(m)
		if _, err := locks[m].ExecContext(g.t.Context(), "FLUSH TABLES WITH READ LOCK"); err != nil {
			g.t.Fatal(err)
		}
	}
	waits := load()
	r, err := g.primary().store.NewReader(0)
	if err != nil {
		g.t.Fatal(err)
	}
	defer r.Close()
	for last := g.primary().node.LastN(); r.NextN() <= last; {
		x, err := r.Next(g.ctx())
		if err != nil {
			g.t.Fatal(err)
		}
		if on, ok := waits[x.N]; ok && x.Dep < on {
			g.t.Errorf("transaction %d waits for %d, it has to wait for %d", x.N, x.Dep, on)
		}
	}
	for _, m := range g.servers()[1:] {
		if _, err := locks[m].ExecContext(g.t.Context(), "UNLOCK TABLES"); err != nil {
			g.t.Fatal(err)
		}
	}
	g.equal()
	for m, life := range lives {
		if now := g.incarnation(m); now != life {
			g.t.Errorf("member %d's applier stopped: %v", m.id, m.member.LastError())
		}
	}
}

// padding makes a transaction long on the applier before what matters comes.
func padding(i int) string {
	return fmt.Sprintf("UPDATE d.pad SET v=%d", i)
}

func (g *testGroup) makePadding() {
	g.t.Helper()
	g.ddl("CREATE TABLE d.pad (id INT PRIMARY KEY, v INT)")
	var vals []string
	for i := range 1000 {
		vals = append(vals, fmt.Sprintf("(%d,0)", i))
	}
	g.write(g.primary(), "INSERT INTO d.pad VALUES "+strings.Join(vals, ","))
}

// §9.6: what a functional index makes of a row is not in its events, so two
// transactions that meet only there must not be applied side by side.
func TestFunctionalIndexKeepsItsOrder(t *testing.T) {
	g := withTable(t, 2, 1, "replica_parallel_workers=8")
	g.makePadding()
	g.ddl("CREATE TABLE d.f (id INT PRIMARY KEY, a INT, UNIQUE KEY ((a % 10)))", "INSERT INTO d.f VALUES (0,3)")
	g.backlog(func() pairs {
		waits := pairs{}
		for i := range 15 {
			first := g.write(g.primary(), padding(i), fmt.Sprintf("DELETE FROM d.f WHERE id=%d", i))
			between := g.write(g.primary(), fmt.Sprintf("INSERT INTO d.t VALUES (%d,0)", i+1))
			then := g.write(g.primary(), fmt.Sprintf("INSERT INTO d.f VALUES (%d,%d)", i+1, 10*(i+1)+3))
			// Commit order: it waits for what has nothing to do with it, too.
			waits[between.N], waits[then.N] = 0, max(first.N, between.N)
		}
		return waits
	})
}

// §9.6: what a cascade changes is not in the events of the parent's deletion.
func TestCascadesKeepTheirOrder(t *testing.T) {
	g := withTable(t, 2, 1, "replica_parallel_workers=8")
	g.makePadding()
	g.ddl("CREATE TABLE d.parent (id INT PRIMARY KEY)",
		"CREATE TABLE d.child (id INT PRIMARY KEY, pid INT, FOREIGN KEY (pid) REFERENCES d.parent(id) ON DELETE CASCADE)",
		"INSERT INTO d.parent VALUES (0),(1000)", "INSERT INTO d.child VALUES (7,0)")
	g.backlog(func() pairs {
		waits := pairs{}
		for i := range 15 {
			g.write(g.primary(), fmt.Sprintf("INSERT INTO d.parent VALUES (%d)", i+1))
			first := g.write(g.primary(), padding(i), fmt.Sprintf("DELETE FROM d.parent WHERE id=%d", i))
			then := g.write(g.primary(), fmt.Sprintf("INSERT INTO d.child VALUES (7,%d)", i+1))
			waits[then.N] = first.N
		}
		return waits
	})
}

// The server's own tables steer how it executes: nothing runs beside a write to
// them.
func TestServersOwnTablesAreSerial(t *testing.T) {
	g := withTable(t, 2, 1, "replica_parallel_workers=8")
	g.backlog(func() pairs {
		waits := pairs{}
		for i := range 5 {
			before := g.write(g.primary(), fmt.Sprintf("INSERT INTO d.t VALUES (%d,0)", 2*i+1))
			own := g.write(g.primary(), fmt.Sprintf("INSERT INTO mysql.time_zone_leap_second VALUES (%d,1)", i))
			after := g.write(g.primary(), fmt.Sprintf("INSERT INTO d.t VALUES (%d,0)", 2*i+2))
			waits[own.N], waits[after.N] = before.N, own.N
		}
		return waits
	})
}

// The same for keys that a collation makes equal which we cannot compute.
func TestUnknownCollationKeepsItsOrder(t *testing.T) {
	g := withTable(t, 2, 1, "replica_parallel_workers=8")
	g.makePadding()
	g.ddl("CREATE TABLE d.c (id INT PRIMARY KEY, a VARCHAR(20) COLLATE gbk_chinese_ci, UNIQUE KEY (a))", "INSERT INTO d.c VALUES (0,'aB')")
	g.backlog(func() pairs {
		waits := pairs{}
		for i := range 15 {
			first := g.write(g.primary(), padding(i), fmt.Sprintf("DELETE FROM d.c WHERE id=%d", i))
			then := g.write(g.primary(), fmt.Sprintf("INSERT INTO d.c VALUES (%d,'%s')", i+1, []string{"Ab", "AB", "ab"}[i%3]))
			waits[then.N] = first.N
		}
		return waits
	})
}

// ledger is what the clients of a load were told.
type ledger struct {
	mu      sync.Mutex
	acked   map[int]bool // ids whose insertion was acknowledged
	aborted map[int]bool // and those that were certainly not inserted
	tables  map[int]bool // tables whose creation was acknowledged
	directs bool         // whether clients write rows by direct statements, too
}

func (l *ledger) note(m map[int]bool, id int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m[id] = true
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// client writes until ctx ends, whatever happens to the primary.
func (g *testGroup) client(ctx context.Context, l *ledger, no int, via *testMember) {
	var s *session
	defer func() {
		if s != nil {
			s.Close()
		}
	}()
	rnd := rand.New(rand.NewPCG(uint64(no), 1))
	for k := 0; ctx.Err() == nil; k++ {
		id := no*1_000_000 + k
		// As a proxy does: the former primary's mysqld may go on taking writes that
		// nobody proposes before its process is back.
		if s != nil && via.node.View().Primary != s.on.id {
			s.Close()
			s = nil
		}
		if s == nil {
			var err error
			if s, err = g.dial(via); err != nil {
				s = nil
				_ = pause.For(ctx, 20*time.Millisecond)
				continue
			}
		}
		err := g.clientStep(ctx, l, s, rnd, id)
		if err != nil {
			s.Close()
			s = nil
			_ = pause.For(ctx, 5*time.Millisecond)
		}
	}
}

// clientStep does one of several kinds of work. Its errors mean that nothing
// is known of id, except where the ledger says otherwise.
func (g *testGroup) clientStep(ctx context.Context, l *ledger, s *session, rnd *rand.Rand, id int) error {
	insert := func(counted int) string {
		return fmt.Sprintf("INSERT INTO d.load VALUES (%d, %d, REPEAT('x',%d))", id, counted, rnd.IntN(200))
	}
	wctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	switch kind := rnd.IntN(20); {
	// A direct statement that writes rows. Not where the primary changes: what the
	// former one ran and the new one's writes conflict with costs it its membership.
	case kind == 0 && l.directs:
		o, err := s.direct(wctx, insert(0))
		if err == nil && o.Committed {
			l.note(l.acked, id)
		}
		return err
	case kind == 1: // DDL
		o, err := s.direct(wctx, fmt.Sprintf("CREATE TABLE d.t%d (id INT PRIMARY KEY)", id))
		if err == nil && o.Committed {
			l.note(l.tables, id)
		}
		return err
	default:
		_, tk, err := s.prepare(wctx, insert(1), fmt.Sprintf("UPDATE d.counter SET n=n+1 WHERE id=%d", rnd.IntN(16)))
		if err != nil {
			if ctx.Err() == nil && !s.Broken() {
				// Rolled back before PREPARE: the branch is ours to end.
				s.Close()
				return errors.Join(err, errors.New("session ended"))
			}
			return err
		}
		o, err := tk.Wait(wctx)
		switch {
		case err != nil:
		case o.Committed:
			l.note(l.acked, id)
		default:
			l.note(l.aborted, id)
		}
		return err
	}
}

// crashLoop runs clients while crash is called again and again, and compares in
// the end what they were told with what all members hold.
func (g *testGroup) crashLoop(vias []*testMember, directs bool, rounds int, crash func(round int)) {
	t := g.t
	g.ddl("CREATE TABLE d.load (id INT PRIMARY KEY, counted INT, pad VARCHAR(200))", "CREATE TABLE d.counter (id INT PRIMARY KEY, n INT)")
	for i := range 16 {
		g.write(g.primary(), fmt.Sprintf("INSERT INTO d.counter VALUES (%d,0)", i))
	}
	l := &ledger{acked: map[int]bool{}, aborted: map[int]bool{}, tables: map[int]bool{}, directs: directs}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i, via := range vias {
		wg.Go(func() { g.client(ctx, l, i+1, via) })
	}
	for r := range rounds {
		want := l.count() + 40
		until(t, fmt.Sprintf("writes in round %d", r), func() bool { return l.count() >= want })
		crash(r)
	}
	want := l.count() + 40
	until(t, "writes after the last crash", func() bool { return l.count() >= want })
	cancel()
	wg.Wait()
	for _, m := range g.servers() {
		if m.node != nil {
			g.online(m)
		}
	}
	// What was cut off in the middle is decided by a new life.
	if len(g.apart) > 0 {
		g.restart()
		g.together()
	} else {
		g.change()
	}
	g.equal()
	have, sum := map[int]bool{}, 0
	rows, err := g.root(g.primary()).QueryContext(t.Context(), "SELECT id, counted FROM d.load")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, counted int
		if err := rows.Scan(&id, &counted); err != nil {
			t.Fatal(err)
		}
		have[id] = true
		sum += counted
	}
	if n := g.value(g.primary(), "SELECT SUM(n) FROM d.counter"); n != fmt.Sprint(sum) {
		t.Errorf("%d transactions wrote their row, the counters say %s", sum, n)
	}
	lost, risen := 0, 0
	for id := range l.acked {
		if !have[id] {
			lost++
		}
	}
	for id := range l.aborted {
		if have[id] {
			risen++
		}
	}
	for id := range l.tables {
		if g.value(g.primary(), fmt.Sprintf("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema='d' AND table_name='t%d'", id)) != "1" {
			lost++
		}
	}
	if lost > 0 || risen > 0 {
		t.Errorf("of %d acknowledged writes %d are lost; of %d aborted ones %d are there", len(l.acked)+len(l.tables), lost, len(l.aborted), risen)
	}
	t.Logf("%d rows acknowledged, %d tables, %d aborts, %d rows, N=%d", len(l.acked), len(l.tables), len(l.aborted), len(have), g.primary().node.LastN())
	for _, m := range g.servers() {
		if e := m.member.LastError(); e != nil && (errors.Is(e, ErrDiverged) || errors.Is(e, mysqld.ErrApplier)) {
			t.Errorf("member %d: %v", m.id, e)
		}
	}
}

// rounds of each crash loop; more by hand.
const crashRounds = 4

func TestCrashLoopPrimaryMysqld(t *testing.T) {
	g := settling(t, "primary")
	g.crashLoop([]*testMember{g.all[0], g.all[0], g.all[2], g.all[3]}, true, crashRounds, func(int) { g.crashMysqld() })
}

func TestCrashLoopPrimaryProcess(t *testing.T) {
	g := settling(t, "primary")
	// The clients are those of the other members, which live.
	g.crashLoop([]*testMember{g.all[2], g.all[2], g.all[3], g.all[4]}, true, crashRounds, func(r int) {
		if r%2 == 1 {
			g.restartBoth()
		} else {
			g.restart()
		}
	})
}

func TestCrashLoopSecondary(t *testing.T) {
	g := withTable(t, 3, 0, "replica_parallel_workers=4")
	g.crashLoop([]*testMember{g.all[0], g.all[0], g.all[1], g.all[1]}, true, crashRounds, func(r int) {
		m := g.all[2]
		before := g.incarnation(m)
		switch r % 3 {
		case 0: // its mysqld
			m.db.Kill(t)
			m.db.Restart(t)
		case 1: // its process
			g.stop(m)
			g.start(m)
		case 2: // both
			g.stop(m)
			m.db.Kill(t)
			m.db.Restart(t)
			g.start(m)
		}
		until(t, "its next life", func() bool { return g.incarnation(m) > before })
		g.online(m)
	})
}
