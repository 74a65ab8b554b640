package proxy

import (
	"context"
	"fmt"
	"testing"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

func TestEffects(t *testing.T) {
	for _, x := range []struct{ sql, want string }{
		{"SELECT 'a@b', a_b FROM t", "[] [] false false"},
		{"SELECT @x, @@sql_mode", "[] [] false false"},
		{"SELECT @x := 1, @y", "[{x }] [] false false"},
		{"SELECT 1 INTO @x", "[{x }] [] false false"},
		{"CALL p(@x)", "[{x }] [] false false"},
		{"SET @x = 1, @Y:='a,b'", "[{x 1} {y 'a,b'}] [] false false"},
		{"SET @x = -1.5, @y = 1+1, @z = (SELECT 1, 2), @`q r`=NULL", "[{x -1.5} {y } {z } {q r NULL}] [] false false"},
		{"SET @x = (@y := 5)", "[{y } {x }] [] false false"},
		{"SET SESSION a=1, @@b=2, @@global.c=3, GLOBAL d=4, @@session.e=5", "[] [a b e] false false"},
		{"SET NAMES utf8mb4 COLLATE utf8mb4_bin", "[] [collation_connection names] false false"},
		{"DO get_lock('a', 1)", "[] [] true false"},
		{"SELECT RELEASE_ALL_LOCKS()", "[] [] false true"},
		{"SET @x = GET_LOCK('a', 1)", "[{x }] [] true false"},
	} {
		st := sqlparse.Classify([]byte(x.sql), sqlparse.Mode{})
		e := effectsOf(&st, []byte(x.sql), sqlparse.Mode{})
		if got := fmt.Sprint(e.vars, e.sysVars, e.locks, e.unlocks); got != x.want {
			t.Errorf("%s: %s, want %s", x.sql, got, x.want)
		}
	}
}

// TestBudget: a session that has more than is remembered is not built again.
func TestBudget(t *testing.T) {
	var k kept
	k.setUserVar("a", "'"+string(make([]byte, maxState/2))+"'")
	k.setUserVar("a", "1")
	k.setUserVar("b", "'"+string(make([]byte, maxState/2))+"'")
	if k.taint != "" {
		t.Error(k.taint)
	}
	k.setVar("c", string(make([]byte, maxState/2)))
	if k.taint == "" {
		t.Error("the budget does not hold")
	}
}

// TestCommandsAfterMove: the commands that concern what was lost.
func TestCommandsAfterMove(t *testing.T) {
	g := newPair(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	errno := func(code byte, arg []byte) uint16 {
		t.Helper()
		c.send(code, arg)
		ps, err := c.read(code, "")
		if err != nil {
			t.Fatal(err)
		}
		if e, _ := wire.ParseERR(ps[0]); e != nil {
			return e.Code
		}
		return 0
	}
	id := c.prepareStmt("SELECT CONCAT(?, 'x')")
	long := append(le32(id), 0, 0, 'a')
	c.send(wire.ComStmtSendLongData, long)
	c.must("SELECT 1")
	g.pair.move(Outcome{})
	if e := c.fails("SHOW WARNINGS"); e == nil || e.Code != 1105 {
		t.Errorf("SHOW WARNINGS: %v", e)
	}
	exec := append(le32(id), 0, 1, 0, 0, 0, 0, 1, 0xfd, 0)
	if n := errno(wire.ComStmtExecute, exec); n != 1105 {
		t.Errorf("execution without its long data: %d", n)
	}
	c.send(wire.ComStmtSendLongData, long)
	if n := errno(wire.ComStmtExecute, exec); n != 0 {
		t.Errorf("execution: %d", n)
	}
	if n := errno(wire.ComStmtFetch, append(le32(id), 1, 0, 0, 0)); n != 1421 {
		t.Errorf("fetch: %d", n)
	}
	if n := errno(wire.ComStmtExecute, append(le32(99), 0, 1, 0, 0, 0)); n != 1243 {
		t.Errorf("unknown statement: %d", n)
	}
	c.must("SET @x=1", "CREATE TEMPORARY TABLE tt (a INT)")
	g.pair.move(Outcome{})
	if n := errno(wire.ComResetConnection, nil); n != 0 {
		t.Errorf("reset: %d", n)
	}
	c.expect("", "SELECT @x")
	c.expect("plain", "SELECT DATABASE()")
	// The client answers to the salt of a server that it left.
	c.must("SET @x=1")
	g.pair.move(Outcome{})
	for range 2 {
		if _, err := c.cl.ChangeUser(context.Background(), "plain", "plain", "plain2", wire.PluginCachingSHA2); err != nil {
			t.Fatalf("change user: %v", err)
		}
	}
	c.expect("plain2", "SELECT DATABASE()")
	c.expect("", "SELECT @x")
	g.pair.move(Outcome{})
	c.expect("plain2", "SELECT DATABASE()")
}

func le32(v uint32) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }

// TestUnknownPassword: a session whose password the member never saw ends, and
// where a client sends it on demand, it is seen.
func TestUnknownPassword(t *testing.T) {
	g := newPair(t, nil)
	g.client(t, true, "plain", 0, 0).must("SELECT 1") // mysqld caches the account
	unknown := g.client(t, false, "plain", 0, 0)
	unknown.must("SELECT 1")
	ctx := context.Background()
	cl, err := wire.Dial(ctx, wire.Config{Network: "tcp", Addr: g.addr, User: "plain", Password: "plain",
		Attributes: [][2]string{{"_client_name", "Go-MySQL-Driver"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cl.Close() }()
	g.pair.move(Outcome{})
	if e := unknown.fails("SELECT 1"); e == nil || e.Code != 1053 {
		t.Errorf("unknown password: %v", e)
	}
	unknown.closed()
	if _, err := cl.Exec(ctx, "SELECT 1"); err != nil {
		t.Errorf("password sent on demand: %v", err)
	}
}
