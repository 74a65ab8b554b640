package sqlparse

import (
	"strings"
	"testing"
)

func TestClassify(t *testing.T) {
	tests := []struct {
		sql   string
		class Class
		flags Flags
	}{
		{"", Empty, 0},
		{"  /* x */ -- y\n", Empty, 0},
		{"BEGIN", Begin, 0},
		{"begin work", Begin, 0},
		{" /* c */ BeGiN;", Begin, 0},
		{"START TRANSACTION", Begin, 0},
		{"START TRANSACTION READ ONLY", Begin, FlagReadOnly},
		{"START TRANSACTION READ WRITE, WITH CONSISTENT SNAPSHOT", Begin, FlagReadWrite | FlagSnapshot},
		{"START TRANSACTION WITH CONSISTENT SNAPSHOT , READ ONLY", Begin, FlagReadOnly | FlagSnapshot},
		{"/*!40101 COMMIT */", Commit, FlagVersioned},
		{"/*!99999 COMMIT */", Empty, 0},
		{"/*!COMMIT*/", Commit, FlagVersioned},
		{"-- x\nROLLBACK WORK", Rollback, 0},
		{"# x\nROLLBACK TO SAVEPOINT a", RollbackTo, 0},
		{"ROLLBACK WORK TO a", RollbackTo, 0},
		{"RELEASE SAVEPOINT a", ReleaseSavepoint, 0},
		{"SAVEPOINT a", Savepoint, 0},
		{"SELECT 1", Read, 0},
		{"(SELECT 1) UNION (SELECT 2)", Read, 0},
		{"((SELECT 1))", Read, 0},
		{"SELECT a FROM t FOR UPDATE", Read, FlagFrom | FlagLocking},
		{"SELECT a FROM t LOCK IN SHARE MODE", Read, FlagFrom | FlagLocking},
		{"SELECT a INTO @x FROM t", Read, FlagFrom | FlagInto},
		{"SELECT f(1)", Read, FlagCall},
		{"SELECT ROW_COUNT()", Read, FlagRowCount},
		{"select @@warning_count, @@session.error_count", Read, FlagDiagVar},
		{"SELECT @@group_replication_group_name", Read, FlagGroupVar},
		{"SELECT '@@group_replication_group_name'", Read, 0},
		{"SELECT * FROM performance_schema.`replication_group_members`", Read, FlagFrom | FlagGroupTable},
		{"WITH a AS (SELECT 1) SELECT * FROM a", Read, FlagFrom},
		{"WITH a AS (SELECT 1) UPDATE t SET a = 1", DML, 0},
		{"WITH RECURSIVE a (x) AS (SELECT 1) DELETE FROM t", DML, FlagCall},
		{"TABLE t", Read, FlagFrom},
		{"VALUES ROW(1)", Read, 0},
		{"EXPLAIN UPDATE t SET a=1", Read, 0},
		{"SHOW TABLES", Read, 0},
		{"SHOW WARNINGS LIMIT 1", Diagnostics, 0},
		{"SHOW COUNT(*) ERRORS", Diagnostics, 0},
		{"GET DIAGNOSTICS @n = NUMBER", Diagnostics, 0},
		{"GET CURRENT DIAGNOSTICS CONDITION 1 @a = MESSAGE_TEXT", Diagnostics, 0},
		{"INSERT INTO t VALUES (';')", DML, 0},
		{"insert t set a=1", DML, 0},
		{"REPLACE INTO t SELECT 1", DML, 0},
		{"LOAD DATA LOCAL INFILE 'x' INTO TABLE t", LoadData, FlagLocal},
		{"LOAD DATA INFILE 'x' INTO TABLE t", LoadData, 0},
		{"LOAD INDEX INTO CACHE t", Maintenance, 0},
		{"CREATE TABLE t (a INT)", DDL, FlagCall},
		{"CREATE TEMPORARY TABLE t (a INT)", CreateTemporary, FlagCall},
		{"CREATE TEMPORARY TABLE IF NOT EXISTS d.t SELECT 1", CreateTemporary, 0},
		{"DROP TEMPORARY TABLES a, b", DropTemporary, 0},
		{"CREATE USER a", Account, 0},
		{"ALTER USER a", Account, 0},
		{"CREATE ROLE a", Account, 0},
		{"GRANT SELECT ON *.* TO a", Account, 0},
		{"SET PASSWORD = 'x'", Account, 0},
		{"SET DEFAULT ROLE ALL TO a", Account, 0},
		{"SET ROLE a", Set, 0},
		{"SET NAMES utf8mb4", Set, 0},
		{"SET TRANSACTION READ ONLY", SetTransaction, FlagOneShot | FlagReadOnly},
		{"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", SetTransaction, 0},
		{"SET GLOBAL TRANSACTION READ WRITE", SetTransaction, FlagReadWrite},
		{"SET sql_log_bin=0", Set, FlagForbidden},
		{"SET @@SESSION.SQL_LOG_BIN= 0;", Set, FlagForbidden},
		{"SET @@session.`sql_log_bin` := 0", Set, FlagForbidden},
		{"SET @a=1, SESSION gtid_next='x:1'", Set, FlagForbidden},
		{"SET GLOBAL super_read_only=1", Set, FlagForbidden},
		// What follows an option without a value is judged too.
		{"SET NAMES utf8mb4, sql_log_bin=0", Set, FlagForbidden},
		{"SET NAMES utf8mb4 COLLATE utf8mb4_bin, @@session.sql_log_bin=0", Set, FlagForbidden},
		{"SET CHARACTER SET utf8mb4, SESSION session_track_gtids=OFF", Set, FlagTrackers},
		{"SET @a=1, NAMES utf8mb4, sql_log_bin=0", Set, FlagForbidden},
		{"SET NAMES utf8mb4", Set, 0},
		{"SET PERSIST binlog_format='STATEMENT'", Set, FlagForbidden},
		{"SET sql_log_bin=1", Set, 0},
		{"SET @@gtid_next='AUTOMATIC'", Set, 0},
		{"SET @sql_log_bin=0", Set, 0},
		{"SET session_track_gtids=OFF", Set, FlagTrackers},
		{"SET GLOBAL group_replication_consistency='AFTER'", Set, FlagSetGroupVar},
		{"LOCK TABLES t READ", LockTables, 0},
		{"LOCK INSTANCE FOR BACKUP", LockInstance, 0},
		{"UNLOCK TABLES", UnlockTables, 0},
		{"FLUSH TABLES WITH READ LOCK", Maintenance, 0},
		{"CALL p()", Call, FlagCall},
		{"DO SLEEP(1)", Do, 0},
		{"PREPARE s FROM 'SELECT 1'", Prepare, 0},
		{"EXECUTE s USING @a", Execute, 0},
		{"DEALLOCATE PREPARE s", Deallocate, 0},
		{"DROP PREPARE s", Deallocate, 0},
		{"HANDLER t OPEN", Handler, 0},
		{"KILL QUERY 1", Kill, 0},
		{"USE a", Use, 0},
		{"START GROUP_REPLICATION", StartGroup, 0},
		{"STOP GROUP_REPLICATION", StopGroup, 0},
		{"START REPLICA", Maintenance, 0},
		{"XA START 'a'", XAStart, 0},
		{"XA BEGIN 'a','b',1", XAStart, 0},
		{"XA START X'00' JOIN", XAStart, FlagXAOption},
		{"XA COMMIT 'a' ONE PHASE", XACommit, FlagOnePhase},
		{"XA ROLLBACK 'a'", XARollback, 0},
		{"XA RECOVER CONVERT XID", XARecover, 0},
		{"BINLOG 'abc'", Unknown, 0},
		{"SELECT 'abc", Read, FlagBad},
		{"TRUNCATE t", DDL, 0},
	}
	for _, tt := range tests {
		st := Classify([]byte(tt.sql), Mode{})
		if st.Class != tt.class || st.Flags != tt.flags {
			t.Errorf("%q: got %v %b, want %v %b", tt.sql, st.Class, st.Flags, tt.class, tt.flags)
		}
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct{ sql, name, arg string }{
		{"SAVEPOINT `a b`", "`a b`", ""},
		{"ROLLBACK TO savepoint", "savepoint", ""},
		{"ROLLBACK TO SAVEPOINT s", "s", ""},
		{"PREPARE s FROM @x", "s", "@x"},
		{"PREPARE s FROM 'SELECT 1'", "s", "'SELECT 1'"},
		{"CALL db . p (1)", "db . p", ""},
		{"CREATE TEMPORARY TABLE IF NOT EXISTS a.`b` (x int)", "a.`b`", ""},
		{"XA START X'01', '', 1", "X'01', '', 1", ""},
		{"XA COMMIT 'a','b' ONE PHASE", "'a','b'", ""},
		{"SET @@GLOBAL.group_replication_consistency = 'AFTER'", "@@GLOBAL.group_replication_consistency", "'AFTER'"},
		{"SET a=1, SESSION SQL_LOG_BIN = 0", "SQL_LOG_BIN", ""},
		{"use `x`", "`x`", ""},
	} {
		st := Classify([]byte(tt.sql), Mode{})
		if g := string(st.Name.Of([]byte(tt.sql))); g != tt.name {
			t.Errorf("%q: name %q, want %q", tt.sql, g, tt.name)
		}
		if g := string(st.Arg.Of([]byte(tt.sql))); g != tt.arg {
			t.Errorf("%q: arg %q, want %q", tt.sql, g, tt.arg)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, tt := range []struct {
		sql            string
		chain, release Option
	}{
		{"COMMIT", Unset, Unset},
		{"COMMIT AND CHAIN", Yes, Unset},
		{"COMMIT WORK AND NO CHAIN RELEASE", No, Yes},
		{"ROLLBACK AND NO CHAIN NO RELEASE", No, No},
		{"ROLLBACK RELEASE", Unset, Yes},
	} {
		if st := Classify([]byte(tt.sql), Mode{}); st.Chain != tt.chain || st.Release != tt.release {
			t.Errorf("%q: chain %v release %v", tt.sql, st.Chain, st.Release)
		}
	}
}

func TestAutocommit(t *testing.T) {
	for _, tt := range []struct {
		sql   string
		want  Option
		flags Flags
	}{
		{"SET autocommit=0", No, 0},
		{"SET AUTOCOMMIT = ON", Yes, 0},
		{"SET @@session.autocommit := off", No, 0},
		{"SET SESSION autocommit=1", Yes, 0},
		{"SET @a=(1,2), autocommit=0, names=3", No, FlagMixed},
		{"SET autocommit=@x", Expr, 0},
		{"SET autocommit=DEFAULT", Expr, 0},
		{"SET GLOBAL autocommit=0", Unset, 0},
		{"SET @autocommit=0", Unset, 0},
		{"/*!40101 SET autocommit=0 */", No, FlagVersioned},
	} {
		if st := Classify([]byte(tt.sql), Mode{}); st.Autocommit != tt.want || st.Flags != tt.flags {
			t.Errorf("%q: %v %b", tt.sql, st.Autocommit, st.Flags)
		}
	}
}

func TestModes(t *testing.T) {
	for _, tt := range []struct {
		sql  string
		mode Mode
		want string // the statements, joined by |
	}{
		{`SELECT ";" ; COMMIT`, Mode{}, `SELECT ";" | COMMIT`},
		{`SELECT "a;b";COMMIT`, Mode{ANSIQuotes: true}, `SELECT "a;b"|COMMIT`},
		{`SELECT '\';COMMIT;'`, Mode{}, `SELECT '\';COMMIT;'`},
		{`SELECT '\';COMMIT`, Mode{NoBackslashEscapes: true}, `SELECT '\'|COMMIT`},
		{"SELECT '\x95\x5c';COMMIT", Mode{Charset: CharsetSJIS}, "SELECT '\x95\x5c'|COMMIT"},
		{"SELECT '\xbf\x5c';COMMIT", Mode{Charset: CharsetGBK}, "SELECT '\xbf\x5c'|COMMIT"},
		{"SELECT '\xa4\x5c';COMMIT", Mode{Charset: CharsetBig5}, "SELECT '\xa4\x5c'|COMMIT"},
		{"SELECT '\x84\x31\x95\x33';COMMIT", Mode{Charset: CharsetGB18030}, "SELECT '\x84\x31\x95\x33'|COMMIT"},
		{"SELECT $$a;b$$; COMMIT", Mode{}, "SELECT $$a;b$$| COMMIT"},
		{"SELECT $x$a;$$b$x$; COMMIT", Mode{}, "SELECT $x$a;$$b$x$| COMMIT"},
		{"SELECT 1 /* ; */ -- ;\n; SELECT 2 # ;", Mode{}, "SELECT 1 /* ; */ -- ;\n| SELECT 2 # ;"},
		{"SELECT 1--;2", Mode{}, "SELECT 1--|2"},
		{"SELECT 1; /* nothing */ ", Mode{}, "SELECT 1"},
		{"SELECT 1;;SELECT 2", Mode{}, "SELECT 1||SELECT 2"},
		{"SELECT /*!99999 1;2 */ 3; SELECT 4", Mode{}, "SELECT /*!99999 1;2 */ 3| SELECT 4"},
		{"SELECT `a``;b`;COMMIT", Mode{}, "SELECT `a``;b`|COMMIT"},
		{"SELECT @`a;b`, @'c;d';COMMIT", Mode{}, "SELECT @`a;b`, @'c;d'|COMMIT"},
	} {
		if got := strings.Join(split(tt.sql, tt.mode), "|"); got != tt.want {
			t.Errorf("%q: got %q want %q", tt.sql, got, tt.want)
		}
	}
}

func split(sql string, mode Mode) []string {
	var out []string
	for b := []byte(sql); len(b) > 0; {
		st := Classify(b, mode)
		out = append(out, string(b[:st.End]))
		b = b[st.Rest:]
	}
	return out
}

func TestBodies(t *testing.T) {
	for _, create := range []string{
		"CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END",
		"CREATE DEFINER=`a`@`b` PROCEDURE IF NOT EXISTS p(x INT) BEGIN IF x THEN SELECT 1; ELSEIF 2 THEN SELECT 2; ELSE SELECT 3; END IF; END",
		"CREATE PROCEDURE p() SELECT IF(1,2,3)",
		"CREATE PROCEDURE p() IF 1 THEN SELECT 1; END IF",
		"CREATE FUNCTION f(a INT) RETURNS INT DETERMINISTIC RETURN IF(a,1,2)",
		"CREATE FUNCTION f(a INT) RETURNS INT RETURN CASE a WHEN 1 THEN 2 END",
		"CREATE FUNCTION f(a INT) RETURNS INT BEGIN DECLARE b INT; CASE a WHEN 1 THEN SET b=1; ELSE SET b=CASE 1 WHEN 1 THEN 2 END; END CASE; RETURN b; END",
		"CREATE PROCEDURE p() BEGIN l: LOOP LEAVE l; END LOOP l; WHILE 0 DO SELECT 1; END WHILE; REPEAT SET @a=1; UNTIL 1 END REPEAT; END",
		"CREATE PROCEDURE p() x: BEGIN IF(1) THEN SELECT REPEAT('a',2); END IF; END x",
		"CREATE TRIGGER t BEFORE INSERT ON u FOR EACH ROW SET NEW.a = IF(NEW.a, 1, 2)",
		"CREATE TRIGGER t AFTER UPDATE ON u FOR EACH ROW BEGIN INSERT INTO x VALUES (1); END",
		"CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM a; DELETE FROM b; END",
		"ALTER EVENT e DO BEGIN DELETE FROM a; END",
		"CREATE PROCEDURE p() COMMENT 'x' BEGIN DECLARE c CURSOR FOR SELECT 1; DECLARE EXIT HANDLER FOR NOT FOUND BEGIN END; END",
		"CREATE PROCEDURE p() BEGIN DROP TABLE IF EXISTS t; BEGIN END; END",
	} {
		got := split(create+"; COMMIT", Mode{})
		if len(got) != 2 || got[0] != create || strings.TrimSpace(got[1]) != "COMMIT" {
			t.Errorf("%q: got %q", create, got)
		}
	}
}

type testReplacer struct{}

func (testReplacer) RowCount() string { return "CAST(3 AS SIGNED)" }
func (testReplacer) Variable(scope, name string) string {
	if name == "group_replication_group_name" {
		return "'g'"
	}
	return ""
}
func (testReplacer) Table(name string) string {
	if name == "replication_group_members" {
		return "(SELECT 1 AS MEMBER_ID)"
	}
	return ""
}

func TestRewrite(t *testing.T) {
	for _, tt := range []struct{ schema, sql, want string }{
		{"", "SELECT ROW_COUNT()", "SELECT CAST(3 AS SIGNED) AS `ROW_COUNT()`"},
		{"", "SELECT row_count( ) AS x, 1", "SELECT CAST(3 AS SIGNED) AS x, 1"},
		{"", "SELECT row_count() x, ROW_COUNT() + 1 FROM t", "SELECT CAST(3 AS SIGNED) x, CAST(3 AS SIGNED) + 1 AS `ROW_COUNT() + 1` FROM t"},
		{"", "SELECT 'ROW_COUNT()'", "SELECT 'ROW_COUNT()'"},
		{"", "SELECT @@group_replication_group_name", "SELECT 'g' AS `@@group_replication_group_name`"},
		{"", "SELECT @@global.`group_replication_group_name` IS NULL", "SELECT 'g' IS NULL AS `@@global.``group_replication_group_name`` IS NULL`"},
		{"", "SELECT * FROM performance_schema.replication_group_members", "SELECT * FROM (SELECT 1 AS MEMBER_ID) AS replication_group_members"},
		{"", "SELECT m.* FROM performance_schema.replication_group_members m WHERE 1", "SELECT m.* FROM (SELECT 1 AS MEMBER_ID) m WHERE 1"},
		{"performance_schema", "SELECT count(*) FROM `replication_group_members` WHERE 1", "SELECT count(*) FROM (SELECT 1 AS MEMBER_ID) AS replication_group_members WHERE 1"},
		{"x", "SELECT count(*) FROM replication_group_members", "SELECT count(*) FROM replication_group_members"},
		{"", "SELECT performance_schema.replication_group_members.MEMBER_ID FROM a JOIN performance_schema.replication_group_members", "SELECT replication_group_members.MEMBER_ID FROM a JOIN (SELECT 1 AS MEMBER_ID) AS replication_group_members"},
		{"", "TABLE performance_schema.replication_group_members", "SELECT * FROM (SELECT 1 AS MEMBER_ID) AS replication_group_members"},
		{"", "SELECT (SELECT @@group_replication_group_name), ROW_COUNT()", "SELECT (SELECT 'g' AS `@@group_replication_group_name`) AS `(SELECT @@group_replication_group_name)`, CAST(3 AS SIGNED) AS `ROW_COUNT()`"},
	} {
		got, _ := Rewrite([]byte(tt.sql), Mode{}, tt.schema, testReplacer{})
		if string(got) != tt.want {
			t.Errorf("%q:\n got %q\nwant %q", tt.sql, got, tt.want)
		}
	}
}

func FuzzClassify(f *testing.F) {
	for _, s := range []string{"BEGIN", "SET a=1,b=2;SELECT 1", "/*!50000 x*/", "CREATE PROCEDURE p() BEGIN IF 1 THEN SELECT 1; END IF; END; COMMIT", "SELECT \"a\\\"", "XA START 'a','b',1 JOIN", "WITH a AS (SELECT 1) UPDATE t SET x='\\''"} {
		f.Add([]byte(s), byte(0))
	}
	f.Fuzz(func(t *testing.T, sql []byte, m byte) {
		mode := Mode{ANSIQuotes: m&1 != 0, NoBackslashEscapes: m&2 != 0, Charset: Charset(m >> 2 % 5)}
		for b := sql; len(b) > 0; {
			st := Classify(b, mode)
			if st.Rest <= 0 || st.Rest > len(b) || st.End > st.Rest || st.End < 0 || st.Start < 0 || st.Start > len(b) {
				t.Fatalf("%+v of %q", st, b)
			}
			_ = st.Name.Of(b)
			_ = st.Arg.Of(b)
			b = b[st.Rest:]
		}
		Rewrite(sql, mode, "performance_schema", testReplacer{})
	})
}

func TestNoAllocation(t *testing.T) {
	sql := []byte("SELECT c FROM sbtest1 WHERE id=? AND k BETWEEN 1 AND 2 ORDER BY c")
	if n := testing.AllocsPerRun(100, func() { Classify(sql, Mode{}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkClassify(b *testing.B) {
	sql := []byte("UPDATE sbtest1 SET k=k+1, c='abcdefghijklmnopqrstuvwxyz' WHERE id=12345")
	for b.Loop() {
		Classify(sql, Mode{})
	}
}
