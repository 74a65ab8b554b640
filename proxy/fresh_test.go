package proxy

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// readsWait: while the member does not know whether the first server, which is the
// primary's, is still the only one, what reads tables there waits, and nothing else.
func (g *pairRig) readsWait(t *testing.T) {
	open := func() *rawClient {
		c := g.client(t, false, "plain", 0, 0)
		_ = c.cl.Conn.RawConn().SetDeadline(time.Now().Add(time.Minute))
		return c
	}
	c, inTx, prepared := open(), open(), open()
	c.expect("1", "SELECT a FROM here")
	inTx.must("BEGIN")
	prepared.must("PREPARE p FROM 'SELECT a FROM here'")
	g.pair.stale.Store(true)
	c.expect("1", "SELECT 1")
	c.expect("x", "SELECT 'x' AS `from`")
	c.must("SET @a = 1", "DO 1", "INSERT INTO t VALUES (70, 'x')")

	waits := func(from int64) {
		t.Helper()
		eventually(t, "the reads wait", func() bool { return g.pair.waiting.Load() == from })
	}
	before := g.pair.waiting.Load()
	c.send(wire.ComQuery, []byte("SELECT (SELECT a FROM here) + 0"))
	waits(before + 1)
	g.pair.stale.Store(false)
	if ps, err := c.read(wire.ComQuery, ""); err != nil || string(ps[len(ps)-2]) != "\x011" {
		t.Errorf("a read that waited: %q %v", ps, err)
	}
	g.pair.stale.Store(true)
	c.send(wire.ComQuery, []byte("SELECT a FROM here"))
	inTx.send(wire.ComQuery, []byte("SELECT a FROM here"))
	prepared.send(wire.ComQuery, []byte("EXECUTE p"))
	waits(before + 4)
	g.pair.move(Outcome{})
	for _, x := range []*rawClient{c, prepared} {
		if ps, err := x.read(wire.ComQuery, ""); err != nil || string(ps[len(ps)-2]) != "\x012" {
			t.Errorf("a read that moved: %q %v", ps, err)
		}
	}
	ps, err := inTx.read(wire.ComQuery, "")
	if err != nil || ps[0][0] != wire.HeaderERR {
		t.Fatalf("in a transaction: %q %v", ps, err)
	}
	if e, err := wire.ParseERR(ps[0]); err != nil || e.Code != 1213 {
		t.Errorf("in a transaction: %v %v", e, err)
	}
	inTx.expect("2", "SELECT a FROM here")
	g.pair.stale.Store(false)
}

// oldGroup never becomes fresh; eventual: nobody needs it who does not say so.
type oldGroup struct {
	*soloGroup
	eventual atomic.Bool
}

func (g *oldGroup) Fresh(_ Backend, always bool) bool { return g.eventual.Load() && !always }

func (g *oldGroup) AwaitFresh(context.Context, Backend, bool) error { return errors.New("it is old") }

// sessionConsistency: what a session sets group_replication_consistency to counts for
// its reads, and for them alone.
func (g *rig) sessionConsistency(t *testing.T) {
	old := &oldGroup{soloGroup: g.group}
	g.startProxy(func(o *Options) { o.Group, o.Admin = old, &testAdmin{} })
	c, other := g.client(t, false, "root", 0, 0), g.client(t, false, "root", 0, 0)
	const read = "SELECT COUNT(*) FROM mysql.user WHERE user = 'root' AND host = 'localhost'"
	held := func(c *rawClient) {
		t.Helper()
		if e := c.fails(read); e == nil || e.Code != 3781 || e.State != "HY000" {
			t.Errorf("a read that is held: %v", e)
		}
	}
	shows := func(want string) {
		t.Helper()
		for _, sql := range []string{"SELECT @@group_replication_consistency", "SELECT @@SESSION.group_replication_consistency"} {
			c.expect(want, sql)
		}
		c.expect("BEFORE_ON_PRIMARY_FAILOVER", "SELECT @@GLOBAL.group_replication_consistency")
	}
	held(c)
	shows("BEFORE_ON_PRIMARY_FAILOVER")
	c.must("SET SESSION group_replication_consistency = 'EVENTUAL'")
	c.expect("1", read)
	shows("EVENTUAL")
	held(other)
	c.must("SET group_replication_consistency = 'BEFORE_ON_PRIMARY_FAILOVER'")
	held(c)
	old.eventual.Store(true)
	held(c)
	other.expect("1", read)
	c.send(wire.ComResetConnection, nil)
	if _, err := c.read(wire.ComResetConnection, ""); err != nil {
		t.Fatal(err)
	}
	c.expect("1", read)
}

func TestReadsTables(t *testing.T) {
	for sql, want := range map[string]bool{
		"SELECT 1":                            false,
		"SELECT @@version_comment LIMIT 1":    false,
		"SELECT a FROM t":                     true,
		"SELECT (SELECT a FROM t)":            true,
		"TABLE t":                             true,
		"WITH x AS (SELECT a FROM t) TABLE x": true,
		"SELECT f()":                          true,
		"CALL p()":                            true,
		"SET @a = 1":                          false,
		"SET @a = (SELECT MAX(a) FROM t)":     true,
		"DO f()":                              true,
		"INSERT INTO t SELECT a FROM u":       false,
		"BEGIN":                               false,
		"START GROUP_REPLICATION":             false,
		"SELECT * FROM performance_schema.replication_group_members": false,
	} {
		s := &session{}
		if got := s.readsTables(&stmt{st: sqlparse.Classify([]byte(sql), sqlparse.Mode{}), text: []byte(sql), query: true}); got != want {
			t.Errorf("%s: %t", sql, got)
		}
	}
	if s := (&session{}); !s.readsTables(&stmt{execute: true}) {
		t.Error("a prepared statement that was never seen")
	}
}
