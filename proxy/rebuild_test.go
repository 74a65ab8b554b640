package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cohort/internal/mysqldtest"
	"cohort/internal/wire"
)

// pairGroup is a group whose primary is one of two mysqlds that hold the same
// data. Each of them is committed on by a soloGroup of its own.
type pairGroup struct {
	solo     [2]*soloGroup
	expected atomic.Int64 // xids that a session began to end
	unheard  atomic.Bool  // so is the member whose server the primary's is no more
	stale    atomic.Bool  // reads on the first server have to wait
	waiting  atomic.Int64 // reads that began to wait

	mu      sync.Mutex
	at      int
	epoch   uint64
	hold    bool // no verdict before the primary has moved
	remote  bool // the servers are other members'
	verdict Outcome
	// out: the member whose own server is the second one is out of the group.
	out       bool
	departure Departure
}

func (g *pairGroup) now() (*soloGroup, uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.out {
		return g.solo[1], 0
	}
	return g.solo[g.at], g.epoch
}

func (g *pairGroup) Primary(context.Context) (Backend, error) {
	s, e := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	return Backend{Network: "unix", Addr: s.addr, Local: !g.remote || g.out, MemberUUID: s.addr, Epoch: e}, nil
}

func (g *pairGroup) Adrift() bool { return false }

func (g *pairGroup) Departure() Departure {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.departure
}

func (g *pairGroup) Moved(b Backend) bool {
	s, e := g.now()
	return b.MemberUUID != s.addr || b.Epoch != e
}

func (g *pairGroup) Unheard(Backend) bool { return g.unheard.Load() }

func (g *pairGroup) Fresh(b Backend, _ bool) bool {
	return !g.stale.Load() || b.MemberUUID != g.solo[0].addr
}

func (g *pairGroup) AwaitFresh(ctx context.Context, b Backend, always bool) error {
	g.waiting.Add(1)
	for !g.Fresh(b, always) && !g.Moved(b) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

func (g *pairGroup) NewXID() string { s, _ := g.now(); return s.NewXID() }

func (g *pairGroup) ExpectDirect(gtid string) Ticket { s, _ := g.now(); return s.ExpectDirect(gtid) }

func (g *pairGroup) Expect(xid string) Ticket {
	g.expected.Add(1)
	s, e := g.now()
	return pairTicket{s.Expect(xid), g, e}
}

// move appoints the other server, with the verdict on what is in flight.
func (g *pairGroup) move(verdict Outcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at, g.epoch, g.verdict, g.hold = 1-g.at, g.epoch+1, verdict, false
}

type pairTicket struct {
	Ticket
	g     *pairGroup
	epoch uint64
}

func (k pairTicket) Wait(ctx context.Context) (Outcome, error) {
	for {
		k.g.mu.Lock()
		epoch, hold, o := k.g.epoch, k.g.hold, k.g.verdict
		k.g.mu.Unlock()
		switch {
		case epoch != k.epoch:
			return o, nil
		case !hold:
			return k.Ticket.Wait(ctx)
		case ctx.Err() != nil:
			return Outcome{}, ctx.Err()
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// pairRig is a rig whose group has a second server, other.
type pairRig struct {
	*rig
	pair  *pairGroup
	other *mysqldtest.Server
}

// both runs statements on both servers, as replication would.
func (g *pairRig) both(sqls ...string) {
	g.db.SQL(g.t, sqls...)
	g.other.SQL(g.t, sqls...)
}

func newPair(t *testing.T, change func(*Options)) *pairRig {
	t.Helper()
	g := &pairRig{}
	dbs := mysqldtest.StartN(t, 2, rigSetting)
	g.other = dbs[1]
	g.other.SQL(t, rigAccount...)
	g.rig = rigOn(t, dbs[0], func(o *Options) {
		g.pair = &pairGroup{solo: [2]*soloGroup{o.Group.(*soloGroup), {network: "unix", addr: g.other.Socket}}}
		o.Group = g.pair
		if change != nil {
			change(o)
		}
	})
	g.both("CREATE ROLE reader", "GRANT SELECT ON *.* TO reader", "GRANT reader TO plain",
		"CREATE TABLE plain.t (a INT PRIMARY KEY AUTO_INCREMENT, b VARCHAR(20))", "CREATE SCHEMA plain2", "GRANT ALL ON plain2.* TO plain")
	g.db.SQL(t, "CREATE TABLE plain.here (a INT)", "INSERT INTO plain.here VALUES (1)")
	g.other.SQL(t, "CREATE TABLE plain.here (a INT)", "INSERT INTO plain.here VALUES (2)")
	return g
}

// prepareStmt prepares by the binary protocol and returns the id.
func (c *rawClient) prepareStmt(sql string) uint32 {
	c.t.Helper()
	c.send(wire.ComStmtPrepare, []byte(sql))
	ps, err := c.read(wire.ComStmtPrepare, "")
	if err != nil || ps[0][0] != 0 {
		c.t.Fatalf("prepare %s: %q %v", sql, ps, err)
	}
	return binary.LittleEndian.Uint32(ps[0][1:])
}

// executeStmt executes with one integer parameter; bound sends its type.
func (c *rawClient) executeStmt(id uint32, v int32, bound bool) [][]byte {
	c.t.Helper()
	arg := binary.LittleEndian.AppendUint32(nil, id)
	arg = append(arg, 0, 1, 0, 0, 0, 0)
	if bound {
		arg = append(arg, 1, 3, 0)
	} else {
		arg = append(arg, 0)
	}
	c.send(wire.ComStmtExecute, binary.LittleEndian.AppendUint32(arg, uint32(v)))
	ps, err := c.read(wire.ComStmtExecute, "")
	if err != nil {
		c.t.Fatal(err)
	}
	return ps
}

// value returns the first value of a query's first row.
func (c *rawClient) value(sql string) string {
	c.t.Helper()
	ps := c.query(sql)
	if len(ps) < 3 || ps[0][0] == wire.HeaderERR {
		c.t.Fatalf("%s: %q", sql, ps)
	}
	at := 1 + int(ps[0][0])
	if !c.cl.Caps.Has(wire.DeprecateEOF) {
		at++
	}
	if at >= len(ps)-1 {
		return ""
	}
	v, _, _ := wire.ReadLenencString(ps[at])
	return string(v)
}

func (c *rawClient) expect(want string, sql string) {
	c.t.Helper()
	if v := c.value(sql); v != want {
		c.t.Errorf("%s: %q, want %q", sql, v, want)
	}
}

// equip gives a session everything that can be carried over.
func equip(c *rawClient) (id uint32) {
	c.must("SET NAMES latin1 COLLATE latin1_german2_ci", "SET time_zone='+02:00'", "SET sql_mode='ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
		"SET SESSION transaction_isolation='READ-COMMITTED', lock_wait_timeout=77", "SET max_sort_length=2000", "SET character_set_results=NULL",
		"SET @num=5, @txt='a''b', @neg = -1.5, @nul=NULL", "SET ROLE reader", "USE plain2",
		`PREPARE "p" FROM 'SELECT ? + 1'`, "SET last_insert_id=42", "SET unique_checks=0", "SET net_retry_count=9")
	id = c.prepareStmt("SELECT ? * 2")
	c.executeStmt(id, 4, true)
	return id
}

func checkEquipped(c *rawClient, id uint32) {
	c.t.Helper()
	c.expect("42", "SELECT LAST_INSERT_ID()")
	c.expect("plain2", "SELECT DATABASE()")
	c.expect("latin1,latin1_german2_ci,NULL", "SELECT CONCAT(@@character_set_client, ',', @@collation_connection, ',', IFNULL(@@character_set_results, 'NULL'))")
	c.expect("+02:00", "SELECT @@time_zone")
	c.expect("ANSI_QUOTES,NO_BACKSLASH_ESCAPES", "SELECT @@sql_mode")
	c.expect("READ-COMMITTED 77 2000 0 9", "SELECT CONCAT_WS(' ', @@transaction_isolation, @@lock_wait_timeout, @@max_sort_length, @@unique_checks, @@net_retry_count)")
	c.expect("5 a'b -1.5 1", "SELECT CONCAT_WS(' ', @num, @txt, @neg, @nul IS NULL)")
	c.expect(`"reader"@"%"`, "SELECT CURRENT_ROLE()")
	c.must("SET @one=1")
	c.expect("2", "EXECUTE p USING @one")
	// The types were sent to the other server only.
	if ps := c.executeStmt(id, 21, false); len(ps) < 3 || !strings.Contains(string(ps[2]), "\x2a") {
		c.t.Errorf("execute: %q", ps)
	}
	if next := c.prepareStmt("SELECT 1"); next == id {
		c.t.Error("a statement id was given twice")
	}
}

// TestSessionMoves: with the primary a session moves, and keeps what it has.
func TestSessionMoves(t *testing.T) {
	g := newPair(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	c.expect("1", "SELECT a FROM plain.here")
	id := equip(c)
	c.must("SET @txt2=CONCAT('x', 'y')") // only the server knows it
	idle := g.client(t, false, "plain", 0, 0)
	idle.must("SET @x=1")
	g.pair.move(Outcome{})
	checkEquipped(c, id)
	c.expect("xy", "SELECT @txt2")
	c.expect("2", "SELECT a FROM plain.here")
	idle.send(wire.ComPing, nil)
	if ps, err := idle.read(wire.ComPing, ""); err != nil || ps[0][0] != 0 {
		t.Errorf("ping: %q %v", ps, err)
	}
	idle.expect("2", "SELECT a FROM plain.here")
	if n := g.srv.Rebuilt(); n != 2 {
		t.Errorf("%d sessions were moved, want 2", n)
	}
	// And back again.
	g.pair.move(Outcome{})
	checkEquipped(c, id)
	c.must("USE plain", "INSERT INTO t VALUES (1, 'x')")
	c.expect("1", "SELECT COUNT(*) FROM t")
}

// TestTransactionAtMove: an open transaction is told to start again, its session
// goes on.
func TestTransactionAtMove(t *testing.T) {
	g := newPair(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	c.must("BEGIN", "INSERT INTO t VALUES (1, 'x')")
	g.pair.move(Outcome{})
	if e := c.fails("INSERT INTO t VALUES (2, 'x')"); e == nil || e.Code != 1213 || e.State != "40001" {
		t.Errorf("in a transaction: %v", e)
	}
	c.expect("2", "SELECT a FROM here")
	c.must("BEGIN", "INSERT INTO t VALUES (3, 'x')", "COMMIT")
	c.expect("1", "SELECT COUNT(*) FROM t")
	c.must("BEGIN", "INSERT INTO t VALUES (4, 'x')")
	g.pair.move(Outcome{})
	c.must("ROLLBACK")
	c.expect("0", "SELECT COUNT(*) FROM t")
}

// TestServerDies: sessions outlive a server that is killed, idle, in a query and
// in a transaction.
func TestServerDies(t *testing.T) {
	g := newPair(t, nil)
	idle := g.client(t, false, "plain", 0, 0)
	id := equip(idle)
	inTx := g.client(t, false, "plain", 0, 0)
	inTx.must("BEGIN", "INSERT INTO t VALUES (7, 'x')")
	idleTx := g.client(t, false, "plain", 0, 0)
	idleTx.must("BEGIN", "INSERT INTO t VALUES (8, 'x')")
	query := g.client(t, false, "plain", 0, 0)
	unknown := g.client(t, false, "plain", 0, 0)
	unknown.must("SELECT @x := 5")
	query.send(wire.ComQuery, []byte("SELECT a, SLEEP(IF(a=1, 600, 0)) FROM here"))
	inTx.send(wire.ComQuery, []byte("SELECT SLEEP(100)"))
	eventually(t, "the queries run", func() bool {
		return g.db.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '%SLEEP(%' AND ID<>CONNECTION_ID()") == "2"
	})
	g.db.Kill(t)
	g.pair.move(Outcome{})
	checkEquipped(idle, id)
	if ps, err := query.read(wire.ComQuery, ""); err != nil || len(ps) < 4 || string(ps[3]) != "\x012\x010" {
		t.Errorf("query: %q %v", ps, err)
	}
	for name, c := range map[string]*rawClient{"in a query": inTx, "idle": idleTx} {
		if c == inTx {
			ps, err := c.read(wire.ComQuery, "")
			if err != nil {
				t.Fatal(err)
			}
			if e, _ := wire.ParseERR(ps[0]); e == nil || e.Code != 1213 {
				t.Errorf("transaction %s: %q", name, ps)
			}
		} else if e := c.fails("SELECT 1"); e == nil || e.Code != 1213 {
			t.Errorf("transaction %s: %v", name, e)
		}
		c.must("BEGIN", "INSERT INTO t (b) VALUES ('y')", "COMMIT")
	}
	query.expect("2", "SELECT COUNT(*) FROM t")
	if e := unknown.fails("SELECT @x"); e == nil || e.Code != 1053 || !strings.Contains(e.Message, "@x") {
		t.Errorf("lost user variable: %v", e)
	}
	unknown.closed()
}

// closed checks that the connection is closed.
func (c *rawClient) closed() {
	c.t.Helper()
	_ = c.cl.Conn.RawConn().SetDeadline(time.Now().Add(30 * time.Second))
	p, err := c.cl.Conn.ReadPacket(1 << 16)
	if err == nil {
		c.t.Errorf("the connection is open, and says %q", p)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Error("the session goes on")
	}
}

// TestCommitInFlight: a COMMIT that the server's death overtook gets the group's
// verdict, a statement in autocommit mode that was aborted is run again.
func TestCommitInFlight(t *testing.T) {
	for _, committed := range []bool{true, false} {
		g := newPair(t, nil)
		c, d := g.client(t, false, "plain", 0, 0), g.client(t, false, "plain", 0, 0)
		g.pair.mu.Lock()
		g.pair.hold = true
		g.pair.mu.Unlock()
		c.must("BEGIN", "INSERT INTO t VALUES (1, 'tx')")
		c.send(wire.ComQuery, []byte("COMMIT"))
		d.send(wire.ComQuery, []byte("INSERT INTO t VALUES (2, 'auto')"))
		eventually(t, "both are prepared", func() bool {
			return g.db.Value(t, "SELECT COUNT(*) FROM performance_schema.events_transactions_current WHERE XA_STATE='PREPARED'") == "2"
		})
		g.db.Kill(t)
		g.pair.move(Outcome{Committed: committed, N: 9, GTID: groupUUID + ":9"})
		ps, err := c.read(wire.ComQuery, "")
		if err != nil {
			t.Fatal(err)
		}
		e, _ := wire.ParseERR(ps[0])
		if committed && e != nil || !committed && (e == nil || e.Code != 3101) {
			t.Errorf("COMMIT, committed %v: %v", committed, e)
		}
		if ps, err = d.read(wire.ComQuery, ""); err != nil || ps[0][0] != 0 {
			t.Errorf("autocommit, committed %v: %q %v", committed, ps, err)
		}
		want := "0" // the pair does not replicate
		if !committed {
			want = "1"
		}
		d.expect(want, "SELECT COUNT(*) FROM t WHERE b='auto'")
		c.expect("0", "SELECT COUNT(*) FROM t WHERE b='tx'")
		c.must("BEGIN", "INSERT INTO t VALUES (3, 'x')", "COMMIT")
	}
}

// hastyGroup is a group whose primary moves just before the next xid is made.
type hastyGroup struct {
	*pairGroup
	next atomic.Bool
}

func (g *hastyGroup) NewXID() string {
	if g.next.CompareAndSwap(true, false) {
		g.move(Outcome{})
	}
	return g.pairGroup.NewXID()
}

// TestXIDOfTheNextPrimary: a session whose primary moves between its last look and
// its xid does not use on the former primary an xid that is made for the next one:
// it would have no verdict.
func TestXIDOfTheNextPrimary(t *testing.T) {
	h := &hastyGroup{}
	g := newPair(t, func(o *Options) { h.pairGroup = o.Group.(*pairGroup); o.Group = h })
	c := g.client(t, false, "plain", 0, 0)
	for i, at := range []string{"2", "1", "2", "1"} {
		insert := fmt.Sprintf("INSERT INTO t VALUES (%d, 'x')", i+1)
		h.next.Store(true)
		if i < 2 {
			c.must(insert)
		} else {
			c.must("BEGIN", insert, "COMMIT")
		}
		c.expect(at, "SELECT a FROM here")
		c.expect("1", fmt.Sprintf("SELECT COUNT(*) FROM t WHERE a=%d", i+1))
	}
	for _, db := range []*mysqldtest.Server{g.db, g.other} {
		if v := db.Value(t, "SELECT COUNT(*) FROM plain.t"); v != "2" {
			t.Errorf("%s rows on one of the servers", v)
		}
	}
}

// TestUnfitSessions: what cannot be built again ends with an error that says why.
func TestUnfitSessions(t *testing.T) {
	g := newPair(t, nil)
	g.both("CREATE PROCEDURE plain.v() SET @hidden=1", "CREATE PROCEDURE plain.none() SELECT 1")
	for _, x := range []struct{ sql, want string }{
		{"CREATE TEMPORARY TABLE tt (a INT)", "temporary tables"},
		{"DO GET_LOCK('a', 1)", "locks by name"},
		{"LOCK TABLES t READ", "locked tables"},
		{"HANDLER t OPEN", "HANDLER"},
		{"CALL v()", "routine"},
		{"FLUSH TABLES WITH READ LOCK", ""},
	} {
		user := "plain"
		if strings.HasPrefix(x.sql, "FLUSH") {
			user = "root"
		}
		c, undone := g.client(t, false, user, 0, 0), g.client(t, false, "plain", 0, 0)
		c.must(x.sql)
		undone.must("CALL none()", "CREATE TEMPORARY TABLE gone (a INT)", "DROP TEMPORARY TABLE gone")
		if user == "root" {
			c.must("UNLOCK TABLES")
		}
		g.pair.move(Outcome{})
		e := c.fails("SELECT 1")
		if e == nil || e.Code != 1053 || !strings.Contains(e.Message, x.want) {
			t.Errorf("%s: %v", x.sql, e)
		} else {
			c.closed()
		}
		undone.must("SELECT 1")
	}
}

// TestNoNewPrimary: while there is no primary a statement gets an error, and the
// session stays.
func TestNoNewPrimary(t *testing.T) {
	g := newPair(t, func(o *Options) { o.RebuildWait = 300 * time.Millisecond })
	c := g.client(t, false, "plain", 0, 0)
	c.must("SET @x=3")
	g.other.Kill(t)
	g.pair.move(Outcome{})
	noPrimary := func() bool {
		t.Helper()
		e := c.fails("SELECT 1")
		if e != nil && !strings.Contains(e.Message, "no primary") {
			t.Fatalf("without a primary: %v", e)
		}
		return e != nil
	}
	if !noPrimary() {
		t.Error("a statement ran without a primary")
	}
	g.pair.move(Outcome{})
	// Nor is there one for a session that takes too long to build.
	eventually(t, "the session goes on", func() bool { return !noPrimary() })
	c.expect("3", "SELECT @x")
}
