package mysqld_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"cohort/internal/mysqld"
	"cohort/internal/mysqldtest"
)

const group = "11111111-2222-3333-4444-555555555555"

func ctxFor(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func connTo(t *testing.T, db *sql.DB) *sql.Conn {
	t.Helper()
	c, err := db.Conn(ctxFor(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// member opens the member's own account on s.
func member(t *testing.T, s *mysqldtest.Server) *sql.Conn {
	t.Helper()
	if err := mysqld.EnsureAccount(ctxFor(t), connTo(t, s.DB(t)), "cohort", "it's a secret"); err != nil {
		t.Fatal(err)
	}
	db, err := mysqld.Open(s.Socket, "cohort", "it's a secret")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return connTo(t, db)
}

func TestCheckAcceptsTheRequiredSettings(t *testing.T) {
	s := mysqldtest.Start(t)
	if err := mysqld.Check(ctxFor(t), member(t, s)); err != nil {
		t.Fatal(err)
	}
}

func TestCheckNamesSettingValueAndFix(t *testing.T) {
	s := mysqldtest.Start(t, "binlog_do_db=shop", "replicate_ignore_db=other", "log_replica_updates=OFF",
		"binlog_row_image=MINIMAL", "binlog_row_value_options=PARTIAL_JSON", "replica_preserve_commit_order=OFF",
		"xa_detach_on_prepare=OFF", "gtid_mode=ON_PERMISSIVE", "replica_skip_errors=1062", "replica_exec_mode=IDEMPOTENT")
	err := mysqld.Check(ctxFor(t), member(t, s))
	var se *mysqld.SettingsError
	if !errors.As(err, &se) || !errors.Is(err, mysqld.ErrSettings) {
		t.Fatalf("got %v", err)
	}
	got := map[string]string{}
	for _, p := range se.Problems {
		got[p.Name] = p.Value
		if p.Fix == "" {
			t.Errorf("%s: no fix", p.Name)
		}
	}
	want := map[string]string{
		"binlog_do_db": "shop", "replicate_ignore_db": "other", "log_replica_updates": "OFF",
		"binlog_row_image": "MINIMAL", "binlog_row_value_options": "PARTIAL_JSON",
		"replica_preserve_commit_order": "OFF", "xa_detach_on_prepare": "OFF", "gtid_mode": "ON_PERMISSIVE",
		"replica_skip_errors": "1062", "replica_exec_mode": "IDEMPOTENT",
	}
	for n, v := range want {
		if got[n] != v {
			t.Errorf("%s: got %q, want %q", n, got[n], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("problems: %v", got)
	}
}

func TestEnsureAccountLeavesNoTraceInTheBinlogAndKeepsReadOnly(t *testing.T) {
	s := mysqldtest.Start(t, "super_read_only=ON")
	for range 2 { // the second time it exists already
		c := member(t, s)
		var user string
		if err := c.QueryRowContext(ctxFor(t), "SELECT CURRENT_USER()").Scan(&user); err != nil || user != "cohort@localhost" {
			t.Fatalf("%s, %v", user, err)
		}
	}
	if v := s.Value(t, "SELECT @@gtid_executed"); v != "" {
		t.Errorf("gtid_executed = %s", v)
	}
	if v := s.Value(t, "SELECT @@super_read_only"); v != "1" {
		t.Errorf("super_read_only = %s", v)
	}
	conn := connTo(t, s.DB(t))
	if err := mysqld.Unlogged(ctxFor(t), conn, "CREATE DATABASE plain", "NO SUCH STATEMENT"); mysqld.Errno(err) != 1064 {
		t.Errorf("got %v", err)
	}
	if v := s.Value(t, "SELECT CONCAT(@@super_read_only, COUNT(*)) FROM information_schema.schemata WHERE schema_name = 'plain'"); v != "11" {
		t.Errorf("after a failed statement: %s", v)
	}
	var logBin int
	if err := conn.QueryRowContext(ctxFor(t), "SELECT @@sql_log_bin").Scan(&logBin); err != nil || logBin != 1 {
		t.Errorf("sql_log_bin = %d, %v", logBin, err)
	}
}

// What a member does on its mysqld, done as its own account.
func TestAccountSufficesForAMember(t *testing.T) {
	s := mysqldtest.Start(t, "super_read_only=ON")
	s.SQL(t, "SET GLOBAL super_read_only=OFF", "SET GLOBAL read_only=OFF", "SET SESSION sql_log_bin=0", "CREATE DATABASE d",
		"CREATE TABLE d.p (id INT PRIMARY KEY)",
		"CREATE TABLE d.t (id INT PRIMARY KEY, u VARCHAR(20), p INT, UNIQUE KEY (u), KEY f ((LOWER(u))), CONSTRAINT fk FOREIGN KEY (p) REFERENCES d.p (id))",
		"SET SESSION sql_log_bin=1", "XA START 'x'", "INSERT INTO d.t VALUES (1,'a',NULL)", "XA END 'x'", "XA PREPARE 'x'",
		"SET GLOBAL super_read_only=ON")
	ctx, c := ctxFor(t), member(t, s)
	xids, err := mysqld.XARecover(ctx, c)
	if err != nil || len(xids) != 1 || string(xids[0].Gtrid) != "x" || len(xids[0].Bqual) != 0 || xids[0].SQL() != "X'78',X'',1" {
		t.Fatalf("%v %v", xids, err)
	}
	for _, q := range []string{
		"SET gtid_next='" + group + ":1'", "XA COMMIT " + xids[0].SQL(),
		"SET gtid_next='" + group + ":3'", "BEGIN", "COMMIT",
		"SET gtid_next='AUTOMATIC'",
		"SET GLOBAL super_read_only=OFF", "SET GLOBAL super_read_only=ON", "SET GLOBAL binlog_order_commits=OFF",
		"FLUSH BINARY LOGS", "SELECT * FROM performance_schema.data_lock_waits", "SHOW ENGINE INNODB STATUS",
		"SET SESSION sql_log_bin=0", "SET SESSION sql_log_bin=1", "STOP REPLICA", "SET SESSION xa_detach_on_prepare=ON",
	} {
		if _, err := c.ExecContext(ctx, q); err != nil {
			t.Errorf("%s: %v", q, err)
		}
	}
	set, err := mysqld.GroupExecuted(ctx, c, strings.ToUpper(group))
	if err != nil || set.Low != 1 || len(set.Extra) != 1 || set.Extra[0] != 3 || !set.Has(1) || set.Has(2) || !set.Has(3) || set.Last() != 3 {
		t.Errorf("%+v %v", set, err)
	}
	if err := mysqld.SetPersist(ctx, c, map[string]string{"super_read_only": "ON", "skip_replica_start": "ON"}); err != nil {
		t.Error(err)
	}
	if err := mysqld.SetGlobals(ctx, c, map[string]string{"binlog_order_commits": "ON", "sql_mode": "ANSI_QUOTES"}); err != nil {
		t.Error(err)
	}
	if err := mysqld.SetGlobals(ctx, c, map[string]string{"x = 1; DROP": "ON"}); err == nil {
		t.Error("a bad name was accepted")
	}
	if err := c.QueryRowContext(ctx, "SELECT COUNT(*) FROM d.t").Scan(new(int)); mysqld.Errno(err) != 1142 {
		t.Errorf("the member's account reads user data: %v", err)
	}
	// Keys, foreign keys and functional keys must be visible.
	for q, want := range map[string]int{
		"SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema='d'":                                             5,
		"SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema='d' AND expression IS NOT NULL":                  1,
		"SELECT COUNT(*) FROM information_schema.columns WHERE table_schema='d' AND collation_name IS NOT NULL":                 1,
		"SELECT COUNT(*) FROM information_schema.key_column_usage WHERE table_schema='d' AND referenced_table_name IS NOT NULL": 1,
		"SELECT COUNT(*) FROM information_schema.referential_constraints WHERE constraint_schema='d'":                           1,
		"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema='d' AND engine='InnoDB'":                             2,
	} {
		var n int
		if err := c.QueryRowContext(ctx, q).Scan(&n); err != nil || n != want {
			t.Errorf("%s: %d, %v", q, n, err)
		}
	}
	if v := s.Value(t, "SELECT COUNT(*) FROM d.t"); v != "1" {
		t.Errorf("%s rows", v)
	}
	s.Restart(t, "super_read_only=OFF") // the persisted value wins over my.cnf
	if v := s.Value(t, "SELECT CONCAT(@@super_read_only,@@skip_replica_start)"); v != "11" {
		t.Errorf("after a restart: %s", v)
	}
}

func TestKillSessionsWaitsUntilTheyAreGone(t *testing.T) {
	s := mysqldtest.Start(t, "event_scheduler=ON")
	s.SQL(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
	ctx, c := ctxFor(t), member(t, s)
	keep, writer, idle := connTo(t, s.DB(t)), connTo(t, s.DB(t)), connTo(t, s.DB(t))
	var keepID uint64
	if err := keep.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&keepID); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"BEGIN", "INSERT INTO d.t VALUES (1)"} {
		if _, err := writer.ExecContext(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	slept := make(chan error, 1)
	go func() { _, err := idle.ExecContext(ctx, "SELECT SLEEP(50)"); slept <- err }()
	if err := mysqld.KillSessions(ctx, c, keepID); err != nil {
		t.Fatal(err)
	}
	if err := <-slept; err == nil {
		t.Error("a running statement survived")
	}
	if _, err := writer.ExecContext(ctx, "COMMIT"); err == nil {
		t.Error("a killed session committed")
	}
	if _, err := keep.ExecContext(ctx, "DO 1"); err != nil {
		t.Errorf("the kept session: %v", err)
	}
	if v := s.Value(t, "SELECT COUNT(*) FROM d.t"); v != "0" {
		t.Errorf("%s rows", v)
	}
	if v := s.Value(t, "SELECT COUNT(*) FROM performance_schema.threads WHERE NAME='thread/sql/event_scheduler'"); v != "1" {
		t.Error("the event scheduler was killed")
	}
}

// Another mysqld stands for the feed: the commands are the same.
func TestFeedChannel(t *testing.T) {
	ss := mysqldtest.StartN(t, 2)
	src, dst := ss[0], ss[1]
	src.SQL(t, "SET sql_log_bin=0", "CREATE USER feed IDENTIFIED BY ''", "GRANT REPLICATION SLAVE ON *.* TO feed", "SET sql_log_bin=1",
		"SET gtid_next='"+group+":1'", "CREATE DATABASE d", "SET gtid_next='AUTOMATIC'")
	ctx, c := ctxFor(t), member(t, dst)
	for _, f := range []func(context.Context, mysqld.Querier) error{mysqld.StopFeedChannel, mysqld.ResetFeedChannel, mysqld.DropFeedChannel} {
		if err := f(ctx, c); err != nil {
			t.Fatalf("without a channel: %v", err)
		}
	}
	if st, err := mysqld.ReadApplierStatus(ctx, c); err != nil || st.Exists {
		t.Fatalf("%+v %v", st, err)
	}
	dst.SQL(t, "SET GLOBAL super_read_only=ON")
	if err := mysqld.ConfigureFeedChannel(ctx, c, mysqld.FeedSource{Host: "127.0.0.1", Port: src.Port, User: "feed", GTIDOnly: true}); err != nil {
		t.Fatal(err)
	}
	if err := mysqld.StartFeedChannel(ctx, c); err != nil {
		t.Fatal(err)
	}
	waitGTID(t, c, group+":1")
	if err := mysqld.ReconnectFeed(ctx, c); err != nil {
		t.Fatal(err)
	}
	// Replicating a row that is there already stops the applier.
	dst.SQL(t, "SET GLOBAL super_read_only=OFF", "SET sql_log_bin=0", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)")
	src.SQL(t, "SET sql_log_bin=0", "CREATE TABLE d.t (id INT PRIMARY KEY)", "SET sql_log_bin=1",
		"SET gtid_next='"+group+":2'", "INSERT INTO d.t VALUES (1)", "SET gtid_next='AUTOMATIC'")
	var st mysqld.ApplierStatus
	waitFor(t, func() bool {
		var err error
		if st, err = mysqld.ReadApplierStatus(ctx, c); err != nil {
			t.Fatal(err)
		}
		return st.ApplierErrno != 0 && st.ApplierState == "OFF"
	})
	if err := st.Err(); !errors.Is(err, mysqld.ErrApplier) || st.ApplierErrno != 1062 || st.GTID != group+":2" || !st.Exists {
		t.Errorf("%+v", st)
	}
	dst.SQL(t, "SET sql_log_bin=0", "DELETE FROM d.t")
	for _, f := range []func(context.Context, mysqld.Querier) error{mysqld.StopFeedChannel, mysqld.ResetFeedChannel, mysqld.StartFeedChannel} {
		if err := f(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	waitGTID(t, c, group+":2")
	if st, err := mysqld.ReadApplierStatus(ctx, c); err != nil || st.Err() != nil || st.ApplierState != "ON" || st.ReceiverState != "ON" {
		t.Errorf("%+v %v", st, err)
	}
}

func waitGTID(t *testing.T, c *sql.Conn, gtid string) {
	t.Helper()
	var timedOut bool
	if err := c.QueryRowContext(ctxFor(t), "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 120)", gtid).Scan(&timedOut); err != nil || timedOut {
		st, _ := mysqld.ReadApplierStatus(ctxFor(t), c)
		t.Fatalf("%s did not arrive: %v %+v", gtid, err, st)
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(2 * time.Minute)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("the condition did not come true in two minutes")
		}
	}
}
