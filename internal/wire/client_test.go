package wire_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cohort/internal/mysqldtest"
	"cohort/internal/wire"
)

func dial(t *testing.T, cfg wire.Config) *wire.Client {
	t.Helper()
	cl, err := wire.Dial(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

func TestClient(t *testing.T) {
	s := mysqldtest.Start(t)
	ctx := context.Background()
	s.SQL(t, "CREATE DATABASE d",
		"CREATE USER csha IDENTIFIED WITH caching_sha2_password BY 'one'",
		"CREATE USER sha IDENTIFIED WITH sha256_password BY 'two'",
		"CREATE USER nopw", "GRANT ALL ON *.* TO csha, sha, nopw")
	insecure := &tls.Config{InsecureSkipVerify: true}

	t.Run("login", func(t *testing.T) {
		for _, a := range [][2]string{{"csha", "one"}, {"sha", "two"}, {"nopw", ""}} {
			for _, where := range [][2]string{{"unix", s.Socket}, {"tcp", s.Addr}} {
				for _, tc := range []*tls.Config{nil, insecure} {
					s.SQL(t, "FLUSH PRIVILEGES")
					for range 2 { // full, then fast
						cl := dial(t, wire.Config{Network: where[0], Addr: where[1], User: a[0], Password: a[1], DB: "d", TLS: tc,
							Attributes: [][2]string{{"program_name", "test"}}})
						r, err := cl.Query(ctx, "SELECT CURRENT_USER(), DATABASE(), @@session.character_set_client, CONNECTION_ID(), (SELECT attr_value FROM performance_schema.session_connect_attrs WHERE processlist_id=CONNECTION_ID() AND attr_name='program_name')")
						if err != nil {
							t.Fatal(err)
						}
						want := fmt.Sprint(a[0], "@% d utf8mb4 ", cl.ThreadID(), " test")
						got := strings.Join([]string{r.Str(0, 0), r.Str(0, 1), r.Str(0, 2), r.Str(0, 3), r.Str(0, 4)}, " ")
						if got != want {
							t.Errorf("%s, want %s", got, want)
						}
						if err := cl.Quit(); err != nil {
							t.Error(err)
						}
					}
				}
			}
		}
		if _, err := wire.Dial(ctx, wire.Config{Network: "tcp", Addr: s.Addr, User: "csha", Password: "no"}); wire.ErrorCode(err) != 1045 {
			t.Error(err)
		}
	})

	cl := dial(t, wire.Config{Network: "unix", Addr: s.Socket, User: "root", DB: "d", Caps: wire.MultiStatements | wire.QueryAttributes})
	t.Run("query", func(t *testing.T) {
		ok, err := cl.Exec(ctx, "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT)")
		if err != nil || ok.Status&wire.StatusAutocommit == 0 {
			t.Fatal(ok, err)
		}
		ok, err = cl.Exec(ctx, "INSERT INTO t(v) VALUES ('a'), (NULL), ('')")
		if err != nil || ok.AffectedRows != 3 || ok.InsertID != 1 || !strings.HasPrefix(string(ok.Info), "Records: 3") {
			t.Fatalf("%+v %v", ok, err)
		}
		r, err := cl.Query(ctx, "SELECT * FROM t")
		if err != nil || len(r.Rows) != 3 || r.Columns[1].Name != "v" || r.Columns[1].Table != "t" {
			t.Fatal(r, err)
		}
		if r.Rows[1][1] != nil || r.Rows[2][1] == nil || r.Str(0, 1) != "a" || r.Str(9, 9) != "" {
			t.Errorf("%q", r.Rows)
		}
		if _, err := cl.Query(ctx, "SELECT * FROM nothing"); wire.ErrorCode(err) != 1146 || cl.Broken() {
			t.Error(err)
		}
		n := 0
		if _, err := cl.QueryFunc(ctx, "SELECT 1 UNION ALL SELECT 2", func(row [][]byte) error { n++; return nil }); err != nil || n != 2 {
			t.Error(n, err)
		}
		if r, err := cl.Query(ctx, "SELECT 1; SELECT 2"); err != nil || r.Str(0, 0) != "2" {
			t.Error(r, err)
		}
		big := strings.Repeat("x", 20<<20)
		if r, err := cl.Query(ctx, "SELECT LENGTH('"+big+"'), REPEAT('y', 20000000)"); err != nil || r.Str(0, 0) != "20971520" || len(r.Str(0, 1)) != 20000000 {
			t.Error(err)
		}
		if _, err := cl.Ping(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("pipeline", func(t *testing.T) {
		if _, err := cl.Exec(ctx, "SET session_track_gtids=OWN_GTID, session_track_transaction_info=STATE"); err != nil {
			t.Fatal(err)
		}
		uuid := "11111111-2222-3333-4444-555555555555:1"
		rs, err := cl.Pipeline(ctx, "XA START 'x'", "INSERT INTO t(v) VALUES ('p')", "XA END 'x'", "XA PREPARE 'x'",
			"SELECT nonsense", "SELECT 1, 2", "SET gtid_next='"+uuid+"'", "XA COMMIT 'x'", "SET gtid_next=AUTOMATIC")
		if err != nil || len(rs) != 9 {
			t.Fatal(rs, err)
		}
		for i, r := range rs {
			if (r.Err != nil) != (i == 4) {
				t.Errorf("%d: %v", i, r.Err)
			}
		}
		if st, ok := rs[1].OK.Trackers.TxState(); !ok || !strings.Contains(st, "W") {
			t.Error(st)
		}
		if rs[3].OK.Trackers.GTID() == "" || rs[7].OK.Trackers.GTID() != uuid {
			t.Error(rs[3].OK.Trackers.GTID(), rs[7].OK.Trackers.GTID())
		}
		if rs[5].Str(0, 1) != "2" {
			t.Error(rs[5])
		}
		many := make([]string, 20_000)
		for i := range many {
			many[i] = fmt.Sprintf("SELECT %d, REPEAT('z', 200)", i)
		}
		rs, err = cl.Pipeline(ctx, many...)
		if err != nil || len(rs) != len(many) || rs[len(rs)-1].Str(0, 0) != "19999" {
			t.Error(len(rs), err)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		c := dial(t, wire.Config{Network: "tcp", Addr: s.Addr, User: "csha", Password: "one"})
		cctx, cancel := context.WithCancelCause(ctx)
		why := errors.New("enough")
		var rs []wire.Reply
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			rs, err = c.Pipeline(cctx, "SELECT 7", "SELECT SLEEP(1000)")
		}()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for s.Value(t, "SELECT COUNT(*) FROM performance_schema.processlist WHERE info LIKE 'SELECT SLEEP(1000)'") != "1" {
			<-tick.C
		}
		cancel(why)
		<-done
		if !errors.Is(err, why) || len(rs) != 1 || rs[0].Str(0, 0) != "7" {
			t.Error(rs, err)
		}
		if _, err := c.Exec(ctx, "SELECT 1"); !errors.Is(err, wire.ErrBroken) {
			t.Error(err)
		}
		over, stop := context.WithTimeout(ctx, time.Nanosecond)
		defer stop()
		<-over.Done()
		if _, err := wire.Dial(over, wire.Config{Network: "unix", Addr: s.Socket, User: "root"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	t.Run("change user", func(t *testing.T) {
		c := dial(t, wire.Config{Network: "tcp", Addr: s.Addr, User: "csha", Password: "one"})
		if _, err := c.ChangeUser(ctx, "sha", "two", "d", ""); err != nil {
			t.Fatal(err)
		}
		if r, err := c.Query(ctx, "SELECT CURRENT_USER()"); err != nil || r.Str(0, 0) != "sha@%" {
			t.Error(r, err)
		}
	})
}
