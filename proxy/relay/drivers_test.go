package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/client"
	gm "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-sql-driver/mysql"

	"cohort/internal/mysqldtest"
)

func init() {
	mysql.RegisterTLSConfig("skip", &tls.Config{InsecureSkipVerify: true})
}

// prepareServer makes the accounts and tables that the tests share.
func prepareServer(t testing.TB, s *mysqldtest.Server) {
	t.Helper()
	s.SQL(t,
		"CREATE DATABASE IF NOT EXISTS d",
		"CREATE USER csha IDENTIFIED WITH caching_sha2_password BY 'secret one'",
		"CREATE USER sha IDENTIFIED WITH sha256_password BY 'secret two'",
		"CREATE USER nopw IDENTIFIED WITH caching_sha2_password BY ''",
		"CREATE USER shanopw IDENTIFIED WITH sha256_password BY ''",
		"GRANT ALL ON *.* TO csha, sha, nopw, shanopw",
		"CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT) CHARACTER SET utf8mb4",
		"CREATE PROCEDURE d.p() BEGIN SELECT 1 AS a; SELECT 2 AS b, 'x' AS c; INSERT INTO d.t(v) VALUES ('p'); END",
		"SET GLOBAL local_infile=1", "SET GLOBAL max_allowed_packet=1073741824",
	)
}

func smoke(t *testing.T, dsn string) {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := db.Conn(ctx)
	if err != nil {
		t.Fatalf("%s: %v", dsn, err)
	}
	defer c.Close()
	res, err := c.ExecContext(ctx, "INSERT INTO t(v) VALUES (?),(?)", "α", nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := res.RowsAffected(); n != 2 {
		t.Errorf("affected rows %d", n)
	}
	id, _ := res.LastInsertId()
	var v sql.NullString
	if err := c.QueryRowContext(ctx, "SELECT v FROM t WHERE id=?", id).Scan(&v); err != nil || v.String != "α" {
		t.Errorf("row: %v %v", v, err)
	}
	if _, err = c.ExecContext(ctx, "INSERT INTO nosuch VALUES (1)"); err == nil || !strings.Contains(err.Error(), "1146") {
		t.Errorf("error: %v", err)
	}
	rows, err := c.QueryContext(ctx, "CALL p()")
	if err != nil {
		t.Fatal(err)
	}
	sets := 0
	for ok := true; ok; ok = rows.NextResultSet() {
		for rows.Next() {
			sets++
		}
	}
	rows.Close()
	if sets != 2 {
		t.Errorf("CALL gave %d rows", sets)
	}
	rows, err = c.QueryContext(ctx, "SELECT 1; SELECT 2; SELECT 3")
	if err != nil {
		t.Fatal(err)
	}
	sets = 0
	for ok := true; ok; ok = rows.NextResultSet() {
		for rows.Next() {
			sets++
		}
	}
	if err := rows.Err(); err != nil {
		t.Error(err)
	}
	rows.Close()
	if sets != 3 {
		t.Errorf("multi-statement gave %d rows", sets)
	}
	var n int
	if err := c.QueryRowContext(ctx, "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n<1000) SELECT COUNT(*) FROM (SELECT REPEAT('x',500), n FROM s) z").Scan(&n); err != nil || n != 1000 {
		t.Errorf("%d %v", n, err)
	}
	rows, err = c.QueryContext(ctx, "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n<1000) SELECT n, REPEAT('x',n) FROM s")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for rows.Next() {
		var x string
		if err := rows.Scan(&n, &x); err != nil || len(x) != n {
			t.Fatalf("row %d: %v", n, err)
		}
		count++
	}
	rows.Close()
	if count != 1000 {
		t.Errorf("%d rows", count)
	}
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("DELETE FROM t"); err != nil {
		t.Error(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	mysql.RegisterReaderHandler("data", func() io.Reader {
		return strings.NewReader("100001\tone\n100002\ttwo\n")
	})
	if _, err := c.ExecContext(ctx, "DELETE FROM t WHERE id>100000"); err != nil {
		t.Fatal(err)
	}
	if res, err = c.ExecContext(ctx, "LOAD DATA LOCAL INFILE 'Reader::data' INTO TABLE t"); err != nil {
		t.Fatal(err)
	}
	if n, _ := res.RowsAffected(); n != 2 {
		t.Errorf("LOAD DATA: %d rows", n)
	}
}

func bigPackets(t *testing.T, dsn string) {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, n := range []int{1<<24 - 20, 1<<24 - 1, 1 << 24, 20 << 20} {
		want := strings.Repeat("abcdefgh", n/8+1)[:n]
		var got string
		if err := db.QueryRow("SELECT ?", want).Scan(&got); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if got != want {
			t.Errorf("%d bytes differ", n)
		}
		if err := db.QueryRow("SELECT '" + want + "'").Scan(&got); err != nil || got != want {
			t.Errorf("%d bytes as text: %v", n, err)
		}
	}
}

func testDrivers(t *testing.T, s *mysqldtest.Server) {
	backends := map[string]Dialer{"unix": dialTo("unix", s.Socket), "tcp": elsewhere(dialTo("tcp", s.Addr))}
	accounts := [][2]string{{"csha", "secret one"}, {"sha", "secret two"}, {"nopw", ""}, {"shanopw", ""}}
	const params = "?multiStatements=true&maxAllowedPacket=0&allowAllFiles=true&timeout=60s"
	for name, dial := range backends {
		for _, backTLS := range []bool{false, true} {
			if backTLS && name == "unix" {
				continue
			}
			opt := Options{ClientTLS: testTLS(t), Compression: true, Secrets: NewSecrets(), DemandPassword: true}
			if backTLS {
				opt.BackendTLS = &tls.Config{InsecureSkipVerify: true}
			}
			for _, listen := range []string{"tcp", "unix"} {
				p := startPassthrough(t, listen, opt, dial)
				for _, clientTLS := range []string{"", "&tls=skip"} {
					for _, extra := range []string{"", "&interpolateParams=true", "&compress=true"} {
						for _, a := range accounts {
							t.Run(fmt.Sprintf("%s%v/%s%s%s/%s", name, backTLS, listen, clientTLS, extra, a[0]), func(t *testing.T) {
								s.SQL(t, "FLUSH PRIVILEGES") // empties caching_sha2_password's cache
								dsn := fmt.Sprintf("%s:%s@%s(%s)/d%s%s%s", a[0], a[1], listen, p.addr, params, clientTLS, extra)
								smoke(t, dsn)
								p.noErrors(t)
								sec := p.lastRelay().Login.Secret
								if !sec.Known || string(sec.Password) != a[1] {
									t.Errorf("secret not learnt: %v", sec.Known)
								}
							})
						}
					}
				}
			}
		}
	}
}

func testBigPackets(t *testing.T, s *mysqldtest.Server) {
	p := startPassthrough(t, "tcp", Options{ClientTLS: testTLS(t), Compression: true}, dialTo("unix", s.Socket))
	for _, extra := range []string{"", "&interpolateParams=true", "&tls=skip", "&compress=true"} {
		t.Run(extra, func(t *testing.T) {
			bigPackets(t, "csha:secret one@tcp("+p.addr+")/d?multiStatements=true&maxAllowedPacket=0"+extra)
			p.noErrors(t)
		})
	}
}

func testGoMySQLClient(t *testing.T, s *mysqldtest.Server) {
	p := startPassthrough(t, "tcp", Options{ClientTLS: testTLS(t), Compression: true}, dialTo("unix", s.Socket))
	modes := map[string]func(*gomysql.Conn) error{
		"plain": func(c *gomysql.Conn) error { return nil },
		"zlib":  func(c *gomysql.Conn) error { return c.SetCapability(gm.CLIENT_COMPRESS) },
		"zstd":  func(c *gomysql.Conn) error { return c.SetCapability(gm.CLIENT_ZSTD_COMPRESSION_ALGORITHM) },
		"tls":   func(c *gomysql.Conn) error { c.UseSSL(true); return nil },
		"legacy": func(c *gomysql.Conn) error {
			c.UnsetCapability(gm.CLIENT_DEPRECATE_EOF)
			return nil
		},
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			c, err := gomysql.Connect(p.addr, "csha", "secret one", "d", gomysql.Option(mode))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Ping(); err != nil {
				t.Fatal(err)
			}
			r, err := c.Execute("SELECT REPEAT('a',100000), 2")
			if err != nil {
				t.Fatal(err)
			}
			if v, _ := r.GetString(0, 0); v != strings.Repeat("a", 100000) {
				t.Errorf("got %d bytes", len(v))
			}
			st, err := c.Prepare("SELECT ?, ? + 1")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				r, err = st.Execute("v", i)
				if err != nil {
					t.Fatal(err)
				}
				if v, _ := r.GetInt(0, 1); v != int64(i+1) {
					t.Errorf("got %d", v)
				}
			}
			if err := st.Close(); err != nil {
				t.Error(err)
			}
			if f, err := c.FieldList("t", "%"); err != nil || len(f) != 2 {
				t.Errorf("field list: %v %v", f, err)
			}
			if err := c.UseDB("mysql"); err != nil {
				t.Error(err)
			}
			big := bytes.Repeat([]byte("0123456789"), 200_000)
			r, err = c.Execute("SELECT LENGTH('" + string(big) + "')")
			if err != nil {
				t.Fatal(err)
			}
			if v, _ := r.GetInt(0, 0); v != int64(len(big)) {
				t.Errorf("got %d", v)
			}
			p.noErrors(t)
		})
	}
}
