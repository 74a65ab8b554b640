package proxy

import (
	"strings"
	"testing"
	"time"

	"cohort/internal/wire"
)

// reign begins an epoch of the server that is the primary's.
func (g *pairRig) reign(epoch uint64, remote bool) {
	g.pair.mu.Lock()
	defer g.pair.mu.Unlock()
	g.pair.epoch, g.pair.remote = epoch, remote
}

// TestServerIsFenced: a server that its member has made read-only, and that this
// member takes for the primary's, is left like one that went away.
func TestServerIsFenced(t *testing.T) {
	g := newPair(t, nil)
	g.both("CREATE PROCEDURE plain.one(x INT) INSERT INTO t VALUES (x, 'call')",
		"CREATE PROCEDURE plain.two(x INT) BEGIN DO 1; COMMIT; INSERT INTO t VALUES (x, 'call'); END")
	g.reign(1, true)
	type client struct {
		*rawClient
		stmt string
	}
	open := func(stmt string, before ...string) client {
		t.Helper()
		c := g.client(t, false, "plain", 0, 0)
		c.expect("1", "SELECT a FROM here")
		c.must(before...)
		return client{c, stmt}
	}
	waits := []client{
		open("INSERT INTO t VALUES (1, 'burst')"),
		open("INSERT INTO t VALUES (2, '"+strings.Repeat(" ", maxBurst)+"' 'x') ON DUPLICATE KEY UPDATE b='y'", "SET sql_mode=''"),
		open("INSERT INTO t VALUES (3, 'off')", "SET autocommit=0"),
		open("CALL one(4)"),
		open("CREATE TABLE made (a INT)"),
		open("EXECUTE p", "PREPARE p FROM 'INSERT INTO t VALUES (5, ''execute'')'"),
	}
	aborted := []client{
		open("INSERT INTO t VALUES (11, 'x')", "BEGIN", "INSERT INTO t VALUES (10, 'tx')"),
		open("INSERT INTO t VALUES (12, 'x')", "BEGIN", "SELECT * FROM t"),
		open("INSERT INTO t VALUES (14, 'x')", "SET autocommit=0", "INSERT INTO t VALUES (13, 'tx')"),
	}
	ends := open("CALL two(20)")
	g.db.SQL(t, "SET GLOBAL super_read_only=ON")
	for _, c := range aborted {
		if e := c.fails(c.stmt); e == nil || e.Code != 1213 || e.State != "40001" {
			t.Errorf("%s in a transaction: %v", c.stmt, e)
		}
	}
	if e := ends.fails(ends.stmt); e == nil || e.Code != 1180 || !strings.Contains(e.Message, "unknown") {
		t.Errorf("a procedure that commits: %v", e)
	}
	refusals := func() string {
		return g.db.Value(t, "SELECT SUM_ERROR_RAISED FROM performance_schema.events_errors_summary_global_by_error WHERE ERROR_NUMBER=1290")
	}
	for _, c := range waits {
		before := refusals()
		c.send(wire.ComQuery, []byte(c.stmt))
		eventually(t, "it is refused", func() bool { return refusals() != before })
	}
	g.pair.move(Outcome{})
	for _, c := range waits {
		_ = c.cl.Conn.RawConn().SetDeadline(time.Now().Add(time.Minute))
		ps, err := c.read(wire.ComQuery, "")
		if err != nil || ps[len(ps)-1][0] == wire.HeaderERR {
			t.Errorf("%.40s: %q, %v", c.stmt, ps, err)
		}
	}
	waits[2].must("COMMIT")
	for _, c := range aborted {
		c.must("BEGIN", c.stmt, "COMMIT")
	}
	ends.expect("1,2,3,4,5,11,12,14", "SELECT GROUP_CONCAT(a ORDER BY a) FROM t")
	if v := g.db.Value(t, "SELECT COUNT(*) FROM plain.t"); v != "0" {
		t.Errorf("%s rows on the server that was fenced", v)
	}
}

// TestFencedForGood: without another primary the statement ends with an error, after
// the usual time. What is read-only by its administrator's will says so.
func TestFencedForGood(t *testing.T) {
	g := newPair(t, func(o *Options) { o.RebuildWait = 300 * time.Millisecond })
	g.db.SQL(t, "SET GLOBAL super_read_only=ON")
	for _, x := range []struct {
		epoch  uint64
		remote bool
		code   uint16
		says   string
	}{
		{0, false, 1290, "--read-only"}, // out of the group
		{1, false, 1290, "--read-only"}, // and still the open primary
		{2, true, 1105, "no primary"},
	} {
		g.reign(x.epoch, x.remote)
		c := g.client(t, false, "plain", 0, 0)
		for _, stmt := range []string{"INSERT INTO t VALUES (1, 'x')", "CREATE TABLE made (a INT)"} {
			if e := c.fails(stmt); e == nil || e.Code != x.code || !strings.Contains(e.Message, x.says) {
				t.Errorf("epoch %d, remote %v: %s: %v", x.epoch, x.remote, stmt, e)
			}
		}
	}
}
