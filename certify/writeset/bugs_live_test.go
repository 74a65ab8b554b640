package writeset

import (
	"testing"

	"cohort/internal/binlog/capture"
)

// TestConflicts runs pairs of transactions and says whether their write sets
// have to meet. The numbers are those of known write-set bugs of MySQL.
func TestConflicts(t *testing.T) {
	b := newBench(t)
	b.exec("SET foreign_key_checks=0, sql_mode=''")
	for _, q := range []string{
		"CREATE TABLE ci (id INT PRIMARY KEY, u VARCHAR(20), UNIQUE(u))",
		"CREATE TABLE pre (id INT PRIMARY KEY, a VARCHAR(20), b VARCHAR(20), UNIQUE(a(2), b(3)))",
		"CREATE TABLE two (id INT PRIMARY KEY, a INT, b INT, KEY(a), UNIQUE(b))",
		"CREATE TABLE p (id INT PRIMARY KEY, u VARCHAR(10), v INT, UNIQUE(u), KEY(v))",
		"CREATE TABLE c (id INT PRIMARY KEY, pid INT, FOREIGN KEY (pid) REFERENCES p(id))",
		"CREATE TABLE cu (id INT PRIMARY KEY, pu VARCHAR(30), FOREIGN KEY (pu) REFERENCES p(u) ON UPDATE CASCADE)",
		"CREATE TABLE p2 (a INT, b INT, PRIMARY KEY(a, b))",
		"CREATE TABLE c2 (id INT PRIMARY KEY, a INT, b INT, FOREIGN KEY (a, b) REFERENCES p2(a, b) ON DELETE CASCADE)",
		"CREATE TABLE self (id INT PRIMARY KEY, boss INT, FOREIGN KEY (boss) REFERENCES self(id))",
		"CREATE TABLE f (id INT PRIMARY KEY, a INT, UNIQUE((a * 2)))",
		"CREATE TABLE mv (id INT PRIMARY KEY, j JSON, UNIQUE((CAST(j->'$' AS UNSIGNED ARRAY))))",
		"CREATE TABLE vg (id INT PRIMARY KEY, a INT, g INT GENERATED ALWAYS AS (a % 10) VIRTUAL, UNIQUE(g))",
		"CREATE TABLE inv (id INT INVISIBLE PRIMARY KEY, a INT)",
		"CREATE TABLE nn (a INT NOT NULL, b INT, UNIQUE(a))",
	} {
		b.exec(q)
	}
	b.exec("SET restrict_fk_on_non_standard_key=OFF")
	b.exec("CREATE TABLE cv (id INT PRIMARY KEY, pv INT, FOREIGN KEY (pv) REFERENCES p(v))")
	b.exec("INSERT INTO two VALUES (1,1,1),(2,2,2),(3,3,3)")

	for _, c := range []struct {
		name string
		a, b []string
		want bool
	}{
		{"same row", []string{"INSERT INTO ci VALUES (1,'x')"}, []string{"DELETE FROM ci WHERE id=1"}, true},
		{"#88120 collation of a unique key", []string{"INSERT INTO ci VALUES (2,'straße')"}, []string{"DELETE FROM ci", "INSERT INTO ci VALUES (3,'STRASSE')"}, true},
		{"plain", []string{"INSERT INTO ci VALUES (4,'four')"}, []string{"INSERT INTO ci VALUES (5,'five')"}, false},
		{"NULL in a unique key", []string{"INSERT INTO ci VALUES (6,NULL)"}, []string{"INSERT INTO ci VALUES (7,NULL)"}, false},
		{"#89141 unique value given back and taken in one transaction",
			[]string{"UPDATE two SET b=20 WHERE id=1", "UPDATE two SET b=1 WHERE id=2"}, []string{"UPDATE two SET b=2 WHERE id=3"}, true},
		{"#89141 deleted and inserted", []string{"DELETE FROM two WHERE b=20", "INSERT INTO two VALUES (11,1,20)"}, []string{"UPDATE two SET b=30 WHERE id=11"}, true},
		{"plain index", []string{"UPDATE two SET a=9 WHERE id=2"}, []string{"UPDATE two SET a=9 WHERE id=3"}, false},
		{"unique value that stays", []string{"UPDATE two SET a=8 WHERE id=2"}, []string{"UPDATE two SET a=7 WHERE id=3"}, false},
		{"#111027 prefixes", []string{"INSERT INTO pre VALUES (1,'abX','cdeX')"}, []string{"DELETE FROM pre", "INSERT INTO pre VALUES (2,'abY','cdeY')"}, true},
		{"#111027 same characters, other columns", []string{"INSERT INTO pre VALUES (3,'cd','efg')"}, []string{"INSERT INTO pre VALUES (4,'c','defg')"}, false},
		{"#111027 other prefixes", []string{"INSERT INTO pre VALUES (5,'zbX','cdeX')"}, []string{"INSERT INTO pre VALUES (6,'zbY','cdfY')"}, false},
		{"parents apart", []string{"INSERT INTO p VALUES (1,'one',1)"}, []string{"INSERT INTO p VALUES (2,'two',2),(3,'three',3)"}, false},
		{"#96758 two children of one parent", []string{"INSERT INTO c VALUES (1,1)"}, []string{"INSERT INTO c VALUES (2,1)"}, false},
		{"parent and child", []string{"INSERT INTO c VALUES (3,2)"}, []string{"UPDATE p SET v=22 WHERE id=2"}, true},
		{"parent and other child", []string{"INSERT INTO c VALUES (4,1)"}, []string{"UPDATE p SET v=23 WHERE id=2"}, false},
		{"child goes, parent goes", []string{"DELETE FROM c WHERE id=3"}, []string{"DELETE FROM p WHERE id=2"}, true},
		{"child moves away", []string{"UPDATE c SET pid=3 WHERE id=1"}, []string{"UPDATE p SET v=4 WHERE id=1"}, true},
		{"NULL refers to nothing", []string{"INSERT INTO c VALUES (9,NULL)"}, []string{"UPDATE p SET v=5 WHERE id=1"}, false},
		{"reference to a unique key, by collation", []string{"INSERT INTO cu VALUES (1,'ONE')"}, []string{"UPDATE p SET u='uno' WHERE id=1"}, true},
		{"reference to a unique key that stays", []string{"INSERT INTO cu VALUES (2,'UNO')"}, []string{"UPDATE p SET v=6 WHERE id=1"}, false},
		{"reference to a plain index", []string{"INSERT INTO cv VALUES (1,6)"}, []string{"UPDATE p SET v=7 WHERE id=1"}, true},
		{"reference to another value of it", []string{"INSERT INTO cv VALUES (2,77)"}, []string{"UPDATE p SET v=8 WHERE id=1"}, false},
		{"two columns", []string{"INSERT INTO c2 VALUES (1,1,2)"}, []string{"INSERT INTO p2 VALUES (1,2)"}, true},
		{"two columns, other order", []string{"INSERT INTO c2 VALUES (2,2,1)"}, []string{"DELETE FROM p2 WHERE a=1 AND b=2"}, false},
		{"two columns, one NULL", []string{"INSERT INTO c2 VALUES (3,1,NULL)"}, []string{"INSERT INTO p2 VALUES (1,3)"}, false},
		{"self", []string{"INSERT INTO self VALUES (1,NULL)"}, []string{"INSERT INTO self VALUES (2,1)"}, true},
		{"self, apart", []string{"INSERT INTO self VALUES (3,1)"}, []string{"INSERT INTO self VALUES (4,1)"}, false},
		{"functional index counts as one key", []string{"INSERT INTO f VALUES (1,1)"}, []string{"INSERT INTO f VALUES (2,2)"}, true},
		{"virtual column", []string{"INSERT INTO vg(id,a) VALUES (1,15)"}, []string{"DELETE FROM vg", "INSERT INTO vg(id,a) VALUES (2,25)"}, true},
		{"virtual column, other value", []string{"INSERT INTO vg(id,a) VALUES (3,16)"}, []string{"INSERT INTO vg(id,a) VALUES (4,27)"}, false},
		{"invisible primary key", []string{"INSERT INTO inv(id,a) VALUES (1,1)"}, []string{"UPDATE inv SET a=2 WHERE id=1"}, true},
		{"unique in place of a primary key", []string{"INSERT INTO nn VALUES (1,1)"}, []string{"UPDATE nn SET b=2 WHERE a=1"}, true},
	} {
		x, y := b.one(c.a...), b.one(c.b...)
		if x.Refuse != 0 || y.Refuse != 0 || x.Wide || y.Wide {
			t.Errorf("%s: refused %d %d (%s%s), wide %v %v", c.name, x.Refuse, y.Refuse, x.RefuseText, y.RefuseText, x.Wide, y.Wide)
		}
		if got := conflict(x, y); got != c.want {
			t.Errorf("%s: conflict %v", c.name, got)
		}
	}

	// From 9.6 on the rows that a foreign key changes are in the row events.
	logged := b.s.Value(t, "SELECT COUNT(*) FROM performance_schema.global_variables WHERE VARIABLE_NAME='innodb_native_foreign_keys' AND VARIABLE_VALUE='OFF'") == "1"
	for _, c := range []struct {
		name           string
		stmt           string
		order, serial2 bool
	}{
		{"insert of a parent", "INSERT INTO p VALUES (50,'p50',50)", false, false},
		{"parent keeps what is referenced", "UPDATE self SET boss=NULL WHERE id=4", false, false},
		{"parent goes", "DELETE FROM self WHERE id=4", true, false},
		{"cascading delete", "INSERT INTO p2 VALUES (9,9)", false, false},
		{"cascading delete", "DELETE FROM p2 WHERE a=9", true, !logged},
		{"cascading update, of case only", "UPDATE p SET u='P50' WHERE id=50", true, !logged},
		{"update past the cascade", "UPDATE p SET id=51 WHERE id=50", true, false},
		{"functional index", "INSERT INTO f VALUES (5,5)", true, false},
		{"multi-valued index", "INSERT INTO mv VALUES (1,'[1,2]')", true, false},
		{"virtual column in a unique index", "INSERT INTO vg(id,a) VALUES (9,8)", true, false},
	} {
		got := prepared(b, c.stmt)
		if got.CommitOrder != c.order || got.Serial != c.serial2 {
			t.Errorf("%s: %s: commit order %v serial %v", c.name, c.stmt, got.CommitOrder, got.Serial)
		}
	}
}

// prepared runs statements as one XA transaction of ours and commits it.
func prepared(b *bench, stmts ...string) capture.Captured {
	b.t.Helper()
	b.take()
	b.exec("XA START 'cohort.x'")
	for _, q := range stmts {
		b.exec(q)
	}
	b.exec("XA END 'cohort.x'")
	b.exec("XA PREPARE 'cohort.x'")
	got := b.take()
	b.exec("XA COMMIT 'cohort.x'")
	if len(got) != 1 || got[0].Kind != capture.KindPrepared {
		b.t.Fatalf("%v: captured %v", stmts, got)
	}
	return got[0]
}

func TestRequirements(t *testing.T) {
	b := newBench(t)
	for _, q := range []string{
		"CREATE TABLE nopk (a INT)",
		"CREATE TABLE prefixed (a VARCHAR(20) NOT NULL, UNIQUE(a(5)))",
		"CREATE TABLE nullable (a INT, UNIQUE(a))",
		"CREATE TABLE mem (a INT PRIMARY KEY) ENGINE=MEMORY",
		"CREATE TABLE ok (a INT PRIMARY KEY, b INT)",
		"INSERT INTO ok VALUES (1,1)",
	} {
		b.exec(q)
	}
	for table, want := range map[string]uint16{"nopk": 3098, "prefixed": 3098, "nullable": 3098, "ok(a)": 0} {
		if got := prepared(b, "INSERT INTO "+table+" VALUES (5)"); got.Refuse != want {
			t.Errorf("%s: refuse %d %s, want %d", table, got.Refuse, got.RefuseText, want)
		}
	}
	if got := b.one("INSERT INTO mem VALUES (1)"); got.Refuse != 3098 {
		t.Errorf("MEMORY: refuse %d", got.Refuse)
	}
	b.exec("SET SESSION binlog_row_image=MINIMAL")
	if got := prepared(b, "UPDATE ok SET b=2 WHERE a=1"); got.Refuse != 3098 || !got.Wide {
		t.Errorf("minimal images: refuse %d, wide %v", got.Refuse, got.Wide)
	}
	b.exec("SET SESSION binlog_row_image=FULL")
	if got := prepared(b, "INSERT INTO mysql.time_zone_leap_second VALUES (1,1)"); got.Refuse != 0 || !got.Serial {
		t.Errorf("server's own table: refuse %d %s, serial %v", got.Refuse, got.RefuseText, got.Serial)
	}
}

// TestDefinitionChanges: what was known is forgotten with each DDL, and an event
// that its table's definition does not fit counts as the whole table.
func TestDefinitionChanges(t *testing.T) {
	b := newBench(t)
	b.exec("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))")
	if got := prepared(b, "INSERT INTO t VALUES (1,'a')"); len(got.Writes) != 1 || got.Wide {
		t.Errorf("before: %d writes, wide %v", len(got.Writes), got.Wide)
	}
	b.exec("ALTER TABLE t ADD UNIQUE(v)")
	if got := prepared(b, "INSERT INTO t VALUES (2,'b')"); len(got.Writes) != 2 || got.Wide {
		t.Errorf("after: %d writes, wide %v", len(got.Writes), got.Wide)
	}
	b.take()
	// A table that is gone when its events are read.
	end := position(t, b.s)
	b.exec("INSERT INTO t VALUES (3,'c')")
	b.exec("ALTER TABLE t MODIFY v VARCHAR(200)")
	b.exec("INSERT INTO t VALUES (4,'d')")
	b.exec("DROP TABLE t")
	b.take()
	ex, err := New(Options{DB: b.s.DB(t)})
	if err != nil {
		t.Fatal(err)
	}
	late, err := capture.New(capture.Options{
		Addr: b.s.Socket, User: "root", ServerID: 990003, GroupUUID: "5bd4a4a1-1111-4222-8333-444455556666", Extractor: ex,
	})
	if err != nil {
		t.Fatal(err)
	}
	wide := 0
	err = late.ScanDirects(t.Context(), end, position(t, b.s), func(c capture.Captured) error {
		if len(c.Tables) == 1 && c.Wide && c.Serial && c.Refuse == 0 && len(c.Writes) == 0 {
			wide++
		}
		return nil
	})
	if err != nil || wide != 2 {
		t.Errorf("%d of 2 transactions count as the whole table (%v)", wide, err)
	}
}
