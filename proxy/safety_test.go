package proxy

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cohort/internal/mysqld"
	"cohort/internal/wire"
)

// meddler stands between the proxy and a real mysqld and alters what the proxy
// sends, which is how a server's rare answers are had from a real one.
type meddler struct {
	addr string
	mu   sync.Mutex
	old  []string
	new  []string
	seen [][]byte // what went to mysqld in one write, if recording
	rec  bool
}

func newMeddler(t *testing.T, socket string) *meddler {
	t.Helper()
	m := &meddler{addr: filepath.Join(filepath.Dir(socket), "meddler.sock")}
	ln, err := net.Listen("unix", m.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("unix", socket)
			if err != nil {
				_ = c.Close()
				continue
			}
			go m.copy(s, c, true)
			go m.copy(c, s, false)
		}
	}()
	return m
}

// say replaces old by new, from now on, in what goes to mysqld. The proxy
// writes what it has queued at once, so that a packet is never cut.
func (m *meddler) say(old, new string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.old, m.new = append(m.old, old), append(m.new, new)
}

// hush ends all replacements.
func (m *meddler) hush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.old, m.new = nil, nil
}

func (m *meddler) copy(dst, src net.Conn, up bool) {
	defer func() { _ = dst.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		b := buf[:n]
		if up {
			m.mu.Lock()
			for i := range m.old {
				b = bytes.ReplaceAll(b, []byte(m.old[i]), []byte(m.new[i]))
			}
			if m.rec && n > 0 {
				m.seen = append(m.seen, bytes.Clone(b))
			}
			m.mu.Unlock()
		}
		if _, werr := dst.Write(b); err != nil || werr != nil {
			return
		}
	}
}

// record returns what f makes the proxy write to mysqld.
func (m *meddler) record(f func()) [][]byte {
	m.mu.Lock()
	m.seen, m.rec = nil, true
	m.mu.Unlock()
	f()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rec = false
	return m.seen
}

// meddledRig is a rig whose proxy reaches mysqld through a meddler.
func meddledRig(t *testing.T, change func(*Options)) (*rig, *meddler) {
	var m *meddler
	g := newRig(t, func(o *Options) {
		solo := o.Group.(*soloGroup)
		m = newMeddler(t, solo.addr)
		solo.primary = m.addr
		if change != nil {
			change(o)
		}
	})
	return g, m
}

// padded makes statements of one length.
func padded(sql string, n int) string { return sql + strings.Repeat(" ", n-len(sql)) }

// TestMissingGTID: PREPARE's OK without a GTID proves nothing where the session's
// trackers are off behind our back. The group decides then, and the primary
// never commits by itself what the group orders.
func TestMissingGTID(t *testing.T) {
	g, m := meddledRig(t, nil)
	root := g.client(t, false, "root", 0, 0)
	root.must("CREATE TABLE t (a INT PRIMARY KEY)")
	const n = 60
	m.say(padded("DO 'followed'", n), padded("SET SESSION session_track_system_variables=''", n))
	m.say(padded("DO 'gtids'", n), padded("SET SESSION session_track_gtids=OFF", n))
	m.say(padded("DO 'binlog'", n), padded("SET SESSION sql_log_bin=0", n))
	for i, sqls := range [][]string{{"INSERT INTO t VALUES (1)"}, {"BEGIN", "INSERT INTO t VALUES (2)", "COMMIT"}} {
		c := g.client(t, false, "plain", 0, 0)
		c.must(padded("DO 'followed'", n), padded("DO 'gtids'", n))
		c.must(sqls...)
		if w, _ := g.group.counts(); w != i+1 {
			t.Errorf("%v: the group decided %d transactions", sqls, w)
		}
		// From the first doubt on the trackers are on again.
		if v := c.value("SELECT @@session_track_gtids"); v != "OWN_GTID" {
			t.Errorf("session_track_gtids is %s", v)
		}
	}
	c := g.client(t, false, "plain", 0, 0)
	c.must("UPDATE t SET a=a WHERE a=77") // writes nothing
	w, _ := g.group.counts()
	for _, sqls := range [][]string{{"INSERT INTO t VALUES (3)"}, {"BEGIN", "INSERT INTO t VALUES (4)", "COMMIT"}} {
		c := g.client(t, false, "root", 0, 0)
		c.must(padded("DO 'followed'", n), padded("DO 'binlog'", n))
		last := len(sqls) - 1
		c.must(sqls[:last]...)
		if e := c.fails(sqls[last]); e == nil || e.Code != 3098 {
			t.Errorf("%v without the binary log: %v", sqls, e)
		}
		c.closed()
	}
	if now, _ := g.group.counts(); now != w {
		t.Error("the group decided what was not logged")
	}
	if v := g.db.Value(t, "SELECT GROUP_CONCAT(a ORDER BY a) FROM plain.t"); v != "1,2" {
		t.Errorf("rows %s", v)
	}
	g.nothingPrepared(t)
}

func (g *rig) nothingPrepared(t *testing.T) {
	t.Helper()
	if xids, err := mysqld.XARecover(t.Context(), g.db.DB(t)); err != nil || len(xids) != 0 {
		t.Errorf("prepared: %v %v", xids, err)
	}
}

// TestTrackersInRoutines: a routine that switches off what the session lives by
// is noticed.
func TestTrackersInRoutines(t *testing.T) {
	g := newRig(t, nil)
	root := g.client(t, false, "root", 0, 0)
	root.must("CREATE TABLE t (a INT PRIMARY KEY)",
		"CREATE PROCEDURE off() BEGIN SET SESSION session_track_gtids=OFF; SET SESSION session_track_transaction_info=OFF; END",
		"CREATE PROCEDURE offc() BEGIN COMMIT; SET SESSION session_track_gtids=OFF; SET SESSION session_track_transaction_info=OFF; END",
		"CREATE PROCEDURE nolog() BEGIN COMMIT; SET SESSION sql_log_bin=0; END",
		"GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO plain")
	for i, call := range []string{"CALL off()", "CALL offc()"} {
		c := g.client(t, false, "plain", 0, 0)
		_ = c.fails(call)
		if v := c.value("SELECT CONCAT(@@session_track_gtids, @@session_track_transaction_info)"); v != "OWN_GTIDSTATE" {
			t.Errorf("%s: %s", call, v)
		}
		c.must(fmt.Sprintf("INSERT INTO t VALUES (%d)", i))
		if w, _ := g.group.counts(); w != i+1 {
			t.Errorf("%s: %d decided", call, w)
		}
	}
	c := g.client(t, false, "plain", 0, 0)
	if e := c.fails("CALL nolog()"); e == nil || e.Code != 3098 {
		t.Errorf("sql_log_bin=0 in a routine: %v", e)
	}
	c.closed()
}

// TestUnknownBranch: a branch that the server does not know any more may have
// been committed as well as lost; nobody is told either.
func TestUnknownBranch(t *testing.T) {
	g, m := meddledRig(t, nil)
	g.db.SQL(t, "CREATE TABLE plain.t (a INT PRIMARY KEY)")
	for i, tt := range []struct {
		old, new, end string
	}{
		{"XA END 'cohort", "XA END 'COHORT", "COMMIT"},
		{"XA PREPARE 'cohort", "XA PREPARE 'COHORT", "COMMIT"},
		{"XA END 'cohort", "XA END 'COHORT", ""},
		// The server has lost the branch.
		{"XA START 'cohort", "DO 1 --         ", "COMMIT"},
		{"XA START 'cohort", "DO 1 --         ", "ROLLBACK"},
	} {
		t.Run(tt.old[:8]+tt.end, func(t *testing.T) {
			c := g.client(t, false, "plain", 0, 0)
			m.say(tt.old, tt.new)
			defer m.hush()
			sql := fmt.Sprintf("INSERT INTO t VALUES (%d)", i)
			if tt.end != "" {
				c.must("BEGIN", sql)
				sql = tt.end
			}
			if e := c.fails(sql); e == nil || e.Code != 1180 || !strings.Contains(e.Message, "unknown") {
				t.Errorf("%s: %v", sql, e)
			}
			c.closed()
		})
	}
}

// TestLostBeforePrepare: a COMMIT whose server went away before PREPARE is
// answered in the end, although the group will never hear of it.
func TestLostBeforePrepare(t *testing.T) {
	g := newRig(t, func(o *Options) {
		o.LostWait = 300 * time.Millisecond
		o.WatchInterval = time.Hour
		o.Group = silentGroup{o.Group.(*soloGroup)}
	})
	c := g.client(t, false, "plain", 0, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY)", "BEGIN", "INSERT INTO t VALUES (1)")
	id := c.value("SELECT CONNECTION_ID()")
	g.db.SQL(t, "KILL "+id)
	eventually(t, "killed", func() bool {
		return g.db.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID="+id) == "0"
	})
	if e := c.fails("COMMIT"); e == nil || e.Code != 1180 || !strings.Contains(e.Message, "unknown") {
		t.Errorf("COMMIT: %v", e)
	}
	c.closed()
}

// silentGroup never hears of a transaction that is not in the binary log.
type silentGroup struct{ *soloGroup }

func (g silentGroup) Expect(string) Ticket { return silentTicket{} }

type silentTicket struct{}

func (silentTicket) Wait(ctx context.Context) (Outcome, error) {
	<-ctx.Done()
	return Outcome{}, ctx.Err()
}
func (silentTicket) Cancel()   {}
func (silentTicket) Prepared() {}

// TestHeldMyISAM: what commits by itself inside a wrapped statement is ordered
// before the statement is answered.
func TestHeldMyISAM(t *testing.T) {
	g := newRig(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	c.must("CREATE TABLE m (a INT PRIMARY KEY) ENGINE=MyISAM")
	_, d := g.group.counts()
	for i := range 2 {
		c.must(fmt.Sprintf("INSERT INTO m VALUES (%d)", i))
		if _, now := g.group.counts(); now != d+i+1 {
			t.Errorf("%d of %d settled when it was answered", now-d, i+1)
		}
	}
	g.nothingPrepared(t)
}

// TestHiddenTransaction: a statement that fell into a transaction nobody knew of
// is not answered with success.
func TestHiddenTransaction(t *testing.T) {
	g, m := meddledRig(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY)")
	m.say("\x01\x00\x00\x00"+string([]byte{wire.ComStatistics}), "\x06\x00\x00\x00\x03BEGIN")
	c.send(wire.ComStatistics, nil)
	if _, err := c.read(wire.ComStatistics, ""); err != nil {
		t.Fatal(err)
	}
	if e := c.fails("INSERT INTO t VALUES (1)"); e == nil || e.Code != 1053 {
		t.Errorf("%v", e)
	}
	c.closed()
	if v := g.db.Value(t, "SELECT COUNT(*) FROM plain.t"); v != "0" {
		t.Errorf("%s rows", v)
	}
}

// TestRollbackRefused: a branch that could not be rolled back ends with its
// connection.
func TestRollbackRefused(t *testing.T) {
	g, m := meddledRig(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY)", "BEGIN", "INSERT INTO t VALUES (1)")
	m.say("XA PREPARE 'cohort", "XA PREPARX 'cohort")
	m.say("XA ROLLBACK 'cohort", "XA ROLLBACX 'cohort")
	if e := c.fails("COMMIT"); e == nil || e.Code != 1053 {
		t.Errorf("%v", e)
	}
	c.closed()
	eventually(t, "the server's session ends", func() bool {
		return g.db.Value(t, "SELECT COUNT(*) FROM performance_schema.threads WHERE PROCESSLIST_USER='plain'") == "0"
	})
	g.nothingPrepared(t)
	if v := g.db.Value(t, "SELECT COUNT(*) FROM plain.t FOR UPDATE"); v != "0" {
		t.Errorf("%s rows", v)
	}
}

// TestDumpLocks: a consistent dump holds the same global locks as without us.
func TestDumpLocks(t *testing.T) {
	g := newRig(t, nil)
	g.db.SQL(t, "CREATE TABLE plain.t (a INT PRIMARY KEY)")
	for _, sqls := range [][]string{
		{"FLUSH TABLES WITH READ LOCK", "START TRANSACTION WITH CONSISTENT SNAPSHOT"},
		{"FLUSH /*!40101 LOCAL */ TABLES", "FLUSH TABLES WITH READ LOCK", "START TRANSACTION /*!40100 WITH CONSISTENT SNAPSHOT */"},
		{"FLUSH LOCAL TABLES WITH READ LOCK", "BEGIN"},
		{"SET autocommit=0", "FLUSH TABLES WITH READ LOCK", "SELECT * FROM t", "START TRANSACTION WITH CONSISTENT SNAPSHOT"},
		{"PREPARE s FROM 'FLUSH TABLES WITH READ LOCK'", "EXECUTE s", "START TRANSACTION"},
		{"FLUSH TABLES t WITH READ LOCK", "BEGIN"},
		{"PREPARE s FROM 'FLUSH TABLES t FOR EXPORT'", "EXECUTE s", "BEGIN"},
		{"FLUSH TABLES WITH READ LOCK", "BEGIN", "UNLOCK TABLES"},
	} {
		var locks [2]string
		for i, direct := range []bool{true, false} {
			c := g.client(t, direct, "root", 0, 0)
			c.must(sqls...)
			locks[i] = g.db.Value(t, "SELECT COALESCE(GROUP_CONCAT(DISTINCT CONCAT(OBJECT_TYPE, ' ', COALESCE(OBJECT_NAME, ''), ' ', LOCK_TYPE) ORDER BY 1), '') "+
				"FROM performance_schema.metadata_locks WHERE (OBJECT_TYPE IN ('GLOBAL', 'COMMIT', 'BACKUP LOCK') OR OBJECT_NAME='t') AND OWNER_THREAD_ID = (SELECT THREAD_ID FROM performance_schema.threads WHERE PROCESSLIST_ID=?)", c.value("SELECT CONNECTION_ID()"))
			_ = c.cl.Close()
			eventually(t, "locks released", func() bool {
				return g.db.Value(t, "SELECT COUNT(*) FROM performance_schema.metadata_locks WHERE OBJECT_TYPE='GLOBAL' AND LOCK_DURATION='EXPLICIT' OR OBJECT_NAME='t'") == "0"
			})
		}
		if locks[0] != locks[1] {
			t.Errorf("%q\n mysqld: %s\n proxy:  %s", sqls, locks[0], locks[1])
		}
	}
}
