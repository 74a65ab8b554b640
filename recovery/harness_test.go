package recovery

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/committer"
	"cohort/internal/mysqld"
	"cohort/internal/mysqldtest"
	"cohort/internal/pause"
	"cohort/internal/wire"
	"cohort/router"
)

const groupName = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

// deadline bounds what a test waits for; nothing that works comes near it.
const deadline = 90 * time.Second

// TestMain keeps a busy machine from making members and servers look dead that are
// only slow: what a test kills is known by its port.
func TestMain(m *testing.M) {
	usual.Silence, beatWait = 20*time.Second, 5*time.Second
	os.Exit(m.Run())
}

// testMember is one member: a log, and a real mysqld unless it only votes.
type testMember struct {
	id     uint64
	dir    string
	db     *mysqldtest.Server
	socket string // of db, the same after every restart
	store  *groupbinlog.Store
	node   *consensus.Node
	router *router.Router
	member *Member
	uuid   string // server_uuid
	// donors and rows are those of the present process: rows that were fetched.
	donors *Donors
	rows   *atomic.Uint64
	stall  atomic.Bool // no row but the first few is taken
	cancel context.CancelFunc
	done   chan struct{}
}

// testGroup is a group in one process, wired as cmd/cohort does it.
type testGroup struct {
	t     testing.TB
	addrs map[uint64]string
	// all holds first the members with a mysqld, the first of which begins as the
	// primary, then those that only vote.
	all   []*testMember
	log   zerolog.Logger
	apart []*testMember // stopped by alone
	// clients are each member's; nil for none but those that the test makes itself.
	clients func(id uint64) Sessions
	// logSpace is how much of the log is kept, 0 for the default.
	logSpace uint64
	// policy and timing are those of members that are started.
	policy Policy
	timing *timing
	// sweepEvery is 0 for the default.
	sweepEvery time.Duration
	failed     func(error) // Options.Failed
}

// ownAddress is an address that stays free while its member is stopped.
func ownAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(mysqldtest.Loopback(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// newGroup starts a group with servers mysqlds and voters more votes and waits
// until all are ONLINE.
func newGroup(t *testing.T, servers, voters int, opts ...string) *testGroup {
	t.Helper()
	return startGroup(emptyGroup(t), servers, voters, opts...)
}

// newGroupKeeping is newGroup with members that keep so much of the log.
func newGroupKeeping(t *testing.T, logSpace uint64, servers, voters int, opts ...string) *testGroup {
	t.Helper()
	g := emptyGroup(t)
	g.logSpace = logSpace
	return startGroup(g, servers, voters, opts...)
}

// emptyGroup is what every group begins with. Its test runs beside others from here
// on: they wait most of the time.
func emptyGroup(t *testing.T) *testGroup {
	t.Parallel()
	g := &testGroup{t: t, addrs: map[uint64]string{}, log: zerolog.Nop(), policy: Policy{AutorejoinTries: 3}}
	if os.Getenv("COHORT_TEST_LOG") != "" {
		g.log = zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, NoColor: true, TimeFormat: "05.000"}).With().Timestamp().Logger()
	}
	return g
}

// startGroup is newGroup with settings of the test's own.
func startGroup(g *testGroup, servers, voters int, opts ...string) *testGroup {
	t := g.t
	t.Helper()
	dbs := mysqldtest.StartN(t, servers, opts...)
	for i := range servers + voters {
		m := &testMember{id: uint64(i + 1), dir: t.TempDir()}
		g.addrs[m.id] = ownAddress(t)
		if i < servers {
			m.db, m.socket = dbs[i], dbs[i].Socket
		}
		g.all = append(g.all, m)
	}
	t.Cleanup(func() {
		for _, m := range g.all {
			g.stop(m)
		}
	})
	for _, m := range g.all {
		g.start(m)
	}
	for _, m := range g.servers() {
		g.online(m)
	}
	return g
}

// primary is the member that the group appointed, and the first one before.
func (g *testGroup) primary() *testMember {
	p, epoch := g.all[0], uint64(0)
	for _, m := range g.all {
		if m.node == nil {
			continue
		}
		if v := m.node.View(); v.Epoch > epoch {
			p, epoch = g.all[v.Primary-1], v.Epoch
		}
	}
	return p
}

func (g *testGroup) byUUID(uuid string) *testMember {
	for _, m := range g.all {
		if m.uuid == uuid {
			return m
		}
	}
	return nil
}

func (g *testGroup) servers() (ms []*testMember) {
	for _, m := range g.all {
		if m.db != nil {
			ms = append(ms, m)
		}
	}
	return ms
}

// start starts a member's process, so to speak.
func (g *testGroup) start(m *testMember) {
	g.t.Helper()
	must := func(err error) {
		g.t.Helper()
		if err != nil {
			g.t.Fatalf("member %d: %v", m.id, err)
		}
	}
	log := g.log.With().Uint64("m", m.id).Logger()
	var err error
	for _, d := range []string{"log", "binlog"} {
		must(os.MkdirAll(filepath.Join(m.dir, d), 0o700))
	}
	m.store, err = groupbinlog.Open(filepath.Join(m.dir, "binlog"), groupbinlog.Options{GroupUUID: groupName, Logger: log})
	must(err)
	ref := &router.NodeRef{}
	opt := router.Options{Self: m.id, GroupName: groupName, Log: ref, Logger: log}
	var id mysqld.Identity
	if m.db != nil {
		pool, err := mysqld.Open(m.db.Socket, "root", "")
		must(err)
		id, err = mysqld.ReadIdentity(g.t.Context(), pool)
		pool.Close()
		must(err)
		opt.SelfUUID, opt.Socket = id.ServerUUID, m.db.Socket
		if m.uuid != id.ServerUUID { // clients look for it meanwhile
			m.uuid = id.ServerUUID
		}
	}
	m.router = router.New(opt)
	m.donors = NewDonors(DonorOptions{ReplicaID: m.id, UUID: m.uuid, RetryCount: 10, ReconnectInterval: time.Second, Logger: log})
	m.rows = new(atomic.Uint64)
	m.node, err = consensus.New(consensus.Config{Dir: filepath.Join(m.dir, "log"), GroupName: groupName, ReplicaID: m.id,
		LocalAddress: g.addrs[m.id], InitialMembers: g.addrs, Store: m.store, Observer: m.router, Logger: log.Level(zerolog.WarnLevel),
		FollowPrimary: true, ElectionRTT: 50, HeartbeatRTT: 5, Rows: counted{m.donors, m.rows, &m.stall}, RetainLogBytes: g.logSpace,
		OnDiverged: m.donors.Diverged})
	must(err)
	m.donors.SetLocate(m.node.PeerAddresses)
	ref.Set(m.node)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.done = cancel, make(chan struct{})
	m.member = nil
	if m.db != nil {
		m.member, err = New(Options{ReplicaID: m.id, GroupName: groupName, Bootstrap: m.id == 1, Socket: m.db.Socket, AdminUser: "root",
			Dir: m.dir, Info: state.MemberInfo{UUID: id.ServerUUID, MysqldAddress: m.db.Addr}, CommitterConns: 8,
			Node: m.node, Store: m.store, Donors: m.donors, Router: m.router, UUID: id.ServerUUID, ServerVersion: id.Version, Logger: log,
			FeedAddress: "127.0.0.1:0", PeerAddress: "127.0.0.1:0", Policy: g.policy, Failed: g.failed})
		must(err)
		if g.timing != nil {
			m.member.timing = *g.timing
		}
		if g.sweepEvery != 0 {
			m.member.sweepEvery = g.sweepEvery
		}
		if g.clients != nil {
			m.member.SetSessions(g.clients(m.id))
		}
	}
	done, node, member, rt := m.done, m.node, m.member, m.router
	go func() {
		defer close(done)
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			_ = node.Run(ctx)
		}()
		if member == nil {
			// A voter is a member whose mysqld nobody needs: its clients wait as
			// anyone's do.
			voter := &Member{opt: Options{ReplicaID: m.id, UUID: fmt.Sprint("voter-", m.id), Node: node, Router: rt}, log: log}
			// It may lead the log, so it must notice who dies.
			watching := make(chan struct{})
			go func() {
				defer close(watching)
				_ = voter.detect(ctx)
			}()
			_ = voter.followPeers(ctx)
			<-watching
		} else {
			if err := member.Run(ctx); err != nil && ctx.Err() == nil {
				g.t.Errorf("member %d: Run: %v", m.id, err)
			}
		}
		<-stopped
	}()
}

// counted counts the rows that a source brings.
type counted struct {
	consensus.RowSource
	rows  *atomic.Uint64
	stall *atomic.Bool
}

func (c counted) Fetch(ctx context.Context, want consensus.RowRange, take func(consensus.Row, io.Reader) error) error {
	return c.RowSource.Fetch(ctx, want, func(r consensus.Row, b io.Reader) error {
		for c.rows.Load() >= 3 && c.stall.Load() {
			if err := pause.For(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
		err := take(r, b)
		if err == nil {
			c.rows.Add(1)
		}
		return err
	})
}

// stop ends a member's process. Its mysqld sees what a kill would show it: the
// connections are gone.
func (g *testGroup) stop(m *testMember) {
	if m.node == nil {
		return
	}
	m.cancel()
	m.router.Close()
	<-m.done
	if err := errors.Join(m.node.Close(), m.store.Close()); err != nil {
		g.t.Errorf("member %d: %v", m.id, err)
	}
	m.node = nil
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(deadline)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting: %s", what)
		}
		<-tick.C
	}
}

// online waits until a member serves.
func (g *testGroup) online(m *testMember) {
	g.t.Helper()
	until(g.t, fmt.Sprintf("member %d ONLINE", m.id), func() bool { return m.member.Ready() && g.state(m) == state.StateOnline })
}

func (g *testGroup) state(m *testMember) state.MemberState {
	v, _ := m.node.View().Member(m.id)
	return v.State
}

// incarnation is the life that the group knows of a member.
func (g *testGroup) incarnation(m *testMember) uint64 {
	v, _ := m.node.View().Member(m.id)
	return v.Incarnation
}

// session is a client of the primary's mysqld as the proxy of a member makes
// it.
type session struct {
	*wire.Client
	on, via *testMember // whose mysqld, whose proxy
}

// dial opens a session on the primary's mysqld; via is the member whose proxy
// the client is connected to.
func (g *testGroup) dial(via *testMember) (*session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	b, err := via.router.Primary(ctx)
	if err != nil {
		return nil, err
	}
	return g.dialOn(ctx, g.byUUID(b.MemberUUID), via)
}

// dialOn opens a session on a member's mysqld, whatever that is in the group.
func (g *testGroup) dialOn(ctx context.Context, m, via *testMember) (*session, error) {
	c, err := wire.Dial(ctx, wire.Config{Network: "unix", Addr: m.socket, User: "root"})
	if err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, "SET SESSION session_track_gtids=OWN_GTID"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &session{c, m, via}, nil
}

func (g *testGroup) session(via *testMember) *session {
	g.t.Helper()
	s, err := g.dial(via)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { s.Close() })
	return s
}

func (g *testGroup) sessionOn(m, via *testMember) *session {
	g.t.Helper()
	s, err := g.dialOn(g.ctx(), m, via)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { s.Close() })
	return s
}

// prepare runs statements as one transaction up to XA PREPARE and returns the
// ticket for its verdict.
func (s *session) prepare(ctx context.Context, sqls ...string) (xid string, tk *router.Ticket, err error) {
	return s.prepareAfter(ctx, func() {}, sqls...)
}

// prepareAfter calls before between all that comes first and XA PREPARE.
func (s *session) prepareAfter(ctx context.Context, before func(), sqls ...string) (xid string, tk *router.Ticket, err error) {
	xid = s.via.router.NewXID()
	q := committer.Quote(xid)
	for _, x := range append(append([]string{"XA START " + q}, sqls...), "XA END "+q) {
		if _, err := s.Exec(ctx, x); err != nil {
			return xid, nil, fmt.Errorf("%s: %w", x, err)
		}
	}
	tk = s.via.router.Expect(xid)
	before()
	if _, err := s.Exec(ctx, "XA PREPARE "+q); err != nil {
		tk.Cancel()
		return xid, nil, fmt.Errorf("XA PREPARE: %w", err)
	}
	tk.Prepared()
	return xid, tk, nil
}

// commit runs statements as one wrapped transaction.
func (s *session) commit(ctx context.Context, sqls ...string) (router.Outcome, error) {
	_, tk, err := s.prepare(ctx, sqls...)
	if err != nil {
		return router.Outcome{}, err
	}
	return tk.Wait(ctx)
}

// direct runs a statement as it is and waits for its order.
func (s *session) direct(ctx context.Context, stmt string) (router.Outcome, error) {
	ok, err := s.Exec(ctx, stmt)
	if err != nil {
		return router.Outcome{}, fmt.Errorf("%s: %w", stmt, err)
	}
	if ok.Trackers.GTID() == "" {
		return router.Outcome{}, fmt.Errorf("%s: no GTID in its OK", stmt)
	}
	return s.via.router.ExpectDirect(ok.Trackers.GTID()).Wait(ctx)
}

// ddl runs direct statements that must succeed.
func (g *testGroup) ddl(stmts ...string) {
	g.t.Helper()
	s := g.session(g.primary())
	for _, x := range stmts {
		if o, err := s.direct(g.ctx(), x); err != nil || !o.Committed {
			g.t.Fatalf("%s: %+v, %v", x, o, err)
		}
	}
}

// write commits a transaction that must succeed.
func (g *testGroup) write(via *testMember, sqls ...string) router.Outcome {
	g.t.Helper()
	o, err := g.session(via).commit(g.ctx(), sqls...)
	if err != nil || !o.Committed {
		g.t.Fatalf("%s: %+v, %v", sqls, o, err)
	}
	return o
}

func (g *testGroup) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	g.t.Cleanup(cancel)
	return ctx
}

// outcome waits for a ticket.
func (g *testGroup) outcome(tk *router.Ticket) router.Outcome {
	g.t.Helper()
	o, err := tk.Wait(g.ctx())
	if err != nil {
		g.t.Fatal(err)
	}
	return o
}

// loseQuorum stops the log of all but the first member; regainQuorum starts it
// again.
func (g *testGroup) loseQuorum() {
	for _, m := range g.all[1:] {
		g.stop(m)
	}
}

func (g *testGroup) regainQuorum() {
	g.t.Helper()
	for _, m := range g.all[1:] {
		g.start(m)
	}
}

// root is one connection to a member's mysqld, for what needs a session.
func (g *testGroup) root(m *testMember) *sql.Conn {
	g.t.Helper()
	pool, err := mysqld.Open(m.db.Socket, "root", "")
	if err != nil {
		g.t.Fatal(err)
	}
	c, err := pool.Conn(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close(); pool.Close() })
	return c
}

// value is the first column of a statement's only row.
func (g *testGroup) value(m *testMember, q string) string {
	g.t.Helper()
	return m.db.Value(g.t, q)
}

// equal fails the test unless every mysqld holds everything that was ordered,
// the same rows, and nothing prepared.
func (g *testGroup) equal() {
	g.t.Helper()
	var want uint64
	for _, m := range g.servers() {
		want = max(want, m.node.LastN())
	}
	var first string
	for _, m := range g.servers() {
		c := g.root(m)
		var set mysqld.GroupSet
		until(g.t, fmt.Sprintf("member %d applies 1-%d", m.id, want), func() bool {
			if e := m.member.LastError(); e != nil && errors.Is(e, ErrDiverged) {
				g.t.Fatalf("member %d: %v", m.id, e)
			}
			var err error
			set, err = mysqld.GroupExecuted(g.t.Context(), c, groupName)
			if errors.Is(err, driver.ErrBadConn) {
				c = g.root(m) // a start-up sequence ends all sessions
				return false
			}
			if err != nil {
				g.t.Fatal(err)
			}
			return set.Low >= want
		})
		if set.Low != want || len(set.Extra) > 0 {
			g.t.Errorf("member %d: gtid_executed holds %d %v, the group ordered 1-%d", m.id, set.Low, set.Extra, want)
		}
		// A commit shows in gtid_executed a moment before its branch is gone.
		until(g.t, fmt.Sprintf("member %d has nothing prepared", m.id), func() bool {
			x, err := mysqld.XARecover(g.t.Context(), c)
			if err != nil {
				g.t.Fatal(err)
			}
			return len(x) == 0
		})
		sum := g.checksum(c)
		if first == "" {
			first = sum
		} else if sum != first {
			g.t.Errorf("member %d holds\n%s\nmember 1 holds\n%s", m.id, sum, first)
		}
	}
}

// checksum describes all tables of the schema d.
func (g *testGroup) checksum(c *sql.Conn) string {
	g.t.Helper()
	var out strings.Builder
	rows, err := c.QueryContext(g.t.Context(), "SELECT table_name FROM information_schema.tables WHERE table_schema='d' ORDER BY 1")
	if err != nil {
		g.t.Fatal(err)
	}
	var names []string
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			g.t.Fatal(err)
		}
		names = append(names, n)
	}
	rows.Close()
	for _, n := range names {
		var name, def string
		var sum sql.NullInt64
		if err := c.QueryRowContext(g.t.Context(), "CHECKSUM TABLE d.`"+n+"`").Scan(&name, &sum); err != nil {
			g.t.Fatal(err)
		}
		if err := c.QueryRowContext(g.t.Context(), "SHOW CREATE TABLE d.`"+n+"`").Scan(&name, &def); err != nil {
			g.t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %d %s\n", n, sum.Int64, def)
	}
	return out.String()
}
