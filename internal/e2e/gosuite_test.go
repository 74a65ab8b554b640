package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"cohort/internal/loadgen"
)

// goSuite is the smoke suite of go-sql-driver/mysql.
func goSuite(t *testing.T, target loadgen.Target, tls bool) {
	base := "multiStatements=true&parseTime=true&tls=false"
	if tls {
		base = "multiStatements=true&parseTime=true&tls=skip-verify"
	}
	for name, params := range map[string]string{
		"prepared":     base,
		"interpolated": base + "&interpolateParams=true",
		"compressed":   base + "&compress=true",
	} {
		t.Run(name, func(t *testing.T) { goStatements(t, open(t, target, params)) })
	}
}

func goStatements(t *testing.T, db *sql.DB) {
	ctx := t.Context()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	must := func(query string, args ...any) sql.Result {
		t.Helper()
		r, err := conn.ExecContext(ctx, query, args...)
		if err != nil {
			t.Fatalf("%.80s: %v", query, err)
		}
		return r
	}
	count := func(where string) (n int) {
		t.Helper()
		// From another session: only what is committed counts.
		if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM go_all WHERE "+where).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	wantErr := func(number uint16, query string, args ...any) {
		t.Helper()
		_, err := conn.ExecContext(ctx, query, args...)
		if got, ok := errors.AsType[*mysql.MySQLError](err); !ok || got.Number != number {
			t.Errorf("%s: error %v, want %d", query, err, number)
		}
	}
	must("DROP TABLE IF EXISTS go_all")
	must("CREATE TABLE go_all (id INT AUTO_INCREMENT PRIMARY KEY, u INT UNIQUE, s VARCHAR(200), b LONGBLOB, d DATETIME(6))")

	r := must("INSERT INTO go_all (u, s) VALUES (?, ?), (?, ?)", 1, "naïve 🐍 '\\", 2, nil)
	if id, _ := r.LastInsertId(); id != 1 {
		t.Errorf("LastInsertId %d", id)
	}
	if n, _ := r.RowsAffected(); n != 2 {
		t.Errorf("RowsAffected %d", n)
	}
	var s sql.NullString
	if err := conn.QueryRowContext(ctx, "SELECT s FROM go_all WHERE u = ?", 1).Scan(&s); err != nil || s.String != "naïve 🐍 '\\" {
		t.Errorf("read back %q: %v", s.String, err)
	}
	wantErr(1062, "INSERT INTO go_all (u) VALUES (?)", 1)
	wantErr(1064, "SELEC 1")
	wantErr(1146, "INSERT INTO go_none VALUES (1)")

	for _, commit := range []bool{false, true} {
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec("INSERT INTO go_all (u) VALUES (?)", 10); err != nil {
			t.Fatal(err)
		}
		if n := count("u = 10"); n != 0 {
			t.Error("another session sees an uncommitted row")
		}
		end := tx.Rollback
		if commit {
			end = tx.Commit
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if n := count("u = 10"); (n == 1) != commit {
			t.Errorf("commit=%v: %d rows", commit, n)
		}
	}
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelReadCommitted})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO go_all (u) VALUES (11)"); err == nil {
		t.Error("a read-only transaction wrote")
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}

	prepared, err := conn.PrepareContext(ctx, "INSERT INTO go_all (u, s) VALUES (?, ?)")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if _, err := prepared.Exec(100+i, strings.Repeat("x", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := prepared.Close(); err != nil {
		t.Error(err)
	}
	if n := count("u >= 100 AND u < 150"); n != 50 {
		t.Errorf("%d rows of a prepared statement", n)
	}

	rows, err := conn.QueryContext(ctx, "SELECT 1; UPDATE go_all SET s = 'x' WHERE u = 2; SELECT 2, 3")
	if err != nil {
		t.Fatal(err)
	}
	results := 1
	for rows.Next() || rows.NextResultSet() {
		results++
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Errorf("several results: %v", err)
	}
	if n := count("s = 'x' AND u = 2"); n != 1 {
		t.Error("the UPDATE among several statements is lost")
	}

	big := make([]byte, 20<<20)
	_, _ = rand.Read(big)
	must("INSERT INTO go_all (u, b) VALUES (1000, ?)", big)
	var back []byte
	if err := conn.QueryRowContext(ctx, "SELECT b FROM go_all WHERE u = 1000").Scan(&back); err != nil || !bytes.Equal(big, back) {
		t.Errorf("20 MiB value: %d bytes back, %v", len(back), err)
	}

	// A context that ends in a query kills the connection, not the server.
	short, cancel := context.WithCancel(ctx)
	started := make(chan error, 1)
	go func() {
		_, err := db.ExecContext(short, "DO SLEEP(60)")
		started <- err
	}()
	cancel()
	if err := <-started; err == nil {
		t.Error("a cancelled query succeeded")
	}

	mysql.RegisterReaderHandler("lines", func() io.Reader {
		return strings.NewReader("2000\tone\n2001\ttwo\n")
	})
	defer mysql.DeregisterReaderHandler("lines")
	must("LOAD DATA LOCAL INFILE 'Reader::lines' INTO TABLE go_all (u, s)")
	if n := count("u IN (2000, 2001)"); n != 2 {
		t.Errorf("LOAD DATA LOCAL: %d rows", n)
	}
	must("TRUNCATE TABLE go_all")
	if n := count("1"); n != 0 {
		t.Errorf("TRUNCATE left %d rows", n)
	}
	must("DROP TABLE go_all")
}
