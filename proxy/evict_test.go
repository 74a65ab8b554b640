package proxy

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"cohort/internal/wire"
)

// atWork waits for n of a client's statements in the old server of a pair.
func (g *pairRig) atWork(t *testing.T, n string) {
	t.Helper()
	eventually(t, "the statements run", func() bool {
		return g.db.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE='User sleep'") == n
	})
}

// freeze stops the old server as it is: it answers nothing, and its connections
// stay open.
func (g *pairRig) freeze(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(g.db.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.thaw)
}

func (g *pairRig) thaw() { _ = syscall.Kill(g.db.Pid, syscall.SIGCONT) }

// TestServerStandsStill: sessions at work on a server that neither answers nor
// closes its connections leave it once another one is the primary, at once where its
// member is silent.
func TestServerStandsStill(t *testing.T) {
	g := newPair(t, func(o *Options) { o.stuckAfter = time.Hour })
	g.pair.unheard.Store(true)
	open := func() *rawClient { return g.client(t, false, "plain", 0, 0) }
	inTx, read, write, idle, unknown := open(), open(), open(), open(), open()
	inTx.must("BEGIN", "INSERT INTO t VALUES (1, 'tx')")
	idle.must("SET @x=3")
	unknown.must("SET @u=CONCAT('x', 'y')") // only the server knows it
	// Only the old server, whose row says 1, sleeps.
	const sleep = "SLEEP(IF(a=1, 600, 0))"
	inTx.send(wire.ComQuery, []byte("SELECT "+sleep+" FROM here"))
	read.send(wire.ComQuery, []byte("SELECT a, "+sleep+" FROM here"))
	write.send(wire.ComQuery, []byte("INSERT INTO t SELECT 2, 'auto' FROM here WHERE "+sleep+"=0"))
	g.atWork(t, "3")
	g.freeze(t)
	g.pair.move(Outcome{})

	answer := func(c *rawClient) [][]byte {
		t.Helper()
		_ = c.cl.Conn.RawConn().SetDeadline(time.Now().Add(time.Minute))
		ps, err := c.read(wire.ComQuery, "")
		if err != nil {
			t.Fatal(err)
		}
		return ps
	}
	if ps := answer(inTx); ps[0][0] != wire.HeaderERR {
		t.Errorf("in a transaction: %q", ps)
	} else if e, err := wire.ParseERR(ps[0]); err != nil || e.Code != 1213 || e.State != "40001" {
		t.Errorf("in a transaction: %v %v", e, err)
	}
	if ps := answer(read); len(ps) < 4 || string(ps[3]) != "\x012\x010" {
		t.Errorf("a query: %q", ps)
	}
	if ps := answer(write); ps[0][0] != 0 {
		t.Errorf("a write in autocommit mode: %q", ps)
	}
	inTx.must("BEGIN", "INSERT INTO t VALUES (3, 'tx')", "COMMIT")
	write.expect("2,3", "SELECT GROUP_CONCAT(a ORDER BY a) FROM t")
	read.expect("2", "SELECT a FROM here")
	idle.expect("3", "SELECT @x")
	if e := unknown.fails("SELECT @u"); e == nil || e.Code != 1053 {
		t.Errorf("a value that only the old server knows: %v", e)
	} else {
		unknown.closed()
	}
}

// TestStandsStillAtCommit: a COMMIT that waits for a server that stands still is
// answered with the group's verdict.
func TestStandsStillAtCommit(t *testing.T) {
	g := newPair(t, nil)
	for i, committed := range []bool{true, false} {
		c := g.client(t, false, "plain", 0, 0)
		c.expect("1", "SELECT a FROM here")
		c.must("BEGIN", fmt.Sprintf("INSERT INTO t VALUES (%d, 'tx')", i+1))
		g.pair.expected.Store(0)
		g.pair.mu.Lock()
		g.pair.hold = true // the verdict comes with the move
		g.pair.mu.Unlock()
		g.freeze(t)
		c.send(wire.ComQuery, []byte("COMMIT"))
		eventually(t, "COMMIT asks for its verdict", func() bool { return g.pair.expected.Load() > 0 })
		g.pair.move(Outcome{Committed: committed, N: 9, GTID: groupUUID + ":9"})
		_ = c.cl.Conn.RawConn().SetDeadline(time.Now().Add(time.Minute))
		ps, err := c.read(wire.ComQuery, "")
		if err != nil {
			t.Fatal(err)
		}
		e, _ := wire.ParseERR(ps[0])
		if committed && (e != nil || ps[0][0] != 0) || !committed && (e == nil || e.Code != 3101) {
			t.Errorf("committed %v: %q", committed, ps)
		}
		c.expect("2", "SELECT a FROM here")
		g.thaw()
		g.pair.move(Outcome{})
	}
	g.readsWait(t)
}
