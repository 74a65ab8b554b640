package proxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cohort/internal/wire"
)

// A script is lines of statements. A line may start with "2: " for another
// connection, "2> " to send without reading and "2< " to read what was sent; and
// with a "!" command instead of a statement:
//
//	!prepare SQL · !execute ID [args…] · !cursor ID · !fetch ID N · !close ID · !stmtreset ID
//	!ping · !reset · !initdb NAME · !statistics · !setoption N · !fields TABLE · !changeuser
//
// Lines that start with # are comments.

// normalise removes what no two runs have alike.
var normalise = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}:[0-9-]+`), "GTID"},
	{regexp.MustCompile(`\\x03.{1,4}\\x00.{1,4}GTID`), "TRACKED GTID"},
	{regexp.MustCompile(`statement handler \(\d+\)`), "statement handler (ID)"},
	{regexp.MustCompile(`Uptime: .*`), "STATISTICS"},
}

func show(ps [][]byte, caps wire.Capability) string {
	var b strings.Builder
	for _, p := range ps {
		s := fmt.Sprintf("%q", p)
		if len(p) > 0 && (p[0] == wire.HeaderOK || p[0] == wire.HeaderEOF && len(p) < 100000) {
			if ok, err := wire.ParseOK(p, caps); err == nil && len(p) >= 7 {
				if len(ok.Trackers) == 0 {
					// A state that changed and changed back leaves the flag alone.
					ok.Status &^= wire.StatusSessionStateChanged
				}
				s = fmt.Sprintf("OK(%#x) rows=%d id=%d status=%#x warnings=%d info=%q trackers=%q", p[0], ok.AffectedRows, ok.InsertID, ok.Status, ok.Warnings, ok.Info, ok.Trackers)
			}
		}
		for _, n := range normalise {
			s = n.re.ReplaceAllString(s, n.to)
		}
		b.WriteString("   " + s + "\n")
	}
	return b.String()
}

type scriptRun struct {
	t *testing.T
	// blocked waits until some statement waits for a row lock.
	blocked func()
	open    func() *rawClient
	conns   map[string]*rawClient
	ids     map[string]uint32
	queued  map[string][]queuedCommand
	infile  string
}

type queuedCommand struct{ code byte }

func (r *scriptRun) conn(name string) *rawClient {
	if r.conns[name] == nil {
		r.conns[name] = r.open()
	}
	return r.conns[name]
}

func (r *scriptRun) command(line string) (byte, []byte) {
	if !strings.HasPrefix(line, "!") {
		return wire.ComQuery, []byte(line)
	}
	verb, rest, _ := strings.Cut(line[1:], " ")
	id := func(s string) []byte { return binary.LittleEndian.AppendUint32(nil, r.ids[s]) }
	args := strings.Fields(rest)
	switch verb {
	case "prepare":
		return wire.ComStmtPrepare, []byte(rest)
	case "execute", "cursor":
		b := id(args[0])
		flag := byte(0)
		if verb == "cursor" {
			flag = 1
		}
		b = append(b, flag, 1, 0, 0, 0)
		if n := len(args) - 1; n > 0 {
			if r.conn("1").cl.Caps.Has(wire.QueryAttributes) {
				b = wire.AppendLenencInt(b, uint64(n))
			}
			b = append(b, make([]byte, (n+7)/8)...)
			b = append(b, 1)
			for range n {
				b = append(b, 0xfd, 0)
				if r.conn("1").cl.Caps.Has(wire.QueryAttributes) {
					b = append(b, 0) // the parameter's name
				}
			}
			for _, a := range args[1:] {
				b = wire.AppendLenencString(b, a)
			}
		}
		return wire.ComStmtExecute, b
	case "fetch":
		var n uint32
		fmt.Sscan(args[1], &n)
		return wire.ComStmtFetch, binary.LittleEndian.AppendUint32(id(args[0]), n)
	case "close":
		return wire.ComStmtClose, id(args[0])
	case "stmtreset":
		return wire.ComStmtReset, id(args[0])
	case "long":
		b := append(id(args[0]), 0, 0)
		return wire.ComStmtSendLongData, append(b, args[1]...)
	case "ping":
		return wire.ComPing, nil
	case "reset":
		return wire.ComResetConnection, nil
	case "initdb":
		return wire.ComInitDB, []byte(rest)
	case "statistics":
		return wire.ComStatistics, nil
	case "setoption":
		return wire.ComSetOption, []byte{args[0][0] - '0', 0}
	case "unknown":
		return 0x60, []byte(rest)
	}
	r.t.Fatalf("no such command: %s", line)
	return 0, nil
}

func (r *scriptRun) step(line string) string {
	name, mode := "1", byte(':')
	if len(line) >= 2 && line[0] >= '1' && line[0] <= '9' && strings.IndexByte(":><", line[1]) >= 0 {
		name, mode, line = line[:1], line[1], strings.TrimSpace(line[2:])
	}
	c := r.conn(name)
	var code byte
	if mode != '<' {
		var arg []byte
		code, arg = r.command(line)
		c.send(code, arg)
		if mode == '>' {
			r.queued[name] = append(r.queued[name], queuedCommand{code})
			r.blocked()
			return ""
		}
	} else {
		code = r.queued[name][0].code
		r.queued[name] = r.queued[name][1:]
	}
	if code == wire.ComStmtClose || code == wire.ComStmtSendLongData {
		return ""
	}
	ps, err := c.read(code, r.infile)
	if code == wire.ComStmtPrepare && err == nil && ps[0][0] == 0 {
		r.ids[fmt.Sprint(len(r.ids)+1)] = binary.LittleEndian.Uint32(ps[0][1:])
		binary.LittleEndian.PutUint32(ps[0][1:], uint32(len(r.ids)))
	}
	out := show(ps, c.cl.Caps)
	if err != nil {
		out += fmt.Sprintf("   connection: %v\n", err)
	}
	return out
}

// hideMiddle leaves out the status flags of EOF packets that are not the last
// packet: the server sends those behind column definitions, where the proxy,
// whose backend leg has none, does not know all of them yet.
func hideMiddle(s string) string {
	lines := strings.SplitAfter(s, "\n")
	last := len(lines) - 2
	if strings.HasPrefix(s, "   OK(0x0) rows=") && strings.Contains(s, "\\x03def") {
		last++ // COM_STMT_PREPARE ends with definitions
	}
	for i := range max(0, last) {
		if strings.HasPrefix(lines[i], `   "\xfe\x`) {
			lines[i] = "   EOF\n"
		}
	}
	return strings.Join(lines, "")
}

// scripts reads testdata/same/*.sql.
func scripts(t *testing.T) map[string][]string {
	files, err := filepath.Glob("testdata/same/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	all := map[string][]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(f), ".sql")
		for line := range strings.SplitSeq(string(b), "\n") {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				all[name] = append(all[name], line)
			}
		}
	}
	return all
}

// TestSameAnswer runs every script against mysqld itself and through the proxy,
// and compares the packets.
func TestSameAnswer(t *testing.T) {
	g := newRig(t, nil)
	g.db.SQL(t, "SET GLOBAL local_infile=1")
	sameAnswers(t, g, []variant{
		{"modern", wire.MultiStatements | wire.LocalFiles, 0},
		{"legacy", wire.MultiStatements | wire.LocalFiles, wire.DeprecateEOF | wire.SessionTrack},
		{"attributes", wire.MultiStatements | wire.LocalFiles | wire.QueryAttributes | wire.FoundRows, 0},
	})
}

// restless is a group whose primary moves, to the same server, after sessions
// logged in: they are rebuilt before they run anything.
type restless struct {
	*soloGroup
	n atomic.Uint64
}

func (g *restless) Primary(ctx context.Context) (Backend, error) {
	b, err := g.soloGroup.Primary(ctx)
	b.Epoch = g.n.Add(1)
	return b, err
}

func (g *restless) Moved(b Backend) bool { return b.Epoch%2 == 1 }

// TestSameAnswerElsewhere is TestSameAnswer with sessions that were moved.
func TestSameAnswerElsewhere(t *testing.T) {
	g := newRig(t, func(o *Options) { o.Group = &restless{soloGroup: o.Group.(*soloGroup)} })
	g.db.SQL(t, "SET GLOBAL local_infile=1")
	// The proxy learns the password while mysqld has not cached the account.
	g.client(t, false, "plain", 0, 0).must("SELECT 1")
	sameAnswers(t, g, []variant{
		{"legacy", wire.MultiStatements | wire.LocalFiles, wire.DeprecateEOF | wire.SessionTrack},
		{"attributes", wire.MultiStatements | wire.LocalFiles | wire.QueryAttributes | wire.FoundRows, 0},
	})
	if g.srv.Rebuilt() == 0 {
		t.Error("no session was moved")
	}
}

type variant struct {
	name       string
	caps, drop wire.Capability
}

func sameAnswers(t *testing.T, g *rig, variants []variant) {
	for name, lines := range scripts(t) {
		for _, v := range variants {
			t.Run(name+"/"+v.name, func(t *testing.T) {
				run := func(direct bool) []string {
					g.db.SQL(t, "DROP SCHEMA plain", "CREATE SCHEMA plain")
					r := &scriptRun{t: t, conns: map[string]*rawClient{}, ids: map[string]uint32{}, queued: map[string][]queuedCommand{},
						infile: "101\tfile\n102\tfile\n"}
					r.blocked = func() {
						deadline := time.Now().Add(60 * time.Second)
						for g.db.Value(t, "SELECT COUNT(*) FROM performance_schema.data_lock_waits") == "0" {
							if time.Now().After(deadline) {
								t.Fatal("the statement does not wait")
							}
						}
					}
					r.open = func() *rawClient { return g.client(t, direct, "plain", v.caps, v.drop) }
					var out []string
					for _, line := range lines {
						out = append(out, r.step(line))
					}
					for _, c := range r.conns {
						_ = c.cl.Quit()
					}
					return out
				}
				want, got := run(true), run(false)
				for i, line := range lines {
					if v.drop.Has(wire.DeprecateEOF) {
						want[i], got[i] = hideMiddle(want[i]), hideMiddle(got[i])
					}
					if want[i] != got[i] {
						t.Errorf("%s\n mysqld:\n%s proxy:\n%s", line, want[i], got[i])
					}
				}
			})
		}
	}
	g.nothingPrepared(t)
}
