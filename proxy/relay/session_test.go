package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"cohort/internal/mysqldtest"
	"cohort/internal/wire"
)

// joined is a relay whose session the test plays, and a client in the hands of
// the test.
type joined struct {
	r  *Relay
	cl *wire.Client
}

// join connects a client with caps through a relay to s.
func join(t *testing.T, acc *Acceptor, s *mysqldtest.Server, user, password string, caps wire.Capability) *joined {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type result struct {
		r   *Relay
		err error
	}
	ch := make(chan result, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			ch <- result{nil, err}
			return
		}
		r, err := acc.Accept(context.Background(), nc, dialTo("unix", s.Socket))
		if err != nil {
			nc.Close()
		}
		ch <- result{r, err}
	}()
	cl, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: l.Addr().String(),
		User: user, Password: password, ExactCaps: caps})
	res := <-ch
	if err != nil || res.err != nil {
		t.Fatal(err, res.err)
	}
	t.Cleanup(func() { res.r.Close(); cl.Close() })
	deadline := time.Now().Add(5 * time.Minute)
	for _, c := range []net.Conn{cl.Conn.NetConn(), res.r.Client.NetConn(), res.r.Backend.Conn.NetConn()} {
		c.SetDeadline(deadline)
	}
	return &joined{res.r, cl}
}

const modernCaps = wire.LongPassword | wire.SessionTrack | wire.DeprecateEOF | wire.MultiStatements |
	wire.MultiResults | wire.PSMultiResults | wire.LocalFiles | wire.QueryAttributes

// command has the client send payload and the relay read it.
func (j *joined) command(t *testing.T, payload []byte) *Command {
	t.Helper()
	if err := wire.WriteCommand(j.cl.Conn, payload[0], payload[1:]); err != nil {
		t.Fatal(err)
	}
	if err := j.cl.Conn.Flush(); err != nil {
		t.Fatal(err)
	}
	c, err := j.r.ReadCommand()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (j *joined) query(t *testing.T, sql string) *Command {
	t.Helper()
	return j.command(t, query(j.cl.Caps, sql).payload)
}

// answer reads n packets at the client and checks their numbering.
func (j *joined) answer(t *testing.T, n int) [][]byte {
	t.Helper()
	var got [][]byte
	for i := range n {
		p, err := j.cl.Conn.ReadPacket(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		if j.cl.Conn.Seq-1 != byte(i+1) {
			t.Errorf("packet %d has number %d", i+1, j.cl.Conn.Seq-1)
		}
		got = append(got, append([]byte(nil), p...))
	}
	if b := j.cl.Conn.Buffered(); len(b) > 0 {
		t.Errorf("more than %d packets: %q", n, b)
	}
	return got
}

func (j *joined) response(t *testing.T, code byte, o *ResponseOptions) Outcome {
	t.Helper()
	out, err := j.r.Response(code, o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var clientKinds = map[string]wire.Capability{
	"modern": modernCaps,
	"old":    modernCaps &^ (wire.SessionTrack | wire.DeprecateEOF | wire.QueryAttributes),
}

// testWrapped plays what a session does to a write: statements of its own around
// the client's, in few writes, and only one answer for the client.
func testWrapped(t *testing.T, s *mysqldtest.Server) {
	acc, err := New(Options{Secrets: NewSecrets()})
	must(t, err)
	n := 0
	for name, caps := range clientKinds {
		t.Run(name, func(t *testing.T) {
			j := join(t, acc, s, "csha", "secret one", caps)
			r := j.r
			if _, err := r.Backend.Exec(context.Background(), "SET session_track_gtids=OWN_GTID, session_track_transaction_info=STATE"); err != nil {
				t.Fatal(err)
			}
			n++
			xid := "'wrapped" + strconv.Itoa(n) + "'"
			j.query(t, "INSERT INTO d.t(v) VALUES ('a'),('b')")
			must(t, r.QueueQuery("XA START "+xid))
			must(t, r.Forward())
			if r.Outstanding() != 2 {
				t.Errorf("%d outstanding", r.Outstanding())
			}
			if out := j.response(t, wire.ComQuery, &ResponseOptions{Swallow: true}); out.Kind != KindOK || out.Relayed {
				t.Fatalf("XA START: %+v", out)
			}
			held := j.response(t, wire.ComQuery, &ResponseOptions{Hold: true})
			if st, _ := held.Trackers.TxState(); !held.Held || held.AffectedRows != 2 || held.Status&wire.StatusInTrans == 0 || !strings.Contains(st, "W") {
				t.Fatalf("%+v %q", held, st)
			}
			info := string(held.Info)
			answer := held
			answer.Info = []byte(info)
			answer.Trackers = nil
			must(t, r.QueueQuery("XA END "+xid))
			must(t, r.QueueQuery("XA PREPARE "+xid))
			j.response(t, wire.ComQuery, &ResponseOptions{Swallow: true})
			prep := j.response(t, wire.ComQuery, &ResponseOptions{Swallow: true})
			if !strings.Contains(prep.Trackers.GTID(), ":") {
				t.Errorf("GTID %q", prep.Trackers.GTID())
			}
			if _, err := r.Backend.Exec(context.Background(), "XA COMMIT "+xid); err != nil {
				t.Fatal(err)
			}
			must(t, r.Finish(&answer, &ResponseOptions{ClearStatus: wire.StatusInTrans}))
			ok, err := wire.ParseOK(j.answer(t, 1)[0], caps)
			if err != nil || ok.AffectedRows != 2 || ok.Status != wire.StatusAutocommit || string(ok.Info) != "Records: 2  Duplicates: 0  Warnings: 0" {
				t.Errorf("%+v %v", ok, err)
			}

			// A result set whose end is held and becomes an error.
			j.query(t, "SELECT v FROM d.t LIMIT 2")
			must(t, r.Forward())
			held = j.response(t, wire.ComQuery, &ResponseOptions{Hold: true})
			if held.Kind != KindEOF || held.Rows != 2 {
				t.Errorf("%+v", held)
			}
			held.Kind, held.Err = KindErr, wire.NewError(3101, "40000", "no")
			must(t, r.Finish(&held, nil))
			want := 5
			if !caps.Has(wire.DeprecateEOF) {
				want++
			}
			got := j.answer(t, want)
			if e, err := wire.ParseERR(got[want-1]); err != nil || e.Code != 3101 {
				t.Errorf("%v %v", e, err)
			}

			// Rows for the session alone.
			must(t, r.QueueQuery("SELECT 'one' UNION ALL SELECT 'two'"))
			var rows []string
			out := j.response(t, wire.ComQuery, &ResponseOptions{Swallow: true, Row: func(p []byte) { rows = append(rows, string(p[1:])) }})
			if out.Rows != 2 || out.Relayed || strings.Join(rows, " ") != "one two" {
				t.Errorf("%+v %q", out, rows)
			}

			// An error passes, and its outcome is told.
			j.query(t, "SELECT * FROM d.missing")
			must(t, r.Forward())
			if out := j.response(t, wire.ComQuery, nil); !out.Failed() || out.Err.Code != 1146 || out.Err.State != "42S02" {
				t.Errorf("%+v", out)
			}
			j.answer(t, 1)
		})
	}
}

// testSplit answers one multi-statement command of the client with the answers to
// several commands, some of them the relay's own words.
func testSplit(t *testing.T, s *mysqldtest.Server) {
	acc, err := New(Options{})
	must(t, err)
	for name, caps := range clientKinds {
		t.Run(name, func(t *testing.T) {
			j := join(t, acc, s, "csha", "secret one", caps)
			r := j.r
			j.query(t, "SELECT 1; own; DO 1; own rows")
			must(t, r.DropCommand())
			must(t, r.QueueQuery("SELECT 1"))
			must(t, r.QueueQuery("DO 1"))
			j.response(t, wire.ComQuery, &ResponseOptions{MoreResults: true})
			must(t, r.SendOK(&wire.OK{AffectedRows: 7, Status: wire.StatusAutocommit | wire.StatusMoreResults}))
			j.response(t, wire.ComQuery, &ResponseOptions{MoreResults: true, Rewrite: func(o *Outcome, last bool) bool {
				o.AffectedRows = 9
				return true
			}})
			must(t, r.SendResult([]wire.Column{{Name: "x", Charset: 255, Length: 40, Type: wire.TypeVarString}},
				[][][]byte{{[]byte("row")}, {nil}}, &wire.OK{Status: wire.StatusAutocommit}))
			first, last := 4, 5
			if !caps.Has(wire.DeprecateEOF) {
				first, last = 5, 6
			}
			got := j.answer(t, first+1+1+last)
			end, err := wire.ParseEnd(got[first-1], caps)
			if err != nil || end.Status&wire.StatusMoreResults == 0 {
				t.Errorf("first end: %+v %v", end, err)
			}
			for i, affected := range []uint64{7, 9} {
				ok, err := wire.ParseOK(got[first+i], caps)
				if err != nil || ok.Status&wire.StatusMoreResults == 0 || ok.AffectedRows != affected {
					t.Errorf("OK %d: %+v %v", i, ok, err)
				}
			}
			end, err = wire.ParseEnd(got[len(got)-1], caps)
			if err != nil || end.Status&wire.StatusMoreResults != 0 {
				t.Errorf("last end: %+v %v", end, err)
			}
			// The very same through a client that knows how to read it.
			j.query(t, "x")
			must(t, r.SendResult([]wire.Column{{Name: "n", Type: wire.TypeLongLong, Charset: 63}}, nil, &wire.OK{}))
			j.answer(t, last-2)
		})
	}
}

// testStreamedCommand sends commands longer than what is kept in memory, beside
// statements of the relay's own.
func testStreamedCommand(t *testing.T, s *mysqldtest.Server) {
	acc, err := New(Options{MaxInline: 10_000})
	must(t, err)
	j := join(t, acc, s, "csha", "secret one", modernCaps)
	for _, n := range []int{9_000, 11_000, 1 << 20, 17 << 20, 34 << 20} {
		sql := query(modernCaps, "SELECT LENGTH('"+strings.Repeat("z", n)+"')").payload
		sent := make(chan error, 1)
		go func() {
			err := wire.WriteCommand(j.cl.Conn, sql[0], sql[1:])
			if err == nil {
				err = j.cl.Conn.Flush()
			}
			sent <- err
		}()
		c, err := j.r.ReadCommand()
		must(t, err)
		if c.Streamed != (n > 10_000) || !strings.HasPrefix(string(c.Arg()), "\x00\x01SELECT LENGTH('zz") {
			t.Errorf("%d: streamed %v", n, c.Streamed)
		}
		must(t, j.r.QueueQuery("DO 1"))
		must(t, j.r.Forward())
		must(t, <-sent)
		j.response(t, wire.ComQuery, &ResponseOptions{Swallow: true})
		out := j.response(t, wire.ComQuery, nil)
		if out.Kind != KindEOF || out.Rows != 1 {
			t.Errorf("%d: %+v", n, out)
		}
		for range 4 {
			p, err := j.cl.Conn.ReadPacket(1 << 20)
			must(t, err)
			if string(p[1:]) == strconv.Itoa(n) {
				n = 0
			}
		}
		if n != 0 {
			t.Errorf("%d: wrong length", n)
		}
	}
	// A streamed command that is answered without the backend.
	sql := query(modernCaps, strings.Repeat("z", 20<<20)).payload
	sent := make(chan error, 1)
	go func() {
		err := wire.WriteCommand(j.cl.Conn, sql[0], sql[1:])
		if err == nil {
			err = j.cl.Conn.Flush()
		}
		sent <- err
	}()
	_, err = j.r.ReadCommand()
	must(t, err)
	must(t, j.r.SendError(wire.NewError(1235, "42000", "no")))
	must(t, <-sent)
	p, err := j.cl.Conn.ReadPacket(1 << 20)
	must(t, err)
	if e, err := wire.ParseERR(p); err != nil || e.Code != 1235 || j.cl.Conn.Seq != 3 {
		t.Errorf("%v %v, number %d", e, err, j.cl.Conn.Seq-1)
	}
}

// testReopen opens the session of a client again with what was learnt, and goes
// on with it.
func testReopen(t *testing.T, s *mysqldtest.Server) {
	acc, err := New(Options{Secrets: NewSecrets(), DemandPassword: true, BackendTLS: &tls.Config{InsecureSkipVerify: true}})
	must(t, err)
	for _, a := range [][2]string{{"csha", "secret one"}, {"sha", "secret two"}, {"nopw", ""}} {
		for _, network := range []string{"unix", "tcp"} {
			j := join(t, acc, s, a[0], a[1], modernCaps)
			s.SQL(t, "FLUSH PRIVILEGES")
			addr := map[string]string{"unix": s.Socket, "tcp": s.Addr}[network]
			nb, err := acc.OpenBackend(context.Background(), dialTo(network, addr), &j.r.Login)
			if err != nil {
				t.Fatalf("%s over %s: %v", a[0], network, err)
			}
			old := j.r.Backend
			j.r.SetBackend(nb)
			old.Close()
			if nb.Caps != old.Caps && nb.Caps != old.Caps|wire.SSL {
				t.Errorf("capabilities %#x, were %#x", nb.Caps, old.Caps)
			}
			j.query(t, "SELECT USER()")
			must(t, j.r.Forward())
			j.response(t, wire.ComQuery, nil)
			if got := j.answer(t, 4); !strings.HasPrefix(string(got[2][1:]), a[0]+"@") {
				t.Errorf("row %q", got[2])
			}
		}
	}
}

// testFastPathTeaches logs in while the server has the account cached and relay
// does not know the password.
func testFastPathTeaches(t *testing.T, s *mysqldtest.Server) {
	cl, err := wire.Dial(context.Background(), wire.Config{Network: "unix", Addr: s.Socket, User: "csha", Password: "secret one"})
	must(t, err)
	cl.Close()
	for _, demand := range []bool{false, true} {
		acc, err := New(Options{Secrets: NewSecrets(), DemandPassword: demand})
		must(t, err)
		j := join(t, acc, s, "csha", "secret one", modernCaps)
		if j.r.Login.Secret.Usable() != demand {
			t.Errorf("demand %v: secret known %v", demand, j.r.Login.Secret.Known)
		}
		if demand {
			// Another client of the account is recognised on the fast path.
			acc.opt.DemandPassword = false
			if j := join(t, acc, s, "csha", "secret one", modernCaps); !j.r.Login.Secret.Known {
				t.Error("not recognised")
			}
		}
	}
}

func testWrongPassword(t *testing.T, s *mysqldtest.Server) {
	p := startPassthrough(t, "tcp", Options{ClientTLS: testTLS(t), Secrets: NewSecrets(), DemandPassword: true}, dialTo("unix", s.Socket))
	for range 2 {
		for _, user := range []string{"csha", "sha", "nobody"} {
			for _, tc := range []*tls.Config{nil, {InsecureSkipVerify: true}} {
				_, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: p.addr, User: user, Password: "wrong", TLS: tc})
				if wire.ErrorCode(err) != 1045 {
					t.Errorf("%s: %v", user, err)
				}
			}
		}
		// From here on the right password is remembered.
		cl, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: p.addr, User: "csha", Password: "secret one"})
		must(t, err)
		cl.Close()
	}
	// A backend that is not there.
	dead := startPassthrough(t, "tcp", Options{}, dialTo("unix", "/nonexistent/socket"))
	if _, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: dead.addr, User: "x"}); wire.ErrorCode(err) != 2003 {
		t.Errorf("%v", err)
	}
}

func testChangeUser(t *testing.T, s *mysqldtest.Server) {
	acc, err := New(Options{Secrets: NewSecrets(), DemandPassword: true})
	must(t, err)
	for name, caps := range clientKinds {
		t.Run(name, func(t *testing.T) {
			caps |= wire.PluginAuth | wire.ConnectAttrs
			j := join(t, acc, s, "csha", "secret one", caps)
			for _, c := range []struct {
				user, password, plugin string
				code                   uint16
			}{
				// An empty first answer says nothing about the password.
				{"csha", "secret one", "", 0},
				{"sha", "secret two", "", 0},
				{"sha", "secret two", wire.PluginSHA256, 0},
				{"csha", "secret one", wire.PluginCachingSHA2, 0},
				{"nopw", "", wire.PluginCachingSHA2, 0},
				{"csha", "wrong", wire.PluginCachingSHA2, 1045},
			} {
				s.SQL(t, "FLUSH PRIVILEGES")
				done := make(chan error, 1)
				var out Outcome
				go func() {
					_, err := j.r.ReadCommand()
					if err == nil {
						out, err = j.r.ChangeUser(nil)
					}
					done <- err
				}()
				_, err := j.cl.ChangeUser(context.Background(), c.user, c.password, "d", c.plugin)
				must(t, <-done)
				if wire.ErrorCode(err) != c.code {
					t.Fatalf("%s: %v", c.user, err)
				}
				if c.code != 0 {
					if !out.Failed() || out.Err.Code != c.code {
						t.Errorf("%+v", out)
					}
					continue
				}
				if l := j.r.Login; l.User != c.user || !l.Secret.Known || string(l.Secret.Password) != c.password {
					t.Errorf("login %+v", l)
				}
				j.query(t, "SELECT CURRENT_USER()")
				must(t, j.r.Forward())
				out = j.response(t, wire.ComQuery, nil)
				for range 4 + btoi(!caps.Has(wire.DeprecateEOF)) {
					_, err := j.cl.Conn.ReadPacket(1 << 20)
					must(t, err)
				}
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func testProtocolViolations(t *testing.T, s *mysqldtest.Server) {
	acc, err := New(Options{})
	must(t, err)
	j := join(t, acc, s, "csha", "secret one", modernCaps)
	if _, err := j.r.Response(wire.ComQuery, nil); !errors.Is(err, ErrNoResponse) {
		t.Errorf("%v", err)
	}
	must(t, j.cl.Conn.WriteRaw([]byte{1, 0, 0, 5, wire.ComPing}))
	must(t, j.cl.Conn.Flush())
	if _, err := j.r.ReadCommand(); !errors.Is(err, ErrClient) || !errors.Is(err, wire.ErrSequence) {
		t.Errorf("%v", err)
	}
	p, err := j.cl.Conn.ReadPacket(1 << 20)
	must(t, err)
	if e, _ := wire.ParseERR(p); e == nil || e.Code != 1156 {
		t.Errorf("%v", e)
	}
	// The backend dies under a response.
	j = join(t, acc, s, "csha", "secret one", modernCaps)
	j.query(t, "SELECT SLEEP(100)")
	must(t, j.r.Forward())
	must(t, j.r.Flush())
	s.SQL(t, "KILL "+strconv.Itoa(int(j.r.ThreadID())))
	if out, err := j.r.Response(wire.ComQuery, nil); err == nil && !out.Failed() || err != nil && !errors.Is(err, ErrBackend) {
		t.Errorf("%+v %v", out, err)
	}
}

// testWatch: a client that leaves has its statement killed; a backend that leaves
// an idle client is noticed.
func testWatch(t *testing.T, s *mysqldtest.Server) {
	admin, err := wire.Dial(context.Background(), wire.Config{Network: "unix", Addr: s.Socket, User: "root"})
	must(t, err)
	defer admin.Close()
	p := startPassthrough(t, "tcp", Options{ClientTLS: testTLS(t), Compression: true}, dialTo("unix", s.Socket))
	kills := make(chan uint32, 10)
	gone := make(chan uint32, 10)
	p.events = func(r *Relay) WatchEvents {
		id := r.ThreadID()
		return WatchEvents{ClientGone: func() { kills <- id }, BackendGone: func() { gone <- id }}
	}
	for _, tc := range []*tls.Config{nil, {InsecureSkipVerify: true}} {
		cl, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: p.addr, User: "csha", Password: "secret one", TLS: tc})
		must(t, err)
		must(t, cl.WriteQuery("SELECT SLEEP(1000)"))
		must(t, cl.Conn.Flush())
		waitFor(t, func() bool {
			return s.Value(t, "SELECT COUNT(*) FROM performance_schema.processlist WHERE info LIKE 'SELECT SLEEP(1000%'") == "1"
		})
		id := cl.ThreadID()
		cl.Close()
		select {
		case got := <-kills:
			if got != id {
				t.Errorf("killed %d, want %d", got, id)
			}
			if _, err := admin.Exec(context.Background(), "KILL "+strconv.Itoa(int(got))); err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("the client's leaving was not noticed")
		}
	}
	cl, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: p.addr, User: "csha", Password: "secret one"})
	must(t, err)
	defer cl.Close()
	if _, err := admin.Exec(context.Background(), "KILL "+strconv.Itoa(int(cl.ThreadID()))); err != nil {
		t.Fatal(err)
	}
	select {
	case id := <-gone:
		if id != cl.ThreadID() {
			t.Errorf("%d", id)
		}
	case <-time.After(time.Minute):
		t.Fatal("the backend's leaving was not noticed")
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("condition not reached")
		}
		<-tick.C
	}
}

func testIdleTimeout(t *testing.T, s *mysqldtest.Server) {
	acc, err := New(Options{IdleTimeout: 20 * time.Millisecond})
	must(t, err)
	j := join(t, acc, s, "csha", "secret one", modernCaps)
	_, err = j.r.ReadCommand()
	var ne net.Error
	if !errors.Is(err, ErrClient) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("%v", err)
	}
}
