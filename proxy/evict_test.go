package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	// The signal is on its way; a thread that runs may go on for a moment.
	eventually(t, "all of it stands still", func() bool {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", g.db.Pid))
		for _, name := range stats {
			b, rerr := os.ReadFile(name)
			err = errors.Join(err, rerr)
			if i := bytes.LastIndexByte(b, ')'); i < 0 || !bytes.HasPrefix(b[i+1:], []byte(" T")) {
				return false
			}
		}
		return err == nil && len(stats) > 0
	})
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
	g.writesWait(t)
}

// writesWait: what mysqld commits by itself is sent only to a server that answers and
// is certain to be the primary's. One that stood still would run it when it goes on.
func (g *pairRig) writesWait(t *testing.T) {
	statements := []string{
		"CREATE TABLE made%d (a INT PRIMARY KEY)",
		"CREATE USER made%d@localhost",
		"CALL itself(%d)",
	}
	g.both("CREATE PROCEDURE plain.itself(x INT) BEGIN INSERT INTO t VALUES (100+x, 'call'); COMMIT; END")
	g.pair.move(Outcome{}) // to the first server
	var clients []*rawClient
	open := func() *rawClient {
		c := g.client(t, false, "root", 0, 0)
		c.must("USE plain")
		c.expect("1", "SELECT a FROM here")
		_ = c.cl.Conn.RawConn().SetDeadline(time.Now().Add(time.Minute))
		clients = append(clients, c)
		return c
	}
	answered := func(where string) {
		t.Helper()
		for i, c := range clients {
			if ps, err := c.read(wire.ComQuery, ""); err != nil || ps[len(ps)-1][0] == wire.HeaderERR {
				t.Errorf("%s: %s: %q %v", where, statements[i], ps, err)
			}
			c.expect("2", "SELECT a FROM here")
		}
		clients = nil
	}
	for round, where := range []string{"cut off", "standing still"} {
		before := g.pair.waiting.Load()
		for range statements {
			open()
		}
		if where == "cut off" {
			g.pair.stale.Store(true)
		} else {
			g.freeze(t)
		}
		for i, c := range clients {
			c.send(wire.ComQuery, fmt.Appendf(nil, statements[i], round))
		}
		if where == "cut off" {
			eventually(t, "they wait", func() bool { return g.pair.waiting.Load() == before+int64(len(clients)) })
		} else {
			eventually(t, "they have come", func() bool { n, _ := g.srv.running(false); return n == len(clients) })
			time.Sleep(50 * time.Millisecond) // and would be on their way to the server
		}
		g.pair.move(Outcome{Committed: true, N: 9, GTID: groupUUID + ":9"})
		answered(where)
		g.pair.stale.Store(false)
		g.thaw()
		g.pair.move(Outcome{})
	}
	// Those that were sent before have ended when a new one is answered.
	eventually(t, "the old server has gone on", func() bool {
		return g.db.Value(t, "SELECT COUNT(*) FROM information_schema.processlist WHERE db = 'plain'") == "0"
	})
	const made = "SELECT (SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE 'made_')" +
		" + (SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'made_') + (SELECT COUNT(*) FROM plain.t WHERE a >= 100)"
	if v := g.db.Value(t, made); v != "0" {
		t.Errorf("%s statements ran on the server that was replaced", v)
	}
	if v := g.other.Value(t, made); v != "6" {
		t.Errorf("%s statements ran on the next one, not 6", v)
	}
}
