package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/mysqldtest"
	"cohort/internal/wire"
)

const groupUUID = "aaaaaaaa-0000-4000-8000-000000000001"

// soloGroup is a group of one that does the least that is honest: a verdict is
// to commit, carried out under the group's next GTID on a connection of its own.
type soloGroup struct {
	network string
	addr    string
	primary string // where clients' sessions go, if not addr
	adrift  atomic.Bool

	gate    sync.Mutex // held: no verdict
	mu      sync.Mutex
	conn    *wire.Client
	n       uint64
	xids    uint64
	verdict func(xid string) *Outcome // nil result: commit
	direct  []string                  // local GTIDs that were waited for
	wrapped int                       // XA transactions committed
}

func (g *soloGroup) Primary(context.Context) (Backend, error) {
	addr := g.addr
	if g.primary != "" {
		addr = g.primary
	}
	return Backend{Network: g.network, Addr: addr, Local: true}, nil
}

// Moved implements Group.
func (g *soloGroup) Moved(Backend) bool { return false }

// Unheard implements Group.
func (g *soloGroup) Unheard(Backend) bool { return false }

// Fresh implements Group.
func (g *soloGroup) Fresh(Backend, bool) bool { return true }

// AwaitFresh implements Group.
func (g *soloGroup) AwaitFresh(context.Context, Backend, bool) error { return nil }
func (g *soloGroup) Departure() Departure                            { return Departure{} }
func (g *soloGroup) Adrift() bool                                    { return g.adrift.Load() }

func (g *soloGroup) NewXID() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.xids++
	return fmt.Sprintf("cohort.test.1.%d", g.xids)
}

type soloTicket struct {
	g           *soloGroup
	xid, direct string
}

func (g *soloGroup) Expect(xid string) Ticket         { return soloTicket{g, xid, ""} }
func (g *soloGroup) ExpectDirect(local string) Ticket { return soloTicket{g, "", local} }
func (soloTicket) Cancel()                            {}
func (soloTicket) Prepared()                          {}

func (k soloTicket) Wait(ctx context.Context) (Outcome, error) {
	g := k.g
	g.gate.Lock()
	defer g.gate.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if k.direct != "" {
		g.direct = append(g.direct, k.direct)
		return g.run(ctx, "BEGIN", "COMMIT")
	}
	if g.verdict != nil {
		if o := g.verdict(k.xid); o != nil {
			c, err := g.admin(ctx)
			if err == nil {
				_, err = c.Exec(ctx, "XA ROLLBACK '"+k.xid+"'")
			}
			return *o, err
		}
	}
	for {
		o, err := g.run(ctx, "XA COMMIT '"+k.xid+"'")
		if wire.ErrorCode(err) == erXANotA { // PREPARE is still on its way
			select {
			case <-time.After(time.Millisecond):
				continue
			case <-ctx.Done():
			}
		}
		if err == nil {
			g.wrapped++
		}
		return o, err
	}
}

// run executes under the next group GTID. The caller holds the lock.
func (g *soloGroup) run(ctx context.Context, sqls ...string) (Outcome, error) {
	gtid := fmt.Sprintf("%s:%d", groupUUID, g.n+1)
	all := append(append([]string{"SET gtid_next='" + gtid + "'"}, sqls...), "SET gtid_next='AUTOMATIC'")
	c, err := g.admin(ctx)
	if err != nil {
		return Outcome{}, err
	}
	rs, err := c.Pipeline(ctx, all...)
	if err != nil {
		return Outcome{}, err
	}
	for _, r := range rs {
		if r.Err != nil {
			return Outcome{}, r.Err
		}
	}
	g.n++
	return Outcome{Committed: true, N: g.n, GTID: gtid}, nil
}

// admin is root's connection. An error is the caller's: whoever waits for a
// verdict may do so on a server that is gone, or no longer.
func (g *soloGroup) admin(ctx context.Context) (*wire.Client, error) {
	if g.conn == nil || g.conn.Broken() {
		c, err := wire.Dial(ctx, wire.Config{Network: g.network, Addr: g.addr, User: "root"})
		if err != nil {
			return nil, fmt.Errorf("connect as root: %w", err)
		}
		g.conn = c
	}
	return g.conn, nil
}

func (g *soloGroup) counts() (wrapped, direct int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wrapped, len(g.direct)
}

// rig is a mysqld with a proxy in front of it.
type rig struct {
	t     testing.TB
	db    *mysqldtest.Server
	group *soloGroup
	srv   *Server
	addr  string
}

// rigSetting and rigAccount make a rig's mysqld.
const rigSetting = "log_bin_trust_function_creators=ON"

var rigAccount = []string{"CREATE SCHEMA plain", "CREATE USER plain IDENTIFIED BY 'plain'", "GRANT ALL ON plain.* TO plain"}

func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	return rigOn(t, mysqldtest.Start(t, rigSetting), change)
}

// rigOn puts a proxy in front of a server.
func rigOn(t testing.TB, db *mysqldtest.Server, change func(*Options)) *rig {
	t.Helper()
	g := &rig{t: t, db: db}
	g.db.SQL(t, rigAccount...)
	g.group = &soloGroup{network: "unix", addr: g.db.Socket}
	g.startProxy(change)
	return g
}

func (g *rig) startProxy(change func(*Options)) {
	t := g.t
	opt := Options{Listen: "127.0.0.1:0", Group: g.group, ConnectTimeout: 20 * time.Second, WatchInterval: 20 * time.Millisecond,
		aloneWait: 100 * time.Millisecond, aloneTimeout: time.Minute, stuckAfter: 200 * time.Millisecond,
		Logger: zerolog.New(os.Stderr).Level(zerolog.WarnLevel)}
	if change != nil {
		change(&opt)
	}
	srv, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("proxy: %v", err)
		}
	})
	g.srv, g.addr = srv, srv.Addr().String()
}

// client opens a raw connection: direct to mysqld's socket, or through the proxy.
func (g *rig) client(t testing.TB, direct bool, user string, caps wire.Capability, drop wire.Capability) *rawClient {
	t.Helper()
	network, addr := "tcp", g.addr
	if direct {
		network, addr = "unix", g.db.Socket
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		t.Fatal(err)
	}
	cfg := wire.Config{User: user, Password: user, DB: "plain", Caps: caps}
	if user == "root" {
		cfg.Password = ""
	}
	if drop != 0 {
		cfg.ExactCaps = (wire.LongPassword | wire.LongFlag | wire.Protocol41 | wire.Transactions | wire.SecureConnection |
			wire.MultiResults | wire.PSMultiResults | wire.PluginAuth | wire.PluginAuthLenenc | wire.SessionTrack |
			wire.DeprecateEOF | wire.ConnectWithDB | caps) &^ drop
	}
	cl, err := wire.Login(ctx, nc, &cfg)
	if err != nil {
		t.Fatalf("log in as %s: %v", user, err)
	}
	_ = nc.SetDeadline(time.Now().Add(5 * time.Minute))
	c := &rawClient{t: t, cl: cl}
	t.Cleanup(func() { _ = cl.Close() })
	return c
}

// rawClient sends commands and keeps the packets of the answers.
type rawClient struct {
	t  testing.TB
	cl *wire.Client
}

func (c *rawClient) send(code byte, arg []byte) {
	c.t.Helper()
	if code == wire.ComQuery && c.cl.Caps.Has(wire.QueryAttributes) {
		arg = append([]byte{0, 1}, arg...)
	}
	if err := wire.WriteCommand(c.cl.Conn, code, arg); err != nil {
		c.t.Fatal(err)
	}
	if err := c.cl.Conn.Flush(); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// read returns the packets of one response; infile answers LOCAL INFILE.
func (c *rawClient) read(code byte, infile string) ([][]byte, error) {
	var all [][]byte
	next := func() ([]byte, error) {
		p, err := c.cl.Conn.ReadPacket(64 << 20)
		if err != nil {
			return nil, err
		}
		p = append([]byte(nil), p...)
		all = append(all, p)
		if len(p) == 0 {
			return nil, errors.New("empty packet")
		}
		return p, nil
	}
	caps := c.cl.Caps
	rows := func() (wire.OK, error) { // up to the end of rows
		for {
			p, err := next()
			if err != nil {
				return wire.OK{}, err
			}
			if p[0] == wire.HeaderERR {
				return wire.OK{}, nil
			}
			if wire.IsEOF(p[0], len(p), caps) {
				return wire.ParseEnd(p, caps)
			}
		}
	}
	for {
		p, err := next()
		if err != nil {
			return all, err
		}
		var ok wire.OK
		switch {
		case p[0] == wire.HeaderERR:
			return all, nil
		case code == wire.ComStatistics:
			return all, nil
		case code == wire.ComStmtPrepare && p[0] == 0:
			cols, params := binary.LittleEndian.Uint16(p[5:]), binary.LittleEndian.Uint16(p[7:])
			for _, n := range []uint16{params, cols} {
				k := int(n)
				if k > 0 && !caps.Has(wire.DeprecateEOF) {
					k++
				}
				for range k {
					if _, err := next(); err != nil {
						return all, err
					}
				}
			}
			return all, nil
		case code == wire.ComStmtFetch:
			for !wire.IsEOF(p[0], len(p), caps) {
				if p, err = next(); err != nil {
					return all, err
				}
			}
			return all, nil
		case p[0] == wire.HeaderLocalFile:
			if infile != "" {
				if err := c.cl.Conn.WritePacket([]byte(infile)); err != nil {
					return all, err
				}
			}
			if err := c.cl.Conn.WritePacket(nil); err != nil {
				return all, err
			}
			if err := c.cl.Conn.Flush(); err != nil {
				return all, err
			}
			continue
		case p[0] == wire.HeaderOK, p[0] == wire.HeaderEOF:
			if ok, err = wire.ParseOK(p, caps); err != nil {
				if ok, err = wire.ParseEnd(p, caps); err != nil {
					return all, err
				}
			}
		default:
			n := int(p[0])
			for range n {
				if _, err := next(); err != nil {
					return all, err
				}
			}
			cursor := false
			if !caps.Has(wire.DeprecateEOF) {
				e, err := next()
				if err != nil {
					return all, err
				}
				mid, err := wire.ParseEOF(e)
				if err != nil {
					return all, err
				}
				cursor = mid.Status&wire.StatusCursorExists != 0
				ok = mid
			}
			if !cursor {
				if ok, err = rows(); err != nil {
					return all, err
				}
			}
		}
		if ok.Status&wire.StatusMoreResults == 0 {
			return all, nil
		}
	}
}

// query runs one statement and fails the test if the connection does.
func (c *rawClient) query(sql string) [][]byte {
	c.t.Helper()
	c.send(wire.ComQuery, []byte(sql))
	ps, err := c.read(wire.ComQuery, "")
	if err != nil {
		c.t.Fatalf("%s: %v", sql, err)
	}
	return ps
}

// must runs statements none of which may fail.
func (c *rawClient) must(sqls ...string) {
	c.t.Helper()
	for _, sql := range sqls {
		if e := c.fails(sql); e != nil {
			c.t.Fatalf("%s: %v", sql, e)
		}
	}
}

// fails returns the ERR of a statement, nil if it succeeded.
func (c *rawClient) fails(sql string) *wire.ServerError {
	c.t.Helper()
	ps := c.query(sql)
	if p := ps[len(ps)-1]; p[0] == wire.HeaderERR {
		e, err := wire.ParseERR(p)
		if err != nil {
			c.t.Fatal(err)
		}
		return e
	}
	return nil
}
