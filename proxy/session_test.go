package proxy

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// eventually waits for a condition with a deadline.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 60 s", what)
		}
	}
}

// TestWhatIsWrapped counts which statements end by XA and which are held as
// direct statements.
func TestWhatIsWrapped(t *testing.T) {
	g := newRig(t, nil)
	c := g.client(t, false, "plain", wire.MultiStatements, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY)",
		"CREATE PROCEDURE com() BEGIN INSERT INTO t VALUES (900); COMMIT; INSERT INTO t VALUES (901); COMMIT; END",
		"CREATE FUNCTION f(x INT) RETURNS INT MODIFIES SQL DATA BEGIN INSERT INTO t VALUES (x); RETURN x; END",
		"CREATE VIEW v AS SELECT f(700) AS q")
	for _, tt := range []struct {
		sql             string
		wrapped, direct int
	}{
		{"INSERT INTO t VALUES (1)", 1, 0},
		{"INSERT INTO t VALUES (2),(3)", 1, 0},
		{"UPDATE t SET a=a WHERE a=77", 0, 0},
		{"SELECT * FROM t", 0, 0},
		{"SELECT * FROM t FOR UPDATE", 0, 0},
		{"BEGIN", 0, 0},
		{"COMMIT", 0, 0},
		{"BEGIN; INSERT INTO t VALUES (4); COMMIT", 1, 0},
		{"BEGIN; INSERT INTO t VALUES (5); ROLLBACK", 0, 0},
		{"BEGIN; SELECT * FROM t FOR UPDATE; COMMIT", 0, 0},
		{"SET autocommit=0; INSERT INTO t VALUES (6); SET autocommit=1", 1, 0},
		{"CREATE TABLE u (a INT PRIMARY KEY)", 0, 1},
		{"DROP TABLE IF EXISTS nosuch", 0, 1},
		{"BEGIN; INSERT INTO t VALUES (7); DROP TABLE u", 1, 1},
		{"SELECT f(8)", 0, 1},
		{"SELECT * FROM v", 0, 1},
		{"DO f(9)", 0, 1},
		{"SET @x = f(10)", 0, 1},
		{"CALL com()", 0, 1},
		{"LOCK TABLES t WRITE; INSERT INTO t VALUES (11); UNLOCK TABLES", 0, 1},
		{"CREATE TEMPORARY TABLE tt (a INT)", 0, 0},
		{"INSERT INTO t VALUES (12)", 1, 0},
		{"INSERT INTO t VALUES (14 + 0 * LENGTH('tt'))", 1, 0},
		{"INSERT INTO tt VALUES (1)", 0, 0},
		{"INSERT INTO t SELECT 15 FROM tt LIMIT 1", 0, 1},
		{"INSERT INTO t SELECT 16 FROM plain.`tt` LIMIT 1", 0, 1},
		{"BEGIN; INSERT INTO t VALUES (13); INSERT INTO tt VALUES (1); COMMIT", 0, 1},
		{"DROP TEMPORARY TABLE tt", 0, 0},
		{"BEGIN; INSERT INTO t VALUES (17); COMMIT", 1, 0},
		{"CREATE TEMPORARY TABLE tt SELECT 1 AS a", 0, 0},
		{"ALTER TABLE tt RENAME TO uu", 0, 0},
		{"INSERT INTO t VALUES (18)", 1, 0},
		{"INSERT INTO t SELECT 19 FROM uu", 0, 1}, // XA refuses it
		{"INSERT INTO t VALUES (20)", 0, 1},       // from now on nobody knows
	} {
		w0, d0 := g.group.counts()
		for _, sql := range strings.Split(tt.sql, "; ") {
			if strings.HasPrefix(tt.sql, "CREATE") {
				sql = tt.sql
			}
			c.must(sql)
		}
		if w, d := g.group.counts(); w-w0 != tt.wrapped || d-d0 != tt.direct {
			t.Errorf("%s: %d wrapped, %d direct; want %d, %d", tt.sql, w-w0, d-d0, tt.wrapped, tt.direct)
		}
	}
	if n := len(g.db.Value(t, "SELECT COALESCE(GROUP_CONCAT(TRX_ID),'') FROM information_schema.INNODB_TRX")); n != 0 {
		t.Errorf("transactions are left open")
	}
}

// TestHeldUntilVerdict: nobody hears of a commit, and nobody sees it, before the
// group has decided.
func TestHeldUntilVerdict(t *testing.T) {
	g := newRig(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	d := g.client(t, false, "plain", 0, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY)")
	for i, sqls := range [][]string{{"INSERT INTO t VALUES (1)"}, {"BEGIN", "INSERT INTO t VALUES (2)", "COMMIT"}, {"ALTER TABLE t COMMENT 'x'"}} {
		last := len(sqls) - 1
		c.must(sqls[:last]...)
		g.group.gate.Lock()
		c.send(wire.ComQuery, []byte(sqls[last]))
		if i < 2 {
			eventually(t, "prepared", func() bool {
				return g.db.Value(t, "SELECT COUNT(*) FROM performance_schema.events_statements_summary_global_by_event_name WHERE EVENT_NAME='statement/sql/xa_prepare' AND COUNT_STAR>"+fmt.Sprint(i)) == "1"
			})
			if v := d.value(fmt.Sprintf("SELECT COUNT(*) FROM t WHERE a=%d", i+1)); v != "0" {
				t.Errorf("%s is visible before its verdict", sqls[last])
			}
		}
		_ = c.cl.Conn.NetConn().SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if err := c.cl.Conn.Fill(1); err == nil {
			t.Errorf("%s was answered before its verdict", sqls[last])
		}
		_ = c.cl.Conn.NetConn().SetReadDeadline(time.Now().Add(time.Minute))
		g.group.gate.Unlock()
		if _, err := c.read(wire.ComQuery, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAborted: a verdict to abort reaches the client as Group Replication words
// it, leaves nothing, and the session goes on outside a transaction.
func TestAborted(t *testing.T) {
	g := newRig(t, nil)
	c := g.client(t, false, "plain", wire.MultiStatements, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY)")
	g.group.mu.Lock()
	outcome := Outcome{}
	g.group.verdict = func(string) *Outcome { o := outcome; return &o }
	g.group.mu.Unlock()
	check := func(sql string, code uint16, state string) {
		t.Helper()
		e := c.fails(sql)
		if e == nil || e.Code != code || e.State != state {
			t.Errorf("%s: %v, want %d (%s)", sql, e, code, state)
		}
		if ok, err := c.cl.Ping(context.Background()); err != nil || ok.Status&wire.StatusInTrans != 0 {
			t.Errorf("after %s: %+v %v", sql, ok, err)
		}
	}
	check("INSERT INTO t VALUES (1)", 3101, "40000")
	if v := c.value("SHOW COUNT(*) ERRORS"); v != "1" {
		t.Errorf("SHOW COUNT(*) ERRORS says %s", v)
	}
	c.must("BEGIN", "INSERT INTO t VALUES (2)")
	check("COMMIT", 3101, "40000")
	c.must("BEGIN", "INSERT INTO t VALUES (3)")
	check("COMMIT AND CHAIN", 3101, "40000")
	c.must("BEGIN", "INSERT INTO t VALUES (4)")
	check("CREATE TABLE u (a INT PRIMARY KEY)", 3101, "40000")
	c.must("BEGIN", "INSERT INTO t VALUES (5)")
	check("BEGIN", 3101, "40000")
	outcome = Outcome{Errno: 3098, Message: "The table does not comply with the requirements by an external plugin."}
	check("INSERT INTO t VALUES (6)", 3098, "HY000")
	check("INSERT INTO t VALUES (7); INSERT INTO t VALUES (8)", 3098, "HY000")
	g.group.mu.Lock()
	g.group.verdict = nil
	g.group.mu.Unlock()
	if v := c.value("SELECT COUNT(*) FROM t"); v != "0" {
		t.Errorf("%s rows are left", v)
	}
	c.must("INSERT INTO t VALUES (1)")
}

// TestForbidden: what no client may do, however it is spelled.
func TestForbidden(t *testing.T) {
	g := newRig(t, nil)
	c := g.client(t, false, "root", wire.MultiStatements, 0)
	for _, sql := range []string{
		"SET sql_log_bin=0", "SET @@SESSION.SQL_LOG_BIN = 0", "/*!50000 SET sql_log_bin=0 */", "SET @a=1, gtid_next='" + groupUUID + ":77'",
		"SET GLOBAL super_read_only=1", "SELECT 1; SET sql_log_bin=0", "PREPARE s FROM 'SET sql_log_bin=0'", "SET GLOBAL binlog_format=STATEMENT",
		"SET SESSION xa_detach_on_prepare=OFF", "/*!90704 SET sql_log_bin=0 */", "SET NAMES utf8mb4, sql_log_bin=0",
	} {
		if e := c.fails(sql); e == nil || e.Code != 1227 {
			t.Errorf("%s: %v", sql, e)
		}
	}
	c.must("SET @p='SET sql_log_bin=0'")
	if e := c.fails("PREPARE s FROM @p"); e == nil || e.Code != 1227 {
		t.Errorf("PREPARE FROM a variable: %v", e)
	}
	c.send(wire.ComStmtPrepare, []byte("SET sql_log_bin=0"))
	if ps, err := c.read(wire.ComStmtPrepare, ""); err != nil || ps[0][0] != wire.HeaderERR {
		t.Errorf("COM_STMT_PREPARE: %q %v", ps, err)
	}
	if v := c.value("SELECT @@sql_log_bin"); v != "1" {
		t.Errorf("sql_log_bin is %s", v)
	}
}

// TestForeignXID: no client touches a branch that is not its own.
func TestForeignXID(t *testing.T) {
	g := newRig(t, nil)
	db := g.db.DB(t)
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"CREATE TABLE plain.t (a INT PRIMARY KEY)", "XA START 'victim'", "INSERT INTO plain.t VALUES (1)", "XA END 'victim'", "XA PREPARE 'victim'"} {
		if _, err := conn.ExecContext(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.Close()
	c := g.client(t, false, "root", wire.MultiStatements, 0)
	for _, sql := range []string{
		"XA COMMIT 'victim'", "XA ROLLBACK 'victim'", "/*!50000 XA */ COMMIT 'victim'", "SELECT 1; XA ROLLBACK 'victim'",
		"xa/**/rollback 'victim','',1", "XA COMMIT X'76696374696d'",
	} {
		if e := c.fails(sql); e == nil || e.Code != 1397 {
			t.Errorf("%s: %v", sql, e)
		}
	}
	c.must("XA START 'mine'")
	if e := c.fails("XA ROLLBACK 'victim'"); e == nil || e.Code != 1397 {
		t.Errorf("inside a branch: %v", e)
	}
	c.must("XA END 'mine'", "XA ROLLBACK 'mine'")
	if e := c.fails("XA PREPARE 'x'"); e == nil || e.Code != 1399 {
		t.Errorf("XA PREPARE: %v", e)
	}
	c.must("XA START 'two'", "INSERT INTO t VALUES (2)", "XA END 'two'")
	if e := c.fails("XA PREPARE 'two'"); e == nil || e.Code != 1235 || !strings.Contains(e.Message, "ONE PHASE") {
		t.Errorf("XA PREPARE: %v", e)
	}
	c.must("XA COMMIT 'two' ONE PHASE")
	if v := g.db.Value(t, "SELECT COUNT(*) FROM plain.t WHERE a=2"); v != "1" {
		t.Error("the client's own branch did not commit")
	}
	g.db.SQL(t, "XA ROLLBACK 'victim'")
}

type testAdmin struct{ started []string }

func (a *testAdmin) Exec(_ context.Context, who SessionInfo, st AdminStatement) (bool, error) {
	if st.Class == sqlparse.StopGroup {
		return true, wire.NewError(3092, "HY000", "no")
	}
	set := ""
	for _, x := range st.Set {
		set += x.Scope + " " + x.Name + "=" + x.Value.Text
		if x.Scope == "SESSION" {
			st.Consistency(x.Value.Text)
		}
	}
	a.started = append(a.started, st.Text+"|"+set+"|"+who.User)
	return true, nil
}

func (a *testAdmin) Function(_ context.Context, who SessionInfo, call GroupCall) (string, bool, error) {
	if call.Name == "group_replication_nosuch" {
		return "", false, nil
	}
	account, err := who.Account()
	if err != nil {
		return "", true, err
	}
	if !account.Has("SUPER", "GROUP_REPLICATION_ADMIN") {
		return "", true, wire.NewError(1123, "HY000", "%s may not", account.Name)
	}
	a.started = append(a.started, fmt.Sprint(call.Name, call.Args, who.Locked, who.InTransaction))
	return fmt.Sprintf("it's %d", len(call.Args)), true, nil
}

func (a *testAdmin) Variables(context.Context, SessionInfo) []NamedValue {
	return []NamedValue{{"group_replication_group_name", groupUUID}, {"group_replication_start_on_boot", "ON"}, {"group_replication_group_seeds", ""}}
}

func (a *testAdmin) Status(context.Context, SessionInfo) []NamedValue {
	return []NamedValue{{"Gr_data_messages_sent_count", "7"}}
}

func (a *testAdmin) Table(_ context.Context, _ SessionInfo, name string) (Table, bool) {
	if name == "replication_connection_status" {
		mine, state := "mine", "ON"
		return Table{Columns: []TableColumn{{Name: "CHANNEL_NAME", CastType: "CHAR(64)"}, {Name: "SERVICE_STATE", CastType: "CHAR(9)"}, {Name: "THREAD_ID", CastType: "UNSIGNED"}},
			Rows: [][]*string{{&mine, &state, nil}}, Beside: true, Instead: "CHANNEL_NAME = 'mine'"}, true
	}
	if name != "replication_group_members" {
		return Table{}, false
	}
	id, port := "11111111-1111-4111-8111-111111111111", "3306"
	return Table{Columns: []TableColumn{{Name: "MEMBER_ID", CastType: "CHAR(36)"}, {Name: "MEMBER_PORT", CastType: "SIGNED"}},
		Rows: [][]*string{{&id, &port}, {&id, nil}}}, true
}

func (a *testAdmin) Variable(_ context.Context, _ SessionInfo, name string) (string, bool, bool) {
	switch name {
	case "group_replication_group_name":
		return groupUUID, false, true
	case "group_replication_member_weight":
		return "50", true, true
	case "group_replication_consistency":
		return "BEFORE_ON_PRIMARY_FAILOVER", false, true
	}
	return "", false, false
}

func TestAdmin(t *testing.T) {
	admin := &testAdmin{}
	g := newRig(t, func(o *Options) { o.Admin = admin })
	c := g.client(t, false, "root", wire.MultiStatements, 0)
	c.must("START GROUP_REPLICATION;", "SET GLOBAL group_replication_consistency = 'AFTER'")
	if e := c.fails("STOP GROUP_REPLICATION"); e == nil || e.Code != 3092 {
		t.Errorf("STOP: %v", e)
	}
	want := "[START GROUP_REPLICATION||root SET GLOBAL group_replication_consistency = 'AFTER'|GLOBAL group_replication_consistency=AFTER|root]"
	if s := fmt.Sprint(admin.started); s != want {
		t.Errorf("got %s", s)
	}
	for sql, want := range map[string]string{
		"SELECT @@group_replication_group_name":                                                           groupUUID,
		"SELECT @@GLOBAL.group_replication_member_weight + 1":                                             "51",
		"SELECT COUNT(*) FROM performance_schema.replication_group_members":                               "2",
		"SELECT m.MEMBER_ID FROM performance_schema.replication_group_members AS m WHERE MEMBER_PORT > 1": "11111111-1111-4111-8111-111111111111",
		"USE performance_schema": "",
		"SELECT MEMBER_PORT IS NULL FROM (SELECT * FROM `replication_group_members`) x ORDER BY 1 DESC":                                                                "1",
		"TABLE performance_schema.replication_group_members":                                                                                                           "11111111-1111-4111-8111-111111111111",
		"SELECT CONCAT(CHANNEL_NAME, SERVICE_STATE) FROM performance_schema.replication_connection_status WHERE CHANNEL_NAME = 'mine' AND THREAD_ID IS NULL":           "mineON",
		"SELECT COUNT(*) FROM performance_schema.replication_connection_status c JOIN performance_schema.replication_group_members m ON c.CHANNEL_NAME <> m.MEMBER_ID": "2",
		"SELECT COUNT(*) FROM performance_schema.events_stages_current WHERE EVENT_NAME LIKE 'stage/group_rpl%'":                                                       "0",
	} {
		if strings.HasPrefix(sql, "USE") {
			continue
		}
		if strings.Contains(sql, "(SELECT * FROM `") {
			c.must("USE performance_schema")
		}
		if v := c.value(sql); v != want {
			t.Errorf("%s: %q, want %q", sql, v, want)
		}
	}
	ps := c.query("SELECT @@group_replication_group_name")
	col, err := wire.ParseColumn(ps[1])
	if err != nil || col.Name != "@@group_replication_group_name" {
		t.Errorf("column %+v %v", col, err)
	}
	c.send(wire.ComStmtPrepare, []byte("SELECT * FROM performance_schema.replication_group_members WHERE MEMBER_PORT = ?"))
	if ps, err := c.read(wire.ComStmtPrepare, ""); err != nil || ps[0][0] != 0 {
		t.Errorf("prepare: %q %v", ps, err)
	}
	g.sessionConsistency(t)
}

// TestClientGone: what a client runs ends with its connection.
func TestClientGone(t *testing.T) {
	g := newRig(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY)", "BEGIN", "INSERT INTO t VALUES (1)")
	c.send(wire.ComQuery, []byte("SELECT SLEEP(1000)"))
	running := "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER='plain'"
	eventually(t, "the query runs", func() bool {
		return g.db.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP%'") == "1"
	})
	_ = c.cl.Close()
	eventually(t, "the query ends", func() bool { return g.db.Value(t, running) == "0" })
	eventually(t, "the session ends", func() bool { return g.srv.Connections() == 0 })
	if v := g.db.Value(t, "SELECT COUNT(*) FROM plain.t"); v != "0" {
		t.Error("its transaction is there")
	}
}

// TestBackendLost: what was never prepared is told as rolled back, what may have
// been as unknown, and the session ends.
func TestBackendLost(t *testing.T) {
	// It is waited out: no transaction of this test has a verdict.
	g := newRig(t, func(o *Options) { o.LostWait = 500 * time.Millisecond })
	c := g.client(t, false, "plain", 0, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY)")
	id := func(c *rawClient) string { return c.value("SELECT CONNECTION_ID()") }
	lost := func(prepare []string, sql string, want string) {
		t.Helper()
		c := g.client(t, false, "plain", 0, 0)
		c.must(prepare...)
		thread := id(c)
		c.send(wire.ComQuery, []byte(sql))
		eventually(t, sql, func() bool {
			return g.db.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '%SLEEP%' AND ID="+thread) == "1"
		})
		g.db.SQL(t, "KILL "+thread)
		ps, err := c.read(wire.ComQuery, "")
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			return
		}
		e, _ := wire.ParseERR(ps[len(ps)-1])
		if e == nil || !strings.Contains(e.Message, want) && e.Code != 1317 {
			t.Errorf("%s: %v", sql, e)
		}
	}
	lost([]string{"BEGIN", "INSERT INTO t VALUES (1)"}, "SELECT SLEEP(100)", "rolled back")
	lost(nil, "INSERT INTO t SELECT 2 + SLEEP(100)", "unknown")
	// An idle session ends with its server connection.
	thread := id(c)
	g.db.SQL(t, "KILL "+thread)
	eventually(t, "the idle session ends", func() bool { return g.srv.Connections() == 0 })
	if v := g.db.Value(t, "SELECT COUNT(*) FROM plain.t"); v != "0" {
		t.Errorf("%s rows are left", v)
	}
}

type noTicketGroup struct{ *soloGroup }

type noTicket struct{}

func (noTicket) Wait(context.Context) (Outcome, error) { return Outcome{}, errors.New("no quorum") }
func (noTicket) Cancel()                               {}
func (noTicket) Prepared()                             {}

func (noTicketGroup) Expect(string) Ticket       { return noTicket{} }
func (noTicketGroup) ExpectDirect(string) Ticket { return noTicket{} }

// TestUnknownOutcome: without a verdict nobody is told of success or of failure.
func TestUnknownOutcome(t *testing.T) {
	g := newRig(t, func(o *Options) { o.Group = noTicketGroup{o.Group.(*soloGroup)} })
	g.db.SQL(t, "CREATE TABLE plain.t (a INT PRIMARY KEY)")
	c := g.client(t, false, "plain", 0, 0)
	for _, sql := range []string{"INSERT INTO t VALUES (1)", "CREATE TABLE u (a INT PRIMARY KEY)"} {
		if e := c.fails(sql); e == nil || e.Code != 1180 || !strings.Contains(e.Message, "unknown") {
			t.Errorf("%s: %v", sql, e)
		}
	}
	c.must("SELECT 1")
}

// TestAdrift: while the group is out of reach the local server is there to look at
// the group, and no table is read on it.
func TestAdrift(t *testing.T) {
	g := newRig(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	c.must("CREATE TABLE a (id INT PRIMARY KEY)", "INSERT INTO a VALUES (1)", "PREPARE p FROM 'SELECT * FROM a'")
	g.group.adrift.Store(true)
	for _, sql := range []string{"SELECT * FROM a", "TABLE a", "INSERT INTO a VALUES (2)", "EXECUTE p", "SHOW TABLES", "CREATE TABLE b (id INT PRIMARY KEY)", "(SELECT id FROM a)"} {
		if e := c.fails(sql); e == nil || e.Code != 1105 || !strings.Contains(e.Message, "no majority") {
			t.Errorf("%s: %v", sql, e)
		}
	}
	c.must("SELECT 1", "SET @a = 1", "SELECT @@version_comment LIMIT 1")
	g.group.adrift.Store(false)
	c.must("SELECT * FROM a", "INSERT INTO a VALUES (2)")
}

// TestNoPrimary: clients are told, and not kept waiting for ever.
func TestNoPrimary(t *testing.T) {
	g := &soloGroup{network: "unix", addr: "/nonexistent/mysqld.sock"}
	r := &rig{t: t, group: g}
	r.startProxy(func(o *Options) { o.ConnectTimeout = time.Second })
	_, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: r.addr, User: "plain"})
	if wire.ErrorCode(err) != 2003 {
		t.Errorf("got %v", err)
	}
}

func TestMaxConnections(t *testing.T) {
	g := newRig(t, func(o *Options) { o.MaxConnections = 2 })
	g.client(t, false, "plain", 0, 0)
	c := g.client(t, false, "plain", 0, 0)
	_, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: g.addr, User: "plain", Password: "plain"})
	if wire.ErrorCode(err) != 1040 {
		t.Errorf("got %v", err)
	}
	_ = c.cl.Quit()
	eventually(t, "a place is free", func() bool { return g.srv.Connections() == 1 })
	g.client(t, false, "plain", 0, 0)
}

// TestDriver runs a driver's pool with and without TLS, in parallel.
func TestDriver(t *testing.T) {
	cert, err := wire.SelfSigned("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	g := newRig(t, func(o *Options) { o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	for _, params := range []string{"?interpolateParams=true", "?tls=skip-verify", "?tls=skip-verify&multiStatements=true&clientFoundRows=true", "?compress=true"} {
		t.Run(params, func(t *testing.T) {
			db, err := sql.Open("mysql", "plain:plain@tcp("+g.addr+")/plain"+params)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			db.SetMaxOpenConns(8)
			if _, err := db.Exec("CREATE TABLE acc (id INT PRIMARY KEY, v INT)"); err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = db.Exec("DROP TABLE acc") }()
			for i := range 4 {
				if _, err := db.Exec("INSERT INTO acc VALUES (?, ?)", i, 100); err != nil {
					t.Fatal(err)
				}
			}
			var wg sync.WaitGroup
			for w := range 8 {
				wg.Go(func() {
					for i := range 15 {
						if err := transfer(db, (w+i)%4, (w+i+1)%4); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			var sum int
			if err := db.QueryRow("SELECT SUM(v) FROM acc").Scan(&sum); err != nil || sum != 400 {
				t.Errorf("sum %d, %v", sum, err)
			}
		})
	}
}

func transfer(db *sql.DB, from, to int) error {
	for {
		err := func() error {
			tx, err := db.Begin()
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback() }()
			if _, err := tx.Exec("UPDATE acc SET v=v-1 WHERE id=?", from); err != nil {
				return err
			}
			if _, err := tx.Exec("UPDATE acc SET v=v+1 WHERE id=?", to); err != nil {
				return err
			}
			return tx.Commit()
		}()
		var me *mysql.MySQLError
		if errors.As(err, &me) && me.Number == 1213 {
			continue
		}
		return err
	}
}

// TestLong: statements around and above 16 MB, and broken packets.
func TestLong(t *testing.T) {
	g := newRig(t, nil)
	c := g.client(t, false, "plain", wire.MultiStatements, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY, b LONGTEXT)")
	for i, n := range []int{1 << 20, wire.MaxPayload - 40, wire.MaxPayload, wire.MaxPayload + 1000, 20 << 20} {
		c.must(fmt.Sprintf("INSERT INTO t VALUES (%d, '%s')", i, strings.Repeat("x", n)))
		if v := c.value(fmt.Sprintf("SELECT LENGTH(b) FROM t WHERE a=%d", i)); v != fmt.Sprint(n) {
			t.Errorf("%d bytes: %s", n, v)
		}
	}
	w, d := g.group.counts()
	if w != 5 || d != 1 {
		t.Errorf("%d wrapped, %d direct", w, d)
	}
	nc, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = nc.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
	_ = nc.Close()
	c.must("SELECT 1")
}

// TestOneShot: characteristics for the next transaction survive the wrapping, and
// a chain.
func TestOneShot(t *testing.T) {
	g := newRig(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	d := g.client(t, false, "plain", 0, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY)", "SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "BEGIN", "INSERT INTO t VALUES (1)")
	for i := range 2 {
		before := c.value("SELECT COUNT(*) FROM t")
		d.must(fmt.Sprintf("INSERT INTO t VALUES (%d)", 10+i))
		if after := c.value("SELECT COUNT(*) FROM t"); after == before {
			t.Errorf("round %d: not READ COMMITTED", i)
		}
		c.must("COMMIT AND CHAIN")
	}
	c.must("COMMIT", "BEGIN")
	before := c.value("SELECT COUNT(*) FROM t")
	d.must("INSERT INTO t VALUES (20)")
	if after := c.value("SELECT COUNT(*) FROM t"); after != before {
		t.Error("the one-shot level outlived its transaction")
	}
	c.must("COMMIT")
}

// TestGlobalReadLock: BEGIN keeps a global read lock, as a consistent dump needs
// it, and ends LOCK TABLES.
func TestGlobalReadLock(t *testing.T) {
	g := newRig(t, nil)
	c := g.client(t, false, "root", 0, 0)
	d := g.client(t, false, "plain", 0, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY)", "FLUSH TABLES WITH READ LOCK", "START TRANSACTION WITH CONSISTENT SNAPSHOT")
	d.must("SET lock_wait_timeout=1")
	if e := d.fails("INSERT INTO t VALUES (1)"); e == nil || e.Code != 1205 {
		t.Errorf("under a global read lock: %v", e)
	}
	c.must("UNLOCK TABLES")
	d.must("INSERT INTO t VALUES (1)")
	if v := c.value("SELECT COUNT(*) FROM t"); v != "0" {
		t.Error("the snapshot is not of before the lock was released")
	}
	c.must("COMMIT", "FLUSH TABLES t WITH READ LOCK", "BEGIN")
	d.must("INSERT INTO t VALUES (2)")
	c.must("INSERT INTO t VALUES (3)", "COMMIT")
	if w, _ := g.group.counts(); w != 3 {
		t.Errorf("%d wrapped", w)
	}
}

// TestIdleTimeout: what the server says to a client that was idle for too long
// reaches it.
func TestIdleTimeout(t *testing.T) {
	g := newRig(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	c.must("SET SESSION wait_timeout=1")
	p, err := c.cl.Conn.ReadPacket(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := wire.ParseERR(p); err != nil || e.Code != 4031 {
		t.Errorf("%v %v", e, err)
	}
	if _, err := c.cl.Conn.ReadPacket(1 << 16); err == nil {
		t.Error("the connection is still open")
	}
}
