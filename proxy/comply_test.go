package proxy

import (
	"strings"
	"testing"

	"cohort/internal/wire"
)

// testCompliance refuses the tables whose name begins with "bad".
type testCompliance struct{}

func (testCompliance) Any() bool { return true }
func (testCompliance) Refused(schema, table string) bool {
	return schema == "plain" && strings.HasPrefix(table, "bad")
}

// TestCompliance: tables that cannot be replicated may be read, not written; the
// transaction around the statement goes on.
func TestCompliance(t *testing.T) {
	g := newRig(t, func(o *Options) { o.Compliance = testCompliance{} })
	c := g.client(t, false, "plain", wire.MultiStatements, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY, b INT)", "CREATE TABLE bad (a INT, b INT)", "CREATE TABLE bad2 (a INT) ENGINE=MyISAM",
		"INSERT INTO t VALUES (1, 1)", "INSERT INTO t SELECT a+100, b FROM bad", "SELECT * FROM bad",
		"UPDATE t JOIN bad USING (a) SET t.b=bad.b", "DELETE t FROM t JOIN bad USING (a)")
	refused := func(sql string) {
		t.Helper()
		if e := c.fails(sql); e == nil || e.Code != 3098 || e.Message != errNotCompliant.Message {
			t.Errorf("%s: %v", sql, e)
		}
	}
	for _, sql := range []string{
		"INSERT INTO bad VALUES (1, 1)", "REPLACE `plain`.`bad` SELECT * FROM t", "UPDATE bad SET a=1", "UPDATE t x JOIN bad y USING (a) SET y.b=1",
		"DELETE FROM bad2", "SELECT 1; INSERT INTO bad VALUES (1, 1)", "LOAD DATA LOCAL INFILE 'x' INTO TABLE bad",
	} {
		refused(sql)
	}
	c.must("BEGIN", "INSERT INTO t VALUES (2, 2)")
	refused("INSERT INTO bad VALUES (1, 1)")
	c.must("COMMIT", "LOCK TABLES bad WRITE")
	refused("INSERT INTO bad VALUES (1, 1)")
	c.must("UNLOCK TABLES", "PREPARE s FROM 'INSERT INTO bad VALUES (1, 1)'", "USE information_schema")
	refused("EXECUTE s")
	c.must("USE plain")
	c.send(wire.ComStmtPrepare, []byte("DELETE FROM bad"))
	ps, err := c.read(wire.ComStmtPrepare, "")
	if err != nil {
		t.Fatal(err)
	}
	c.send(wire.ComStmtExecute, append(append([]byte(nil), ps[0][1:5]...), 0, 1, 0, 0, 0))
	if ps, err = c.read(wire.ComStmtExecute, ""); err != nil || ps[0][0] != wire.HeaderERR {
		t.Errorf("COM_STMT_EXECUTE: %q %v", ps, err)
	}
	c.must("CREATE TEMPORARY TABLE bad (a INT)", "INSERT INTO bad VALUES (1)")
	c.must("DROP TEMPORARY TABLE bad")
	refused("INSERT INTO bad VALUES (1, 1)")
	if v := g.db.Value(t, "SELECT CONCAT((SELECT COUNT(*) FROM plain.t), (SELECT COUNT(*) FROM plain.bad))"); v != "20" {
		t.Errorf("rows %s", v)
	}
}

// TestSwallowingRoutines: a procedure whose handler would swallow that XA refused
// its COMMIT does what it does without us.
func TestSwallowingRoutines(t *testing.T) {
	g := newRig(t, nil)
	c := g.client(t, false, "plain", wire.MultiStatements, 0)
	const handler = "DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; END; "
	c.must("CREATE TABLE t (a INT PRIMARY KEY)",
		"CREATE PROCEDURE p(x INT) BEGIN "+handler+"START TRANSACTION; INSERT INTO t VALUES (x); COMMIT; END",
		"CREATE PROCEDURE outer_p(x INT) BEGIN "+handler+"CALL `p`(x); END",
		"CREATE PROCEDURE trunc(x INT) BEGIN DECLARE CONTINUE HANDLER FOR SQLEXCEPTION SET @e=1; TRUNCATE TABLE t; INSERT INTO t VALUES (x); END",
		"CREATE PROCEDURE long_p(x INT) COMMENT 'COMMIT' BEGIN "+handler+"SET @x='"+strings.Repeat("y", 40000)+"'; START TRANSACTION; INSERT INTO t VALUES (x); COMMIT; END",
		"CREATE PROCEDURE roll() BEGIN INSERT INTO t VALUES (90); ROLLBACK; END",
	)
	rows := func(want string) {
		t.Helper()
		if v := g.db.Value(t, "SELECT COALESCE(GROUP_CONCAT(a ORDER BY a), '') FROM plain.t"); v != want {
			t.Errorf("rows %s, want %s", v, want)
		}
	}
	c.must("CALL p(1)", "CALL plain.p(2)", "CALL outer_p(3)", "CALL long_p(4)")
	rows("1,2,3,4")
	c.must("SET autocommit=0", "CALL p(5)")
	rows("1,2,3,4,5")
	c.must("SELECT 1", "CALL p(6)", "INSERT INTO t VALUES (7)", "ROLLBACK", "SET autocommit=1")
	rows("1,2,3,4,5,6")
	c.must("BEGIN", "INSERT INTO t VALUES (8)")
	if e := c.fails("CALL p(9)"); e == nil || e.Code != 1235 {
		t.Errorf("in a transaction: %v", e)
	}
	c.must("COMMIT")
	rows("1,2,3,4,5,6,8")
	c.must("BEGIN", "INSERT INTO t VALUES (10)")
	if e := c.fails("CALL roll()"); e == nil {
		t.Error("ROLLBACK in a transaction")
	}
	c.must("COMMIT")
	rows("1,2,3,4,5,6,8")
	c.must("CALL trunc(11)")
	rows("11")
	if w, _ := g.group.counts(); w != 1 {
		t.Errorf("%d wrapped", w)
	}
}
