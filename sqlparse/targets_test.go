package sqlparse

import (
	"fmt"
	"testing"
)

func TestWriteTargets(t *testing.T) {
	for _, tt := range []struct{ sql, want string }{
		{"INSERT INTO t VALUES (1)", "[{ t}]"},
		{"insert ignore `s`.`a``b` (x) SELECT * FROM m", "[{s a`b}]"},
		{"INSERT t SELECT * FROM m", "[{ t}]"},
		{"REPLACE LOW_PRIORITY INTO s.t SET a=1", "[{s t}]"},
		{"INSERT INTO s . 1t VALUES (1)", "[{s 1t}]"},
		{"UPDATE t SET a=1", "[{ t}]"},
		{"UPDATE IGNORE s.t AS x SET x.a=(SELECT b FROM m) WHERE a IN (SELECT a FROM m)", "[{s t}]"},
		{"UPDATE t JOIN m ON t.a=m.a SET t.b=m.b", "[{ t}]"},
		{"UPDATE t x, s.m y SET y.b=1, y.c=2 WHERE x.a=y.a", "[{s m} {s m}]"},
		{"UPDATE t x, s.m y SET b=1", "[{ t} {s m}]"},
		{"UPDATE (t LEFT JOIN (m) ON t.a=m.a) SET s.t.b=1, m.c=COALESCE(t.x, 1)", "[{ t} { m}]"},
		{"UPDATE t, (SELECT a FROM m, n) d SET t.b=d.a", "[{ t}]"},
		{"UPDATE t STRAIGHT_JOIN m USING (a, b) SET T.b=1 ORDER BY a", "[{ t}]"},
		{"UPDATE t PARTITION (p0, p1) AS x JOIN m USE INDEX (a) SET x.a=1", "[{ t}]"},
		{"UPDATE t x JOIN JSON_TABLE(x.j, '$' COLUMNS (a INT PATH '$')) AS j SET x.a=j.a", "[{ t}]"},
		{"DELETE FROM t WHERE a=1", "[{ t}]"},
		{"DELETE FROM s.t AS x WHERE x.a IN (SELECT a FROM m)", "[{s t}]"},
		{"DELETE x, s.y FROM t AS x JOIN s.y JOIN m WHERE 1", "[{ t} {s y}]"},
		{"DELETE QUICK FROM x.*, y USING t AS x JOIN y JOIN m", "[{ t} { y}]"},
		{"WITH c AS (SELECT * FROM m) DELETE t FROM t JOIN c", "[{ t}]"},
		{"WITH c (u) AS (SELECT 1), d AS (SELECT 2) UPDATE t JOIN c SET t.a=1", "[{ t}]"},
		{"LOAD DATA LOCAL INFILE 'into table x' IGNORE INTO TABLE s.t FIELDS TERMINATED BY ','", "[{s t}]"},
		{"UPDATE /* x */ t/*!99999 , m */ SET a=1", "[{ t}]"},
		{"SELECT 1", "[]"},
		{"DELETE", "[]"},
		{"UPDATE", "[]"},
		{"UPDATE (", "[]"},
	} {
		if got := fmt.Sprint(WriteTargets([]byte(tt.sql), Mode{})); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.sql, got, tt.want)
		}
	}
	if got := fmt.Sprint(DroppedTables([]byte("DROP TEMPORARY TABLE IF EXISTS a, `b`.c CASCADE"), Mode{})); got != "[{ a} {b c}]" {
		t.Error(got)
	}
}

func TestRoutineBody(t *testing.T) {
	for _, tt := range []struct {
		sql  string
		ends bool
		want string
	}{
		{"BEGIN INSERT INTO t VALUES (1); SELECT 'COMMIT'; END", false, ""},
		{"BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION SET @x=1; INSERT INTO t VALUES (1); END", false, "handles"},
		{"BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION ROLLBACK; START TRANSACTION; END", true, "begins rolls handles"},
		{"BEGIN SAVEPOINT a; ROLLBACK TO SAVEPOINT a; ROLLBACK WORK TO a; END", false, ""},
		{"BEGIN ROLLBACK; END", true, "rolls"},
		{"COMMIT", true, "begins"},
		{"BEGIN BEGIN WORK; END", true, "begins"},
		{"SET autocommit=0", true, "begins"},
		{"SET @@session.autocommit=0", true, "begins"},
		{"BEGIN PREPARE s FROM @x; END", false, "dynamic"},
		{"BEGIN DEALLOCATE PREPARE s; DROP PREPARE s; END", false, "dynamic"},
		{"BEGIN CALL s.p(1); CALL `q`; END", false, "[{s p} { q}]"},
		{"BEGIN SELECT t.commit FROM t; END", false, ""},
		{"TRUNCATE TABLE t", true, "begins"},
	} {
		r := RoutineBody([]byte(tt.sql), Mode{})
		got := ""
		for _, f := range []struct {
			on   bool
			name string
		}{{r.Begins, "begins"}, {r.RollsBack, "rolls"}, {r.Handles, "handles"}, {r.Dynamic, "dynamic"}, {r.Calls != nil, fmt.Sprint(r.Calls)}} {
			if f.on {
				if got != "" {
					got += " "
				}
				got += f.name
			}
		}
		if got != tt.want || r.Ends() != tt.ends {
			t.Errorf("%s: %q, ends %v", tt.sql, got, r.Ends())
		}
	}
}

func FuzzTargets(f *testing.F) {
	f.Add("UPDATE (t JOIN m) SET t.a=1")
	f.Add("DELETE x.* FROM t x")
	f.Add("INSERT INTO `")
	f.Fuzz(func(t *testing.T, sql string) {
		for _, m := range []Mode{{}, {ANSIQuotes: true}} {
			WriteTargets([]byte(sql), m)
			DroppedTables([]byte(sql), m)
			RoutineBody([]byte(sql), m)
			SplitName([]byte(sql), m)
		}
	})
}
