package proxy

import (
	"context"
	"testing"
	"time"

	"cohort/internal/wire"
)

// drained reports what runs now.
func (g *rig) drained(all bool) int {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n, _ := g.srv.Drain(ctx, all)
	return n
}

func (g *rig) awaitDrained(t *testing.T, all bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if n, oldest := g.srv.Drain(ctx, all); n > 0 {
		t.Fatalf("%d still run, the oldest for %s", n, oldest)
	}
}

// held runs a statement that waits and returns its answer's packets when it has come.
func (c *rawClient) held(sql string) <-chan [][]byte {
	c.t.Helper()
	c.send(wire.ComQuery, []byte(sql))
	out := make(chan [][]byte, 1)
	go func() {
		ps, _ := c.read(wire.ComQuery, "")
		out <- ps
	}()
	return out
}

// While transactions are held, those that run go on to their end; new ones wait, and
// then run where the primary is. No client sees an error.
func TestHoldForAChangeOfThePrimary(t *testing.T) {
	g := newPair(t, nil)
	client := func() *rawClient { return g.client(t, false, "plain", 0, 0) }
	open, reader, plain := client(), client(), client()
	open.must("BEGIN", "INSERT INTO t VALUES (1, 'before')")
	plain.must("START TRANSACTION READ ONLY", "SELECT * FROM t")
	reader.must("SET @x=1")
	g.srv.Hold(false)
	if n := g.drained(false); n != 2 {
		t.Errorf("%d transactions run, want 2", n)
	}
	writers := map[string]<-chan [][]byte{}
	off := client() // a login does not wait yet
	off.must("SET autocommit=0")
	writers["SELECT * FROM here"] = off.held("SELECT * FROM here")
	for _, x := range []string{"INSERT INTO t VALUES (2, 'after')", "BEGIN", "CREATE TABLE fresh (a INT PRIMARY KEY)", "SELECT * FROM here FOR SHARE",
		"LOCK TABLES here READ", "XA START 'mine'"} {
		writers[x] = client().held(x)
	}
	// What neither writes nor begins anything does not wait.
	reader.expect("1", "SELECT @x")
	reader.must("SET @y=2", "USE plain", "PREPARE p FROM 'SELECT 1'", "SHOW TABLES", "COMMIT")
	open.must("INSERT INTO t VALUES (3, 'before')", "COMMIT")
	plain.must("COMMIT")
	g.awaitDrained(t, false)

	g.srv.Hold(true)
	g.awaitDrained(t, true)
	read := reader.held("SELECT a FROM here")
	in := make(chan *rawClient, 1)
	go func() { in <- client() }()
	reader2 := open
	reader2.send(wire.ComPing, nil)
	if ps, err := reader2.read(wire.ComPing, ""); err != nil || ps[0][0] != 0 {
		t.Errorf("PING: %q, %v", ps, err)
	}
	time.Sleep(50 * time.Millisecond)
	g.awaitDrained(t, true)
	for x, done := range writers {
		select {
		case ps := <-done:
			t.Errorf("%s did not wait: %q", x, ps)
		default:
		}
	}
	if len(read) > 0 || len(in) > 0 {
		t.Error("a read or a login did not wait")
	}

	g.pair.move(Outcome{})
	g.srv.Release()
	for x, done := range writers {
		if ps := <-done; len(ps) == 0 || ps[0][0] == wire.HeaderERR {
			t.Errorf("%s: %q", x, ps)
		}
	}
	if ps := <-read; len(ps) == 0 || ps[0][0] == wire.HeaderERR {
		t.Errorf("read: %q", ps)
	}
	(<-in).expect("2", "SELECT a FROM here")
	reader.expect("2", "SELECT @y")
	if v := g.db.Value(t, "SELECT GROUP_CONCAT(a ORDER BY a) FROM plain.t"); v != "1,3" {
		t.Errorf("the former primary has %s", v)
	}
	if v := g.other.Value(t, "SELECT GROUP_CONCAT(a ORDER BY a) FROM plain.t"); v != "2" {
		t.Errorf("the new one has %s", v)
	}
}

// With a limit new transactions are refused at once, and what still runs in the end
// loses its connection, but for what is being committed.
func TestRefuseForAChangeOfThePrimary(t *testing.T) {
	g := newRig(t, nil)
	g.db.SQL(t, "CREATE TABLE plain.t (a INT PRIMARY KEY, b INT)")
	client := func() *rawClient { return g.client(t, false, "plain", 0, 0) }
	open, other, reader := client(), client(), client()
	open.must("USE plain", "BEGIN", "INSERT INTO t VALUES (1, 1)")
	other.must("USE plain", "BEGIN", "INSERT INTO t VALUES (2, 2)")
	reader.must("USE plain", "SET @x=1")
	g.srv.Refuse(false)
	for _, sql := range []string{"BEGIN", "INSERT INTO t VALUES (3, 3)", "CREATE TABLE u (a INT PRIMARY KEY)", "SELECT * FROM t FOR UPDATE"} {
		if e := reader.fails(sql); e == nil || e.Code != 4094 {
			t.Errorf("%s: %v", sql, e)
		}
	}
	reader.must("GET DIAGNOSTICS CONDITION 1 @n = MYSQL_ERRNO")
	reader.expect("4094", "SELECT @n")
	reader.expect("1", "SELECT @x")
	reader.must("SELECT * FROM t", "SET @y=2")
	open.must("INSERT INTO t VALUES (4, 4)", "COMMIT")
	if n := g.drained(false); n != 1 {
		t.Errorf("%d transactions run, want 1", n)
	}
	g.srv.End()
	g.awaitDrained(t, false)
	other.send(wire.ComQuery, []byte("COMMIT"))
	if ps, err := other.read(wire.ComQuery, ""); err == nil {
		t.Errorf("a connection that was ended answers %q", ps)
	}
	reader.expect("1", "SELECT @x") // what is idle lives
	g.srv.Release()
	reader.must("BEGIN", "INSERT INTO t VALUES (5, 5)", "COMMIT")
	if v := g.db.Value(t, "SELECT GROUP_CONCAT(a ORDER BY a) FROM plain.t"); v != "1,4,5" {
		t.Errorf("the server has %s", v)
	}
}

// Sessions come and go while the gate is closed and opened: none is stuck, and what
// runs is counted to the end.
func TestHoldUnderLoad(t *testing.T) {
	g := newRig(t, nil)
	g.db.SQL(t, "CREATE TABLE plain.t (a INT PRIMARY KEY AUTO_INCREMENT, b INT)")
	done := make(chan struct{})
	stop := make(chan struct{})
	const workers = 8
	for i := range workers {
		c := g.client(t, false, "plain", 0, 0)
		go func() {
			defer func() { done <- struct{}{} }()
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				list := []string{"INSERT INTO t (b) VALUES (1)"}
				if (i+k)%2 == 0 {
					list = []string{"BEGIN", "INSERT INTO t (b) VALUES (2)", "COMMIT"}
				}
				for _, x := range list {
					if ps := c.query(x); ps[0][0] == wire.HeaderERR {
						t.Errorf("%s: %q", x, ps)
					}
				}
			}
		}()
	}
	for range 20 {
		for _, all := range []bool{false, true} {
			g.srv.Hold(all)
			g.awaitDrained(t, all)
			before := g.db.Value(t, "SELECT COUNT(*) FROM plain.t")
			time.Sleep(5 * time.Millisecond)
			if now := g.db.Value(t, "SELECT COUNT(*) FROM plain.t"); now != before {
				t.Errorf("%s rows, then %s, while nothing runs", before, now)
			}
		}
		g.srv.Release()
		time.Sleep(5 * time.Millisecond)
	}
	close(stop)
	for range workers {
		<-done
	}
	g.awaitDrained(t, true) // whoever has its answer is counted for a moment more
}

// The end of a session that waits, or of the proxy, is not held up.
func TestHoldEndsWithTheProxy(t *testing.T) {
	g := newPair(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	g.srv.Hold(true)
	done := c.held("INSERT INTO t VALUES (1, 'x')")
	in := make(chan error, 1)
	go func() {
		_, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: g.addr, User: "plain", Password: "plain"})
		in <- err
	}()
	if err := g.srv.Close(); err != nil {
		t.Error(err)
	}
	<-done
	if err := <-in; err == nil {
		t.Error("a login succeeded")
	}
}

// slowAdmin has a function that takes until it is told to end.
type slowAdmin struct {
	testAdmin
	running, end chan struct{}
}

func (a *slowAdmin) Function(ctx context.Context, _ SessionInfo, _ GroupCall) (string, bool, error) {
	close(a.running)
	select {
	case <-a.end:
	case <-ctx.Done():
	}
	return "done", true, nil
}

// A function of the group passes the gate, and is nothing that is waited for: it may
// be what waits.
func TestHoldLetsFunctionsOfTheGroupPass(t *testing.T) {
	admin := &slowAdmin{running: make(chan struct{}), end: make(chan struct{})}
	g := newRig(t, func(o *Options) { o.Admin = admin })
	c := g.client(t, false, "root", 0, 0)
	g.srv.Hold(true)
	answer := c.held("SELECT group_replication_set_as_primary('x')")
	<-admin.running
	g.awaitDrained(t, true)
	close(admin.end)
	if ps := <-answer; len(ps) == 0 || ps[0][0] == wire.HeaderERR {
		t.Errorf("%q", ps)
	}
	g.srv.Release()
	c.must("SELECT 1")
}
