package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/mysqld"
	"cohort/internal/mysqldtest"
)

// taken is a transaction as capture would hand it on.
type taken struct {
	meta binlog.Meta
	body []byte
	dep  uint64
}

// take reads what a source mysqld wrote to its binary log, from transaction
// number after+1 on, as bodies with the group's numbers.
func take(t *testing.T, src *mysqldtest.Server, after uint64) []taken {
	t.Helper()
	var out []taken
	n := uint64(0)
	for _, path := range src.BinlogFiles(t) {
		if strings.HasSuffix(path, ".index") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b = b[binlog.MagicSize:]
		first := n + 1
		var x *taken
		for len(b) > 0 {
			var ev []byte
			if ev, b, err = binlog.NextEvent(b); err != nil {
				t.Fatal(err)
			}
			h, _ := binlog.ParseHeader(ev)
			plain := ev[:len(ev)-binlog.ChecksumSize]
			switch h.Type {
			case binlog.TypeFormatDescription:
				compareDescriptions(t, ev)
			case binlog.TypePreviousGTIDs, binlog.TypeRotate, binlog.TypeStop:
			case binlog.TypeGTID:
				n++
				g, err := binlog.DecodeGTID(plain)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, taken{meta: binlog.Meta{
					Kind: binlog.KindStatement, GTIDFlags: g.Flags, Timestamp: h.Timestamp,
					OriginalCommitTimestamp: g.OriginalCommitTimestamp, OriginalServerVersion: g.OriginalServerVersion,
				}})
				x = &out[len(out)-1]
				if g.LastCommitted > 0 {
					x.dep = first + uint64(g.LastCommitted) - 1
				} else {
					x.dep = first - 1
				}
			case binlog.TypeXID:
				x.meta.Kind = binlog.KindTransaction
			default:
				if x.body, err = binlog.Rewrite(x.body, ev, true); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return out[after:]
}

// compareDescriptions checks that our format description says the same of
// events as the server's own.
func compareDescriptions(t *testing.T, real []byte) {
	t.Helper()
	want, err := binlog.ParseFormatDescription(real)
	if err != nil {
		t.Fatal(err)
	}
	got, err := binlog.ParseFormatDescription(binlog.AppendFormatDescription(nil, 0, want.ServerVersion, 0))
	if err != nil {
		t.Fatal(err)
	}
	k := min(len(want.PostHeaderLengths), len(got.PostHeaderLengths))
	if !bytes.Equal(got.PostHeaderLengths[:k], want.PostHeaderLengths[:k]) {
		t.Fatalf("post-header lengths\n%v, server's\n%v", got.PostHeaderLengths, want.PostHeaderLengths)
	}
}

func appendAll(t *testing.T, s *groupbinlog.Store, txns []taken) {
	t.Helper()
	for _, x := range txns {
		n := s.LastN() + 1
		if err := s.Append(n, x.dep, x.meta, bytes.NewReader(x.body), int64(len(x.body))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Sync(); err != nil {
		t.Fatal(err)
	}
}

// startFeed runs a feed until stop is called or the test ends.
func startFeed(t *testing.T, opt Options) (f *Feed, stop func()) {
	t.Helper()
	f, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var once sync.Once
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return f, stop
}

const (
	testGroup  = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	sourceUUID = "cccccccc-bbbb-cccc-dddd-eeeeeeeeeeee"
)

func testOptions(t *testing.T, s *groupbinlog.Store) Options {
	return Options{
		Store: s, GroupUUID: testGroup, ServerUUID: sourceUUID, ServerVersion: "9.7.0",
		User: "feed", Password: "pass'word", Logger: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel),
	}
}

func openStore(t *testing.T, max int64) *groupbinlog.Store {
	t.Helper()
	s, err := groupbinlog.Open(t.TempDir(), groupbinlog.Options{GroupUUID: testGroup, MaxFileSize: max, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// pointReplica makes a mysqld a receiver of the feed, as a member does it.
func pointReplica(t *testing.T, r *mysqldtest.Server, f *Feed) {
	t.Helper()
	r.SQL(t, "SET GLOBAL super_read_only=ON")
	addr := f.Addr().(*net.TCPAddr)
	src := mysqld.FeedSource{
		Host: addr.IP.String(), Port: addr.Port, User: "feed", Password: "pass'word",
		Heartbeat: 50 * time.Millisecond, GTIDOnly: true,
	}
	if err := mysqld.ConfigureFeedChannel(context.Background(), r.DB(t), src); err != nil {
		t.Fatal(err)
	}
	if err := mysqld.StartFeedChannel(context.Background(), r.DB(t)); err != nil {
		t.Fatal(err)
	}
}

// waitApplied waits until the replica executed exactly group:1-n.
func waitApplied(t *testing.T, r *mysqldtest.Server, n uint64) {
	t.Helper()
	want := fmt.Sprintf("%s:1-%d", testGroup, n)
	if n == 1 {
		want = testGroup + ":1"
	}
	deadline := time.Now().Add(2 * time.Minute)
	for {
		r.Value(t, "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 2)", want)
		got := r.Value(t, "SELECT @@GLOBAL.gtid_executed")
		if got == want {
			return
		}
		problems := replicaErrors(t, r)
		if problems != "" || time.Now().After(deadline) {
			t.Fatalf("executed %q, want %q; replication: %s", got, want, problems)
		}
	}
}

func replicaErrors(t *testing.T, r *mysqldtest.Server) string {
	t.Helper()
	return r.Value(t, `SELECT CONCAT_WS('; ',
		(SELECT GROUP_CONCAT(NULLIF(last_error_message,'')) FROM performance_schema.replication_connection_status WHERE service_state<>'ON'),
		(SELECT GROUP_CONCAT(last_error_message) FROM performance_schema.replication_applier_status_by_coordinator WHERE last_error_number<>0),
		(SELECT GROUP_CONCAT(last_error_message) FROM performance_schema.replication_applier_status_by_worker WHERE last_error_number<>0))`)
}

// sameData compares every table of schema d, and the accounts.
func sameData(t *testing.T, a, b *mysqldtest.Server) {
	t.Helper()
	for _, q := range []string{
		`SELECT GROUP_CONCAT(table_name, table_type ORDER BY table_name) FROM information_schema.tables WHERE table_schema='d'`,
		`SELECT GROUP_CONCAT(routine_name ORDER BY 1) FROM information_schema.routines WHERE routine_schema='d'`,
		`SELECT GROUP_CONCAT(trigger_name ORDER BY 1) FROM information_schema.triggers WHERE trigger_schema='d'`,
		`SELECT GROUP_CONCAT(user ORDER BY 1) FROM mysql.user`,
		`SELECT GROUP_CONCAT(db,user ORDER BY db) FROM mysql.db`,
	} {
		if x, y := a.Value(t, q), b.Value(t, q); x != y {
			t.Errorf("%s:\n%s\n%s", q, x, y)
		}
	}
	rows, err := a.DB(t).Query(`SELECT table_name FROM information_schema.tables WHERE table_schema='d' AND table_type='BASE TABLE'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		sum := func(s *mysqldtest.Server) (v string) {
			var table string
			if err := s.DB(t).QueryRow("CHECKSUM TABLE d."+name).Scan(&table, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
		if x, y := sum(a), sum(b); x != y {
			t.Errorf("checksum of %s: %s and %s", name, x, y)
		}
	}
}

// load runs concurrent small transactions with conflicts on the source.
func load(t *testing.T, src *mysqldtest.Server, round, workers, each int) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			conn, err := src.DB(t).Conn(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for i := range each {
				for _, q := range []string{
					"BEGIN",
					fmt.Sprintf("UPDATE d.t SET v=v+1 WHERE id=%d", i%20+1),
					fmt.Sprintf("INSERT INTO d.log(w,i,txt) VALUES (%d,%d,REPEAT('x',%d))", w, round*100000+i, i%300),
					"COMMIT",
				} {
					if _, err := conn.ExecContext(context.Background(), q); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func prepareSource(t *testing.T, src *mysqldtest.Server) {
	src.SQL(t, "CREATE DATABASE d",
		"CREATE TABLE d.t(id INT PRIMARY KEY, v INT)",
		"CREATE TABLE d.log(id BIGINT AUTO_INCREMENT PRIMARY KEY, w INT, i INT, txt TEXT, KEY(w))",
		"INSERT INTO d.t WITH RECURSIVE s AS (SELECT 1 a UNION ALL SELECT a+1 FROM s WHERE a<20) SELECT a,0 FROM s")
}

func TestReplicaFollowsThroughCrashes(t *testing.T) {
	servers := mysqldtest.StartN(t, 2, "max_allowed_packet=1073741824", "replica_parallel_workers=4", "innodb_redo_log_capacity=256M")
	src, rep := servers[0], servers[1]
	store := openStore(t, 200<<10)
	opt := testOptions(t, store)
	opt.Listen = net.JoinHostPort(mysqldtest.Loopback(), "0")
	f, stop := startFeed(t, opt)
	pointReplica(t, rep, f)

	prepareSource(t, src)
	load(t, src, 0, 4, 100)
	appendAll(t, store, take(t, src, store.LastN()))
	waitApplied(t, rep, store.LastN())
	sameData(t, src, rep)

	// The replica dies in the middle of applying.
	load(t, src, 1, 4, 200)
	half := store.LastN() + 100
	appendAll(t, store, take(t, src, store.LastN()))
	rep.Value(t, "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 60)", fmt.Sprintf("%s:1-%d", testGroup, half))
	rep.Kill(t)
	rep.Restart(t)
	rep.SQL(t, "SET GLOBAL super_read_only=ON", "START REPLICA FOR CHANNEL 'cohort_applier'")
	waitApplied(t, rep, store.LastN())
	sameData(t, src, rep)

	// The feed dies in the middle of sending and comes back on its port.
	load(t, src, 2, 4, 200)
	txns := take(t, src, store.LastN())
	appendAll(t, store, txns[:len(txns)/2])
	stop()
	opt.Listen = f.Addr().String()
	f, _ = startFeed(t, opt)
	appendAll(t, store, txns[len(txns)/2:])
	waitApplied(t, rep, store.LastN())
	f.CloseStreams()
	load(t, src, 3, 2, 10)
	appendAll(t, store, take(t, src, store.LastN()))
	waitApplied(t, rep, store.LastN())
	sameData(t, src, rep)

	if v := rep.Value(t, "SELECT @@GLOBAL.super_read_only"); v != "1" {
		t.Errorf("super_read_only is %s", v)
	}
}

func TestReplicaGetsEveryKindOfStatement(t *testing.T) {
	servers := mysqldtest.StartN(t, 2, "max_allowed_packet=1073741824", "replica_parallel_workers=4", "innodb_redo_log_capacity=512M",
		"log_bin_trust_function_creators=ON")
	src, rep := servers[0], servers[1]
	prepareSource(t, src)
	src.SQL(t,
		"CREATE TABLE d.big(id INT PRIMARY KEY, b LONGBLOB)",
		"INSERT INTO d.big VALUES (1, REPEAT('a', 40*1024*1024))",
		"CREATE TABLE d.ctas AS SELECT id AS a, v FROM d.t",
		"CREATE TABLE d.c2 (PRIMARY KEY(a)) AS SELECT a, v FROM d.ctas",
		"ALTER TABLE d.c2 ADD COLUMN x VARCHAR(20) DEFAULT 'é', ADD INDEX(x)",
		"CREATE VIEW d.vw AS SELECT * FROM d.t",
		"CREATE TRIGGER d.tr BEFORE INSERT ON d.c2 FOR EACH ROW SET NEW.v = NEW.v + 1",
		"CREATE PROCEDURE d.p() BEGIN INSERT INTO d.c2(a,v) VALUES (100,1); INSERT INTO d.c2(a,v) VALUES (101,1); END",
		"CREATE FUNCTION d.f(a INT) RETURNS INT DETERMINISTIC RETURN a+1",
		"CALL d.p()",
		"CREATE USER 'u1'@'%' IDENTIFIED BY 'x'", "GRANT SELECT ON d.* TO 'u1'@'%'", "CREATE ROLE r1", "GRANT r1 TO 'u1'@'%'",
		"ALTER USER 'u1'@'%' ACCOUNT LOCK",
		"CREATE EVENT d.ev ON SCHEDULE EVERY 1 YEAR DO SELECT 1",
		"ANALYZE TABLE d.t", "OPTIMIZE TABLE d.t",
		"RENAME TABLE d.ctas TO d.ctas2",
		"TRUNCATE TABLE d.ctas2",
		"DROP TABLE d.ctas2",
		"CREATE TABLE d.ch(id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES d.t(id) ON DELETE CASCADE)",
		"INSERT INTO d.ch VALUES (1,1),(2,2)", "DELETE FROM d.t WHERE id=1",
		"SET SESSION time_zone='+05:00', sql_mode='ANSI', character_set_client=latin1",
		"CREATE TABLE \"d\".\"ts\"(id INT PRIMARY KEY, x TIMESTAMP DEFAULT CURRENT_TIMESTAMP, y VARCHAR(10))",
		"INSERT INTO d.ts(id,y) VALUES (1,'z')",
	)
	store := openStore(t, 0)
	appendAll(t, store, take(t, src, 0))
	f, _ := startFeed(t, testOptions(t, store))
	pointReplica(t, rep, f)
	waitApplied(t, rep, store.LastN())
	sameData(t, src, rep)

	// With nothing to send heartbeats keep the stream alive, and between them
	// transactions go on; a position that fell behind would stop the receiver.
	beats := func() string {
		return rep.Value(t, "SELECT count_received_heartbeats FROM performance_schema.replication_connection_status")
	}
	more := func(than string) func() bool {
		return func() bool {
			return rep.Value(t, "SELECT count_received_heartbeats - ? >= 3 FROM performance_schema.replication_connection_status", than) == "1"
		}
	}
	for i := range 5 {
		waitFor(t, "heartbeats", more(beats()))
		src.SQL(t, fmt.Sprintf("INSERT INTO d.ch VALUES (%d, 5)", 10+i))
		appendAll(t, store, take(t, src, store.LastN()))
		waitApplied(t, rep, store.LastN())
	}
	// An idle stream must not make the receiver write: from the second heartbeat
	// on, the position that it says is the one that the receiver has.
	waitFor(t, "heartbeats", more(beats()))
	size := relayLogSize(t, rep)
	waitFor(t, "more heartbeats", more(beats()))
	if now := relayLogSize(t, rep); now != size {
		t.Errorf("heartbeats made the relay log grow from %d to %d", size, now)
	}
	if s := rep.Value(t, "SELECT service_state FROM performance_schema.replication_connection_status"); s != "ON" {
		t.Errorf("receiver is %s: %s", s, replicaErrors(t, rep))
	}
	sameData(t, src, rep)
	readWithMysqlbinlog(t, store, f)
}

// TestStreamsBreakInsideTransactions: a receiver that lost its connection has
// half a transaction in its relay log and gets the whole one behind it. The
// applier must roll the half back. (A format description without a position
// made it run both, until the server crashed or an event was lost.)
func TestStreamsBreakInsideTransactions(t *testing.T) {
	servers := mysqldtest.StartN(t, 3, "max_allowed_packet=1073741824", "replica_parallel_workers=4", "innodb_redo_log_capacity=256M")
	src, parallel, serial := servers[0], servers[1], servers[2]
	serial.SQL(t, "SET GLOBAL replica_parallel_workers=1")
	prepareSource(t, src)
	src.SQL(t, "CREATE TABLE d.big(id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)")
	store := openStore(t, 0)
	f, _ := startFeed(t, testOptions(t, store))
	replicas := []*mysqldtest.Server{parallel, serial}
	for _, r := range replicas {
		pointReplica(t, r, f)
	}
	uuids := map[string]bool{}
	for round := range 6 {
		load(t, src, round, 2, 20)
		src.SQL(t, "INSERT INTO d.big(b) SELECT REPEAT(CHAR(96+id), 1000000) FROM d.t")
		load(t, src, 100+round, 2, 20)
		appendAll(t, store, take(t, src, store.LastN()))
		for range 2 {
			var old []string
			waitFor(t, "both streams", func() bool {
				old = old[:0]
				for _, s := range f.Streams() {
					uuids[s.UUID] = true
					old = append(old, s.Remote)
				}
				return len(old) == 2
			})
			f.CloseStreams()
			waitFor(t, "new streams", func() bool {
				for _, s := range f.Streams() {
					if slices.Contains(old, s.Remote) {
						return false
					}
				}
				return true
			})
		}
	}
	for _, r := range replicas {
		waitApplied(t, r, store.LastN())
		sameData(t, src, r)
	}
	if len(uuids) != 2 {
		t.Errorf("streams of %d receivers", len(uuids))
	}
}

// TestReplicasApplyInParallel: two receivers at once, and the logical clock of
// the stream lets their workers work beside each other. One of them misses
// some transactions in the middle and has others already.
func TestReplicasApplyInParallel(t *testing.T) {
	servers := mysqldtest.StartN(t, 3, "replica_parallel_workers=4")
	src, full, holes := servers[0], servers[1], servers[2]
	src.SQL(t, "CREATE DATABASE d", "CREATE TABLE d.log(id BIGINT PRIMARY KEY, v INT)")
	ddl := uint64(2)
	const rows = 1500
	var b strings.Builder
	conn, err := src.DB(t).Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range rows {
		b.Reset()
		fmt.Fprintf(&b, "INSERT INTO d.log VALUES (%d,%d)", i, i*i)
		if _, err := conn.ExecContext(context.Background(), b.String()); err != nil {
			t.Fatal(err)
		}
	}
	txns := take(t, src, 0)
	for i := range txns[ddl:] {
		txns[int(ddl)+i].dep = ddl // the rows have nothing to do with each other
	}
	store := openStore(t, 64<<10)
	appendAll(t, store, txns)
	// What this one has executed is not contiguous: rows 100-199 are there.
	holes.SQL(t, "CREATE DATABASE d", "CREATE TABLE d.log(id BIGINT PRIMARY KEY, v INT)")
	for i := 100; i < 200; i++ {
		holes.SQL(t, fmt.Sprintf("INSERT INTO d.log VALUES (%d,%d)", i, i*i))
	}
	holes.SQL(t, "RESET BINARY LOGS AND GTIDS", fmt.Sprintf("SET GLOBAL gtid_purged='%s:1-2:103-202'", testGroup))
	f, _ := startFeed(t, testOptions(t, store))
	pointReplica(t, full, f)
	pointReplica(t, holes, f)
	for _, r := range []*mysqldtest.Server{full, holes} {
		waitApplied(t, r, store.LastN())
		sameData(t, src, r)
		if k := r.Value(t, "SELECT COUNT(*) FROM performance_schema.replication_applier_status_by_worker WHERE last_applied_transaction<>''"); k < "2" {
			t.Errorf("only %s worker applied anything", k)
		}
	}
}

func relayLogSize(t *testing.T, s *mysqldtest.Server) (sum int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Datadir, "relay*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("relay logs: %v %v", files, err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		sum += st.Size()
	}
	return sum
}

// readWithMysqlbinlog has the stock tool read the files, and the feed as a
// remote source.
func readWithMysqlbinlog(t *testing.T, store *groupbinlog.Store, f *Feed) {
	t.Helper()
	tool := mysqlbinlog(t)
	want := store.LastN()
	args := []string{"--verify-binlog-checksum", "--base64-output=DECODE-ROWS", "-v"}
	for _, file := range store.Files() {
		args = append(args, file.Path)
	}
	out, err := exec.Command(tool, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("mysqlbinlog of files: %v\n%s", err, tailOf(out))
	}
	if n := bytes.Count(out, []byte("SET @@SESSION.GTID_NEXT= '"+testGroup+":")); uint64(n) != want {
		t.Errorf("mysqlbinlog found %d transactions in the files, want %d", n, want)
	}
	addr := f.Addr().(*net.TCPAddr)
	out, err = exec.Command(tool, "--read-from-remote-source=BINLOG-DUMP-GTIDS", "--host=127.0.0.1", fmt.Sprintf("--port=%d", addr.Port),
		"--user=feed", "--password=pass'word", "--ssl-mode=DISABLED", "--exclude-gtids="+testGroup+":3-5", "--verify-binlog-checksum",
		"--base64-output=DECODE-ROWS", "cohort-feed.000001").CombinedOutput()
	if err != nil {
		t.Fatalf("mysqlbinlog of the feed: %v\n%s", err, tailOf(out))
	}
	if n := bytes.Count(out, []byte("SET @@SESSION.GTID_NEXT= '"+testGroup+":")); uint64(n) != want-3 {
		t.Errorf("mysqlbinlog got %d transactions from the feed, want %d\n%s", n, want-3, tailOf(out))
	}
}

func mysqlbinlog(t *testing.T) string {
	t.Helper()
	return filepath.Join(mysqldtest.Installation(t).Bin, "mysqlbinlog")
}

func tailOf(b []byte) []byte { return b[max(0, len(b)-3000):] }

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 2*time.Minute, errors.New(what))
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %v", context.Cause(ctx))
		}
	}
}
