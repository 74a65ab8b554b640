package capture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/binlog"
	"cohort/internal/mysqldtest"
)

const testGroup = "5bd4a4a1-1111-4222-8333-444455556666"

// tally is an Extractor that counts.
type tally struct {
	tables, rows, invalidated int
}

func (t *tally) Begin()                                 { t.tables, t.rows = 0, 0 }
func (t *tally) Table(context.Context, []byte) error    { t.tables++; return nil }
func (t *tally) Rows(binlog.Type, []byte) (bool, error) { t.rows++; return false, nil }
func (t *tally) Invalidate()                            { t.invalidated++ }
func (t *tally) Finish() Extract {
	return Extract{WriteSet: WriteSet{Tables: make([]uint64, t.tables), Writes: make([]uint64, t.rows)}}
}

// recorder runs a Capture and keeps what it delivers.
type recorder struct {
	t    testing.TB
	c    *Capture
	stop context.CancelFunc
	done chan error

	mu  sync.Mutex
	got []Captured
}

func testOptions(s *mysqldtest.Server) Options {
	return Options{
		Network: "unix", Addr: s.Socket, User: "root", ServerID: 990001, GroupUUID: testGroup,
		Extractor: &tally{}, Logger: zerolog.Nop(),
	}
}

// here is where the server's binary log ends.
func here(t testing.TB, s *mysqldtest.Server) StartAt {
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
	dest := make([]any, len(cols))
	var p StartAt
	dest[0], dest[1] = &p.File, &p.Pos
	for i := 2; i < len(dest); i++ {
		dest[i] = new(sql.RawBytes)
	}
	if err := rows.Scan(dest...); err != nil {
		t.Fatal(err)
	}
	return p
}

func record(t testing.TB, s *mysqldtest.Server, opt Options, start StartAt) *recorder {
	t.Helper()
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{t: t, c: c}
	r.run(start)
	t.Cleanup(func() {
		r.halt()
		for _, c := range r.got {
			c.Body.Close()
		}
	})
	return r
}

func (r *recorder) run(start StartAt) {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop, r.done = cancel, make(chan error, 1)
	go func() {
		r.done <- r.c.Run(ctx, start, func(c Captured) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.got = append(r.got, c)
			return nil
		})
	}()
}

func (r *recorder) halt() {
	if r.stop == nil {
		return
	}
	r.stop()
	if err := <-r.done; !errors.Is(err, context.Canceled) {
		r.t.Errorf("Run: %v", err)
	}
	r.stop = nil
}

// until waits for the capture to reach where the binary log ends now.
func (r *recorder) until(s *mysqldtest.Server) []Captured {
	r.t.Helper()
	end := here(r.t, s)
	deadline := time.Now().Add(3 * time.Minute)
	for r.c.Position().Before(end) {
		select {
		case err := <-r.done:
			r.stop = nil
			r.t.Fatalf("Run: %v", err)
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("capture stands at %v, the binary log ends at %v", r.c.Position(), end)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Captured(nil), r.got...)
}

// describe is a transcript of what was captured.
func describe(got []Captured) string {
	var b strings.Builder
	for _, c := range got {
		fmt.Fprintf(&b, "%s", c.Kind)
		if c.XID != "" {
			fmt.Fprintf(&b, " xid=%s", c.XID)
		}
		if c.Kind == KindXADecision {
			fmt.Fprintf(&b, " committed=%v", c.Committed)
		}
		if c.Meta.Kind == binlog.KindStatement {
			b.WriteString(" statement")
		}
		if c.Refuse != 0 {
			fmt.Fprintf(&b, " refuse=%d", c.Refuse)
		}
		if len(c.Tables) > 0 {
			fmt.Fprintf(&b, " tables=%d", len(c.Tables))
		}
		if len(c.Objects) > 0 {
			fmt.Fprintf(&b, " objects=%s", strings.Join(c.Objects, "+"))
		}
		fmt.Fprintf(&b, " snapshot=%d%v", c.Snapshot.Low, c.Snapshot.Extra)
		fmt.Fprintf(&b, " [%s]\n", shape(c.Body))
	}
	return b.String()
}

// shape lists a body's events.
func shape(body *Body) string {
	if body == nil {
		return "no body"
	}
	if body.Bytes() == nil {
		return "spilled"
	}
	var parts []string
	for b := body.Bytes(); len(b) > 0; {
		ev, rest, err := binlog.NextEvent(b)
		if err != nil {
			return "error: " + err.Error()
		}
		b = rest
		h, _ := binlog.ParseHeader(ev)
		switch h.Type {
		case binlog.TypeQuery:
			q, err := binlog.ParseQuery(ev[:len(ev)-4])
			if err != nil {
				return "error: " + err.Error()
			}
			first, _ := word(q.SQL)
			parts = append(parts, first)
		case binlog.TypeTableMap:
			parts = append(parts, "map")
		case binlog.TypeWriteRows:
			parts = append(parts, "write")
		case binlog.TypeUpdateRows:
			parts = append(parts, "update")
		case binlog.TypeDeleteRows:
			parts = append(parts, "delete")
		default:
			parts = append(parts, strconv.Itoa(int(h.Type)))
		}
	}
	if err := binlog.CheckBody(body.Bytes()); err != nil {
		return "bad: " + err.Error()
	}
	return strings.Join(parts, " ")
}

func xa(n int, stmts ...string) []string {
	xid := fmt.Sprintf("'cohort.aaaaaaaa.1.%d.0123456789abcdef'", n)
	all := append([]string{"XA START " + xid}, stmts...)
	return append(all, "XA END "+xid, "XA PREPARE "+xid)
}

func decide(n int, gno uint64) []string {
	xid := fmt.Sprintf("'cohort.aaaaaaaa.1.%d.0123456789abcdef'", n)
	return []string{
		fmt.Sprintf("SET gtid_next='%s:%d'", testGroup, gno), "XA COMMIT " + xid, "SET gtid_next='AUTOMATIC'",
	}
}

func TestSequence(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(20))", "CREATE DATABASE e")
	r := record(t, s, testOptions(s), here(t, s))
	s.SQL(t, xa(1, "INSERT INTO d.t VALUES (1,'a'),(2,'b')", "SAVEPOINT sp", "UPDATE d.t SET v='c' WHERE id=1")...)
	s.SQL(t, decide(1, 1)...)
	s.SQL(t, xa(2, "DELETE FROM d.t WHERE id=2")...)
	s.SQL(t, xa(3, "INSERT INTO d.t VALUES (3,'x')")...)
	s.SQL(t, decide(3, 3)...)
	s.SQL(t, xa(4, "INSERT INTO d.t VALUES (4,'x')")...)
	s.SQL(t, decide(2, 2)...)
	s.SQL(t, "XA ROLLBACK 'cohort.aaaaaaaa.1.4.0123456789abcdef'")
	s.SQL(t, "ALTER TABLE d.t ADD COLUMN w INT")
	s.SQL(t, fmt.Sprintf("SET gtid_next='%s:4'", testGroup), "BEGIN", "COMMIT", "SET gtid_next='AUTOMATIC'")
	s.SQL(t, "CREATE USER u IDENTIFIED BY 'x'", "GRANT SELECT ON d.* TO u")
	s.SQL(t, "USE e", "CREATE TABLE c AS SELECT id, v FROM d.t")
	s.SQL(t, "LOCK TABLES d.t WRITE", "INSERT INTO d.t VALUES (9,'y',1)", "UNLOCK TABLES")
	s.SQL(t, "XA START 'mine'", "INSERT INTO d.t VALUES (10,'y',1)", "XA END 'mine'", "XA PREPARE 'mine'", "XA COMMIT 'mine'")
	s.SQL(t, "XA START 'cohort.o'", "INSERT INTO d.t VALUES (11,'y',1)", "XA END 'cohort.o'", "XA COMMIT 'cohort.o' ONE PHASE")
	s.SQL(t, "SET gtid_next='AUTOMATIC:local'", "INSERT INTO d.t VALUES (12,'y',1)")
	s.SQL(t, "SET SESSION binlog_rows_query_log_events=ON", "UPDATE d.t SET v='rows' WHERE id=12", "SET SESSION binlog_rows_query_log_events=OFF")
	s.SQL(t, "FLUSH BINARY LOGS")
	s.SQL(t, "TRUNCATE TABLE d.t", "DROP DATABASE e", "ANALYZE TABLE d.t")
	s.SQL(t, "SET SESSION binlog_format=STATEMENT", "INSERT INTO d.t VALUES (20,'z',RAND())", "SET SESSION binlog_format=ROW")
	got := describe(r.until(s))
	want := `prepared xid=cohort.aaaaaaaa.1.1.0123456789abcdef tables=2 snapshot=0[] [BEGIN map write SAVEPOINT map update]
prepared xid=cohort.aaaaaaaa.1.2.0123456789abcdef tables=1 snapshot=1[] [BEGIN map delete]
prepared xid=cohort.aaaaaaaa.1.3.0123456789abcdef tables=1 snapshot=1[] [BEGIN map write]
prepared xid=cohort.aaaaaaaa.1.4.0123456789abcdef tables=1 snapshot=1[3] [BEGIN map write]
xa-decision xid=cohort.aaaaaaaa.1.4.0123456789abcdef committed=false snapshot=3[] [no body]
direct statement objects=d snapshot=3[] [ALTER]
direct statement snapshot=4[] [CREATE]
direct statement snapshot=4[] [GRANT]
direct tables=1 snapshot=4[] [BEGIN CREATE map write]
direct tables=1 snapshot=4[] [BEGIN map write]
foreign-prepared xid=X'6d696e65',X'',1 tables=1 snapshot=4[] [BEGIN map write]
xa-decision xid=X'6d696e65',X'',1 committed=true snapshot=4[] [no body]
direct xid=cohort.o tables=1 snapshot=4[] [BEGIN map write]
direct tables=1 snapshot=4[] [BEGIN map write]
direct tables=1 snapshot=4[] [BEGIN 29 map update]
direct statement snapshot=4[] [TRUNCATE]
direct statement objects=e snapshot=4[] [DROP]
direct statement snapshot=4[] [ANALYZE]
direct refuse=3098 objects=d snapshot=4[] [BEGIN 13 INSERT]
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestSnapshotFromFile: a capture that starts at the head of a file knows what
// the files before it hold.
func TestSnapshotFromFile(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
	for n := 1; n <= 5; n++ {
		s.SQL(t, xa(n, fmt.Sprintf("INSERT INTO d.t VALUES (%d)", n))...)
	}
	for _, n := range []int{1, 2, 4} {
		s.SQL(t, decide(n, uint64(n))...)
	}
	s.SQL(t, "FLUSH BINARY LOGS")
	start := here(t, s)
	start.Pos = 4
	r := record(t, s, testOptions(s), start)
	s.SQL(t, xa(6, "INSERT INTO d.t VALUES (6)")...)
	s.SQL(t, decide(5, 5)...)
	s.SQL(t, xa(7, "INSERT INTO d.t VALUES (7)")...)
	s.SQL(t, decide(3, 3)...)
	s.SQL(t, xa(8, "INSERT INTO d.t VALUES (8)")...)
	got := r.until(s)
	if len(got) != 3 {
		t.Fatalf("captured:\n%s", describe(got))
	}
	for i, want := range []string{"{2 [4]}", "{2 [4 5]}", "{5 []}"} {
		if s := fmt.Sprint(got[i].Snapshot); s != want {
			t.Errorf("snapshot %d is %s, want %s", i, s, want)
		}
	}
}

// TestResume: whenever the sink or the connection fails, running again from
// Position delivers the rest, each once.
func TestResume(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
	start := here(t, s)
	const count = 30
	for n := 1; n <= count; n++ {
		s.SQL(t, xa(n, fmt.Sprintf("INSERT INTO d.t VALUES (%d)", n))...)
		s.SQL(t, decide(n, uint64(n))...)
		if n%11 == 0 {
			s.SQL(t, "FLUSH BINARY LOGS", fmt.Sprintf("CREATE TABLE d.t%d (a INT)", n))
		}
	}
	c, err := New(testOptions(s))
	if err != nil {
		t.Fatal(err)
	}
	end := here(t, s)
	var all []Captured
	failure := errors.New("sink fails")
	for runs := 0; c.Position().Before(end); runs++ {
		if runs > 100 {
			t.Fatal("no progress")
		}
		ctx, cancel := context.WithCancel(context.Background())
		taken := 0
		err := c.Run(ctx, start, func(x Captured) error {
			if taken == runs%4 && runs%2 == 0 {
				return failure
			}
			if taken == 3 {
				cancel() // breaks the connection, perhaps inside an event
			}
			taken++
			all = append(all, x)
			if len(all) == count+2 {
				cancel()
			}
			return nil
		})
		cancel()
		if !errors.Is(err, failure) && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		start = c.Position()
		if len(all) >= count+2 {
			break
		}
	}
	seen := map[string]bool{}
	for i, x := range all {
		if seen[x.LocalGTID] {
			t.Errorf("%s came twice", x.LocalGTID)
		}
		seen[x.LocalGTID] = true
		if x.Kind == KindPrepared && x.Snapshot.Low != uint64(len(xids(all[:i]))) {
			t.Errorf("prepare %d has snapshot %v", i, x.Snapshot)
		}
	}
	if len(all) != count+2 {
		t.Errorf("%d captured", len(all))
	}
}

func xids(c []Captured) (out []string) {
	for _, x := range c {
		if x.Kind == KindPrepared {
			out = append(out, x.XID)
		}
	}
	return out
}

// TestServerDies: a lost mysqld ends Run.
func TestServerDies(t *testing.T) {
	s := mysqldtest.Start(t)
	c, err := New(testOptions(s))
	if err != nil {
		t.Fatal(err)
	}
	start := here(t, s)
	done, captured := make(chan error, 1), make(chan struct{}, 1)
	go func() {
		done <- c.Run(context.Background(), start, func(Captured) error { captured <- struct{}{}; return nil })
	}()
	s.SQL(t, "CREATE DATABASE d")
	select {
	case <-captured: // it is connected
	case <-time.After(time.Minute):
		t.Fatal("nothing is captured")
	}
	s.Kill(t)
	select {
	case err := <-done:
		if err == nil {
			t.Error("Run returned nil")
		}
	case <-time.After(time.Minute):
		t.Error("Run does not end")
	}
}

// TestWrongPlaces: places that are not in the binary log end Run with an error.
func TestWrongPlaces(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "CREATE DATABASE d")
	end := here(t, s)
	for _, start := range []StartAt{{"binlog.999999", 4}, {end.File, end.Pos + 1000}, {end.File, 1 << 33}} {
		c, err := New(testOptions(s))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if err := c.Run(ctx, start, func(Captured) error { return nil }); err == nil || ctx.Err() != nil {
			t.Errorf("%v: %v", start, err)
		}
		cancel()
	}
}

// TestLarge: a body above the memory limit is spilled, one above the size limit
// is refused, XA COMMIT ONE PHASE of any size is kept.
func TestLarge(t *testing.T) {
	for _, compression := range []string{"OFF", "ON"} {
		t.Run("compression "+compression, func(t *testing.T) {
			s := mysqldtest.Start(t, "binlog_transaction_compression="+compression, "max_allowed_packet=256M", "innodb_redo_log_capacity=512M")
			s.SQL(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, b LONGBLOB)",
				"INSERT INTO d.t VALUES (0, REPEAT('0123456789abcdef', 65536))")
			opt := testOptions(s)
			opt.SpillDir = t.TempDir()
			opt.TransactionSizeLimit = 60 << 20
			r := record(t, s, opt, here(t, s))
			rows := func(from, n int) string {
				return fmt.Sprintf("INSERT INTO d.t WITH RECURSIVE r(i) AS (SELECT %d UNION ALL SELECT i+1 FROM r WHERE i < %d) SELECT i, (SELECT b FROM d.t WHERE id=0) FROM r", from, from+n-1)
			}
			s.SQL(t, xa(1, rows(1, 1))...)
			s.SQL(t, xa(2, rows(10, 40))...)
			s.SQL(t, xa(3, rows(100, 70))...)
			s.SQL(t, "XA START 'cohort.o'", rows(200, 70), "XA END 'cohort.o'", "XA COMMIT 'cohort.o' ONE PHASE")
			s.SQL(t, xa(4, "INSERT INTO d.t VALUES (1000, REPEAT('x', 40*1024*1024))")...)
			got := r.until(s)
			if len(got) != 5 {
				t.Fatalf("captured:\n%s", describe(got))
			}
			for i, want := range []struct {
				mb     int64
				memory bool
				refuse uint16
			}{{1, true, 0}, {40, false, 0}, {0, false, RefuseTooLarge}, {70, false, 0}, {40, false, 0}} {
				c := got[i]
				if c.Refuse != want.refuse || (c.Body == nil) != (want.refuse != 0) {
					t.Errorf("%d: refuse %d, body %v", i, c.Refuse, c.Body != nil)
					continue
				}
				if c.Body == nil {
					continue
				}
				if c.Body.Len()>>20 != want.mb || (c.Body.Bytes() != nil) != want.memory {
					t.Errorf("%d: body of %d bytes, in memory %v", i, c.Body.Len(), c.Body.Bytes() != nil)
				}
				check := binlog.BodyChecker{Checksums: true}
				if _, err := io.Copy(&check, c.Body.Reader()); err != nil {
					t.Errorf("%d: %v", i, err)
				}
				if err := check.Close(); err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
			if left, err := os.ReadDir(opt.SpillDir); err != nil || len(left) != 0 {
				t.Errorf("files left: %v %v", left, err)
			}
		})
	}
}

// TestScanDirects finds what mysqld committed by itself, and only that, between
// two places.
func TestScanDirects(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
	s.SQL(t, xa(1, "INSERT INTO d.t VALUES (1)")...)
	s.SQL(t, decide(1, 1)...)
	s.SQL(t, "INSERT INTO d.t VALUES (70)")
	from := here(t, s)
	s.SQL(t, "INSERT INTO d.t VALUES (71)")
	s.SQL(t, xa(2, "INSERT INTO d.t VALUES (2)")...)
	s.SQL(t, decide(2, 2)...)
	s.SQL(t, "FLUSH BINARY LOGS", "CREATE TABLE d.u (id INT)")
	s.SQL(t, xa(3, "INSERT INTO d.t VALUES (3)")...)
	s.SQL(t, "XA ROLLBACK 'cohort.aaaaaaaa.1.3.0123456789abcdef'")
	s.SQL(t, "XA START 'cohort.o'", "INSERT INTO d.t VALUES (4)", "XA END 'cohort.o'", "XA COMMIT 'cohort.o' ONE PHASE")
	end := here(t, s)
	s.SQL(t, "FLUSH BINARY LOGS", "CREATE TABLE d.v (id INT)")
	c, err := New(testOptions(s))
	if err != nil {
		t.Fatal(err)
	}
	want := `direct tables=1 snapshot=1[] [BEGIN map write]
direct statement objects=d snapshot=2[] [CREATE]
xa-decision xid=cohort.aaaaaaaa.1.3.0123456789abcdef committed=false snapshot=2[] [no body]
direct xid=cohort.o tables=1 snapshot=2[] [BEGIN map write]
`
	for _, c2 := range []struct {
		end  StartAt
		want string
	}{{end, want}, {StartAt{"binlog.999999", 4}, want + "direct statement objects=d snapshot=2[] [CREATE]\n"}} {
		var got []Captured
		if err := c.ScanDirects(t.Context(), from, c2.end, func(c Captured) error { got = append(got, c); return nil }); err != nil {
			t.Fatal(err)
		}
		if d := describe(got); d != c2.want {
			t.Errorf("got:\n%s\nwant:\n%s", d, c2.want)
		}
	}
}
