package writeset

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/rs/zerolog"

	"cohort/internal/binlog/capture"
	"cohort/internal/mysqldtest"
)

// bench is a mysqld with a capture on it.
type bench struct {
	t  testing.TB
	s  *mysqldtest.Server
	c  *capture.Capture
	db *sql.Conn

	mu  sync.Mutex
	got []capture.Captured
}

func position(t testing.TB, s *mysqldtest.Server) capture.StartAt {
	t.Helper()
	rows, err := s.DB(t).Query("SHOW BINARY LOG STATUS")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil || !rows.Next() {
		t.Fatalf("no binary log status: %v", err)
	}
	var p capture.StartAt
	dest := make([]any, len(cols))
	dest[0], dest[1] = &p.File, &p.Pos
	for i := 2; i < len(dest); i++ {
		dest[i] = new(sql.RawBytes)
	}
	if err := rows.Scan(dest...); err != nil {
		t.Fatal(err)
	}
	return p
}

func newBench(t testing.TB, opts ...string) *bench {
	t.Helper()
	b := &bench{t: t, s: mysqldtest.Start(t, opts...)}
	ex, err := New(Options{DB: b.s.DB(t), Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	b.c, err = capture.New(capture.Options{
		Network: "unix", Addr: b.s.Socket, User: "root", ServerID: 990002,
		GroupUUID: "5bd4a4a1-1111-4222-8333-444455556666", Extractor: ex, Logger: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if b.db, err = b.s.DB(t).Conn(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.exec("CREATE DATABASE d")
	b.exec("USE d")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	start := position(t, b.s)
	go func() {
		done <- b.c.Run(ctx, start, func(c capture.Captured) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.got = append(b.got, c)
			return nil
		})
	}()
	t.Cleanup(func() {
		b.db.Close()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("capture: %v", err)
		}
	})
	return b
}

func (b *bench) exec(q string, args ...any) {
	b.t.Helper()
	if _, err := b.db.ExecContext(context.Background(), q, args...); err != nil {
		b.t.Fatalf("%.300s: %v", q, err)
	}
}

// take returns what was captured since the last call.
func (b *bench) take() []capture.Captured {
	b.t.Helper()
	end := position(b.t, b.s)
	deadline := time.Now().Add(3 * time.Minute)
	for b.c.Position().Before(end) {
		if time.Now().After(deadline) {
			b.t.Fatalf("capture stands at %v of %v", b.c.Position(), end)
		}
		time.Sleep(time.Millisecond)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	got := b.got
	b.got = nil
	return got
}

// one runs statements as one transaction and returns what was captured of it.
func (b *bench) one(stmts ...string) capture.Captured {
	b.t.Helper()
	b.take()
	b.exec("BEGIN")
	for _, q := range stmts {
		b.exec(q)
	}
	b.exec("COMMIT")
	got := b.take()
	if len(got) != 1 {
		b.t.Fatalf("%v: %d transactions captured", stmts, len(got))
	}
	return got[0]
}

func common(a, b []uint64) bool {
	return slices.ContainsFunc(a, func(h uint64) bool { return slices.Contains(b, h) })
}

// conflict says whether two write sets meet.
func conflict(a, b capture.Captured) bool {
	return common(a.Writes, b.Writes) || common(a.Writes, b.Refs) || common(a.Refs, b.Writes) ||
		(a.Wide || b.Wide) && common(a.Tables, b.Tables)
}

// A generator makes SQL literals for one column type; few distinct values, so
// that many are equal.
type generator struct {
	column string
	index  string // how the column stands in the index, %s its name
	value  func(r *rand.Rand) string
}

func pick(vals ...string) func(*rand.Rand) string {
	return func(r *rand.Rand) string { return vals[r.IntN(len(vals))] }
}

func text(max int) func(*rand.Rand) string {
	return func(r *rand.Rand) string { return fmt.Sprintf("_utf8mb4 X'%x'", randomString(r, max)) }
}

var generators = []generator{
	{"TINYINT", "%s", pick("-1", "0", "1", "127", "NULL")},
	{"TINYINT UNSIGNED", "%s", pick("255", "0", "1", "127")},
	{"SMALLINT", "%s", pick("-1", "0", "1", "300")},
	{"MEDIUMINT", "%s", pick("-1", "0", "1", "70000")},
	{"INT", "%s", pick("-1", "0", "1", "256", "65536", "NULL")},
	{"BIGINT UNSIGNED", "%s", pick("18446744073709551615", "0", "1")},
	{"FLOAT", "%s", pick("0", "-0e0", "1.5", "-1.5", "1e30")},
	{"DOUBLE", "%s", pick("0", "-0e0", "1.5", "-1.5", "1e300", "NULL")},
	{"DECIMAL(20,5)", "%s", pick("0", "-0.0", "1.5", "1.50", "-1.5", "-0.000001", "123456789012345.12345")},
	{"DECIMAL(5,0)", "%s", pick("0", "-0.4", "1", "-1", "99999")},
	{"DATE", "%s", pick("'2020-01-01'", "'2020-01-02'", "NULL")},
	{"TIME", "%s", pick("'00:00:00'", "'-00:00:01'", "'100:00:01'")},
	{"TIME(3)", "%s", pick("'00:00:00.001'", "'-00:00:00.001'", "'00:00:00'", "'00:00:00.0014'")},
	{"DATETIME", "%s", pick("'2020-01-01 01:02:03'", "'2020-01-01 01:02:04'", "'2020-01-01 01:02:03.4'")},
	{"DATETIME(6)", "%s", pick("'2020-01-01 01:02:03.000001'", "'2020-01-01 01:02:03.000002'")},
	{"TIMESTAMP NULL", "%s", pick("'2020-01-01 01:02:03'", "'2020-01-01 01:02:04'", "NULL")},
	{"YEAR", "%s", pick("2020", "'20'", "1999")},
	{"BIT(1)", "%s", pick("0", "1")},
	{"BIT(17)", "%s", pick("0", "1", "65536", "NULL")},
	{"ENUM('a','B','c')", "%s", pick("'a'", "'A'", "'b'", "3", "NULL")},
	{"SET('a','b','c','d','e','f','g','h','i')", "%s", pick("'a'", "'a,b'", "'b,a'", "'i'", "''")},
	{"VARCHAR(10)", "%s", text(3)},
	{"VARCHAR(300)", "%s", text(3)},
	{"VARCHAR(40) COLLATE utf8mb4_bin", "%s", text(2)},
	{"VARCHAR(40) COLLATE utf8mb4_0900_bin", "%s", text(2)},
	{"VARCHAR(40) COLLATE utf8mb4_general_ci", "%s(2)", text(4)},
	{"VARCHAR(40) COLLATE utf8mb4_unicode_ci", "%s(3)", text(4)},
	{"VARCHAR(40) COLLATE utf8mb4_0900_as_cs", "%s(2)", text(4)},
	{"VARCHAR(40) CHARACTER SET latin1", "%s", pick("'a'", "'A'", "'a '", "'b'", "''", "' '")},
	{"VARCHAR(40) CHARACTER SET gbk", "%s", pick("'a'", "'A'", "'b'")},
	{"VARCHAR(20) CHARACTER SET utf16", "%s(2)", text(3)},
	{"CHAR(10)", "%s", text(3)},
	{"CHAR(90)", "%s", text(3)},
	{"CHAR(10) CHARACTER SET utf32", "%s", text(2)},
	{"BINARY(4)", "%s", pick("'a'", "X'6100'", "X'61000000'", "'b'", "''", "'ab'")},
	{"VARBINARY(10)", "%s", pick("'a'", "X'6100'", "'a '", "'b'", "''", "NULL")},
	{"VARBINARY(300)", "%s(2)", pick("'aa'", "'aab'", "'a'", "'b'", "''")},
	{"BLOB", "%s(3)", pick("'aa'", "'aab'", "'aabc'", "X'616162FF'", "''")},
	{"TINYTEXT", "%s(3)", text(5)},
	{"LONGTEXT COLLATE utf8mb4_general_ci", "%s(1)", text(3)},
}

// TestHashEqualsDuplicate: on random tables two rows have a hash in common
// exactly if mysqld's unique index calls them duplicates.
func TestHashEqualsDuplicate(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(7, 11))
	b.exec("SET NAMES utf8mb4")
	b.exec("SET sql_mode=''")
	tables := len(generators) + 25
	for n := range tables {
		var cols []generator
		if n < len(generators) {
			cols = []generator{generators[n]}
		} else {
			for range 1 + r.IntN(4) {
				cols = append(cols, generators[r.IntN(len(generators))])
			}
		}
		var def, idx, names []string
		for i, c := range cols {
			name := fmt.Sprintf("c%d", i)
			names = append(names, name)
			def = append(def, name+" "+c.column)
			idx = append(idx, fmt.Sprintf(c.index, name))
		}
		const rows = 30
		create := fmt.Sprintf("CREATE TABLE t%d (filler VARCHAR(20), id INT PRIMARY KEY, %s, UNIQUE u (%s))", n, strings.Join(def, ", "), strings.Join(idx, ", "))
		b.exec(create)
		values := make([]string, rows)
		b.take()
		for i := range values {
			vals := make([]string, len(cols))
			for j, c := range cols {
				vals[j] = c.value(r)
			}
			values[i] = strings.Join(vals, ", ")
			b.exec("BEGIN")
			b.exec(fmt.Sprintf("INSERT IGNORE INTO t%d (filler, id, %s) VALUES (REPEAT('x',%d), %d, %s)", n, strings.Join(names, ", "), i%20, 1000+i, values[i]))
			b.exec(fmt.Sprintf("DELETE FROM t%d", n))
			b.exec("COMMIT")
		}
		got := b.take()
		if len(got) != rows {
			t.Fatalf("%s: %d captured", create, len(got))
		}
		constant := strings.Contains(create, "gbk")
		seen := map[uint64]int{}
		for i := range values {
			w := got[i].Writes
			if got[i].Refuse != 0 || got[i].Wide || len(w) == 0 || len(w) > 2 {
				t.Fatalf("%s: %s: refuse %d wide %v writes %d", create, values[i], got[i].Refuse, got[i].Wide, len(w))
			}
			dup := false
			if len(w) == 2 { // PRIMARY, then u
				var first int
				if first, dup = seen[w[1]]; dup {
					_ = first
				}
			}
			_, err := b.db.ExecContext(context.Background(), fmt.Sprintf("INSERT INTO t%d (id, %s) VALUES (%d, %s)", n, strings.Join(names, ", "), 1000+i, values[i]))
			var me *mysql.MySQLError
			isDup := errors.As(err, &me) && me.Number == 1062
			if err != nil && !isDup {
				t.Fatalf("%s: %s: %v", create, values[i], err)
			}
			if isDup != dup && !(constant && dup) {
				t.Errorf("%s: %s: duplicate to mysqld %v, to us %v", create, values[i], isDup, dup)
			}
			if !dup && len(w) == 2 {
				seen[w[1]] = i
			}
		}
		b.exec(fmt.Sprintf("DROP TABLE t%d", n))
	}
}
