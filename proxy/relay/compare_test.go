package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"cohort/internal/mysqldtest"
	"cohort/internal/wire"
)

// recorded is one packet from the server.
type recorded struct {
	seq     byte
	payload []byte
}

// step is one command of a script; file answers a request for a local file.
type step struct {
	name    string
	payload []byte
	file    []byte
	silent  bool // the command has no response
}

func query(caps wire.Capability, sql string) step {
	p := []byte{wire.ComQuery}
	if caps.Has(wire.QueryAttributes) {
		p = append(p, 0, 1)
	}
	return step{name: sql, payload: append(p, sql...)}
}

// record runs steps and returns each one's packets. COM_STATISTICS, whose answer
// cannot be mistaken, marks where a response ends.
func record(t *testing.T, cl *wire.Client, steps []step) [][]recorded {
	t.Helper()
	c := cl.Conn
	var all [][]recorded
	for _, st := range steps {
		if err := wire.WriteCommand(c, st.payload[0], st.payload[1:]); err != nil {
			t.Fatal(err)
		}
		if st.file == nil {
			if err := wire.WriteCommand[string](c, wire.ComStatistics); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		var got []recorded
		for {
			c.NetConn().SetReadDeadline(time.Now().Add(time.Minute))
			p, err := c.ReadPacket(1 << 26)
			if err != nil {
				t.Fatalf("%s: %v after %d packets", st.name, err, len(got))
			}
			if bytes.HasPrefix(p, []byte("Uptime:")) {
				break
			}
			got = append(got, recorded{c.Seq - 1, bytes.Clone(p)})
			if p[0] == wire.HeaderLocalFile && st.file != nil {
				for _, f := range [][]byte{st.file, nil} {
					if err := c.WritePacket(f); err != nil {
						t.Fatal(err)
					}
				}
				if err := wire.WriteCommand[string](c, wire.ComStatistics); err != nil {
					t.Fatal(err)
				}
				if err := c.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		all = append(all, got)
	}
	return all
}

func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

func cmd(code byte, args ...[]byte) []byte {
	return append([]byte{code}, bytes.Join(args, nil)...)
}

// execute is a COM_STMT_EXECUTE with one string parameter.
func execute(caps wire.Capability, id uint32, flags byte, params ...string) []byte {
	p := cmd(wire.ComStmtExecute, le32(id), []byte{flags}, le32(1))
	if len(params) == 0 {
		return p
	}
	p = append(p, 0, 1)
	for range params {
		p = append(p, wire.TypeVarString, 0)
	}
	for _, v := range params {
		p = wire.AppendLenencString(p, v)
	}
	return p
}

func script(caps wire.Capability) []step {
	var s []step
	q := func(sql string) { s = append(s, query(caps, sql)) }
	raw := func(name string, p []byte) { s = append(s, step{name: name, payload: p}) }
	q("DROP TABLE IF EXISTS cmp")
	q("CREATE TABLE cmp (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(50), u INT, KEY(u))")
	q("INSERT INTO cmp(v,u) VALUES ('a',1),('b',2),(NULL,3)")
	q("UPDATE cmp SET v='z' WHERE id=2")
	q("SELECT * FROM cmp")
	q("SELECT * FROM cmp WHERE v='z'")
	q("SELECT * FROM cmp WHERE 0")
	q("BEGIN")
	q("SELECT id FROM cmp")
	q("INSERT INTO cmp(v) VALUES ('tx')")
	q("SELECT COUNT(*) FROM cmp")
	q("SAVEPOINT a")
	q("INSERT INTO cmp(id) VALUES (1)")
	q("ROLLBACK TO a")
	q("COMMIT")
	q("SET autocommit=0")
	q("SELECT id FROM cmp LIMIT 1")
	q("COMMIT")
	q("SET autocommit=1")
	q("START TRANSACTION READ ONLY")
	q("SELECT 1")
	q("ROLLBACK")
	q("SELECT CAST('abc' AS SIGNED)")
	q("SHOW WARNINGS")
	q("syntax error")
	q("SELECT * FROM missing")
	q("SET sql_mode='NO_BACKSLASH_ESCAPES'")
	q("SELECT 1")
	q("SET sql_mode=DEFAULT")
	q("SET NAMES latin1")
	q("USE mysql")
	q("USE d")
	q("SET SESSION session_track_transaction_info='CHARACTERISTICS', session_track_gtids=OWN_GTID, session_track_state_change=1")
	q("BEGIN")
	q("SELECT COUNT(*) FROM cmp")
	q("ROLLBACK")
	q("SET SESSION session_track_transaction_info=DEFAULT, session_track_gtids=DEFAULT, session_track_state_change=DEFAULT")
	q("CALL p()")
	q("SELECT 1; INSERT INTO cmp(v) VALUES ('m'); SELECT 2, 3; SELECT * FROM missing; SELECT 4")
	q("SELECT 1; SELECT v FROM cmp; DO 1")
	q("SELECT 1 FROM cmp WHERE id=(SELECT id FROM cmp)")
	q("SELECT v, (SELECT id FROM cmp c WHERE c.id<cmp.id+2) FROM cmp")
	q("SELECT REPEAT('x', 70000) UNION ALL SELECT REPEAT('y', 300000)")
	q("SELECT a.v, b.v, REPEAT('q', 900) FROM cmp a, cmp b, cmp c, cmp d LIMIT 100")
	q("")
	q("FLUSH TABLES")
	q("SHOW TABLES")
	q("EXPLAIN FORMAT=TRADITIONAL SELECT 1")
	q("LOCK TABLES cmp READ")
	q("UNLOCK TABLES")
	s = append(s, step{name: "LOAD DATA LOCAL", payload: query(caps, "LOAD DATA LOCAL INFILE 'x' INTO TABLE cmp").payload, file: []byte("900\ta\t1\n901\tb\t2\n901\tc\t3\n")})
	raw("PING", cmd(wire.ComPing))
	raw("INIT_DB", cmd(wire.ComInitDB, []byte("d")))
	raw("INIT_DB missing", cmd(wire.ComInitDB, []byte("missing")))
	raw("FIELD_LIST", cmd(wire.ComFieldList, []byte("cmp\x00%")))
	raw("FIELD_LIST missing", cmd(wire.ComFieldList, []byte("nope\x00")))
	raw("SET_OPTION off", cmd(wire.ComSetOption, []byte{1, 0}))
	q("SELECT 1; SELECT 2")
	raw("SET_OPTION on", cmd(wire.ComSetOption, []byte{0, 0}))
	q("SELECT 1; SELECT 2")
	raw("SET_OPTION bad", cmd(wire.ComSetOption, []byte{9, 0}))
	raw("PROCESS_KILL", cmd(wire.ComProcessKill, le32(1<<30)))
	raw("DEBUG", cmd(wire.ComDebug))
	raw("unknown", cmd(0x77))
	raw("SLEEP", cmd(wire.ComSleep))
	raw("TIME", cmd(wire.ComTime))
	raw("PREPARE", cmd(wire.ComStmtPrepare, []byte("SELECT ?, v FROM cmp ORDER BY id LIMIT 5"))) // 1
	raw("PREPARE", cmd(wire.ComStmtPrepare, []byte("INSERT INTO cmp(v) VALUES (?)")))            // 2
	raw("PREPARE", cmd(wire.ComStmtPrepare, []byte("CALL p()")))                                 // 3
	raw("PREPARE", cmd(wire.ComStmtPrepare, []byte("DO 1")))                                     // 4
	raw("PREPARE bad", cmd(wire.ComStmtPrepare, []byte("SELECT ? FROM missing")))                //
	raw("EXECUTE", execute(caps, 1, 0, "par"))
	raw("EXECUTE", execute(caps, 2, 0, "ins"))
	raw("EXECUTE", execute(caps, 3, 0))
	raw("EXECUTE", execute(caps, 4, 0))
	raw("EXECUTE missing", execute(caps, 99, 0))
	raw("EXECUTE cursor", execute(caps, 1, 1, "cur"))
	raw("FETCH 2", cmd(wire.ComStmtFetch, le32(1), le32(2)))
	raw("FETCH 100", cmd(wire.ComStmtFetch, le32(1), le32(100)))
	raw("FETCH after end", cmd(wire.ComStmtFetch, le32(1), le32(1)))
	s = append(s, step{name: "LONG_DATA", payload: cmd(wire.ComStmtSendLongData, le32(2), []byte{0, 0}, []byte("long")), silent: true})
	s = append(s, step{name: "LONG_DATA", payload: cmd(wire.ComStmtSendLongData, le32(2), []byte{0, 0}, []byte("er")), silent: true})
	raw("EXECUTE long", append(cmd(wire.ComStmtExecute, le32(2), []byte{0}, le32(1)), 0, 1, wire.TypeVarString, 0))
	raw("STMT_RESET", cmd(wire.ComStmtReset, le32(1)))
	raw("STMT_RESET missing", cmd(wire.ComStmtReset, le32(77)))
	s = append(s, step{name: "CLOSE", payload: cmd(wire.ComStmtClose, le32(4)), silent: true})
	raw("EXECUTE closed", execute(caps, 4, 0))
	raw("RESET_CONNECTION", cmd(wire.ComResetConnection))
	q("SELECT v FROM d.cmp ORDER BY id")
	q("DROP TABLE d.cmp")
	return s
}

// timeless leaves out what relay cannot know yet when it ends the definitions of
// a long or failing result for a client that wants an EOF there: whether an index
// was used.
func timeless(p []byte) []byte {
	if len(p) == 5 && p[0] == wire.HeaderEOF {
		p = bytes.Clone(p)
		p[3] &^= byte(wire.StatusNoIndexUsed | wire.StatusNoGoodIndexUsed)
	}
	return p
}

func describe(p recorded) string {
	s := fmt.Sprintf("#%d %d bytes ", p.seq, len(p.payload))
	return s + strings.ToValidUTF8(fmt.Sprintf("%q", p.payload[:min(len(p.payload), 120)]), "?")
}

// testSamePackets runs one script directly and through relay, for clients of
// several kinds, and compares every packet.
func testSamePackets(t *testing.T, s *mysqldtest.Server) {
	p := startPassthrough(t, "tcp", Options{}, dialTo("unix", s.Socket))
	common := wire.LongPassword | wire.LongFlag | wire.Transactions | wire.MultiStatements |
		wire.MultiResults | wire.PSMultiResults | wire.LocalFiles | wire.PluginAuth
	kinds := map[string]wire.Capability{
		"modern":       common | wire.SessionTrack | wire.DeprecateEOF | wire.QueryAttributes,
		"no trackers":  common | wire.DeprecateEOF,
		"no eof":       common | wire.SessionTrack,
		"old":          common,
		"metadata":     common | wire.SessionTrack | wire.DeprecateEOF | wire.OptionalResultsetMetadata,
		"found rows":   common | wire.FoundRows | wire.IgnoreSpace | wire.Interactive,
		"old metadata": common | wire.OptionalResultsetMetadata,
	}
	for name, caps := range kinds {
		t.Run(name, func(t *testing.T) {
			steps := script(caps)
			if caps.Has(wire.OptionalResultsetMetadata) {
				extra := []step{query(caps, "SET resultset_metadata=NONE"), query(caps, "SELECT 1"), query(caps, "SELECT id FROM d.t WHERE 0"),
					{name: "PREPARE none", payload: cmd(wire.ComStmtPrepare, []byte("SELECT ?, 2"))},
					query(caps, "SET resultset_metadata=FULL")}
				steps = append(extra, steps...)
			}
			run := func(network, addr string) [][]recorded {
				cl, err := wire.Dial(context.Background(), wire.Config{
					Network: network, Addr: addr, User: "csha", Password: "secret one", ExactCaps: caps})
				if err != nil {
					t.Fatal(err)
				}
				defer cl.Close()
				if _, err := cl.Exec(context.Background(), "USE d"); err != nil {
					t.Fatal(err)
				}
				if _, err := cl.Exec(context.Background(), "DELETE FROM t"); err != nil {
					t.Fatal(err)
				}
				return record(t, cl, steps)
			}
			direct := run("unix", s.Socket)
			via := run("tcp", p.addr)
			for i := range steps {
				compare(t, steps[i].name, direct[i], via[i])
			}
			p.noErrors(t)
		})
	}
}

func compare(t *testing.T, name string, direct, via []recorded) {
	t.Helper()
	same := len(direct) == len(via)
	for j := 0; same && j < len(direct); j++ {
		same = direct[j].seq == via[j].seq && bytes.Equal(timeless(direct[j].payload), timeless(via[j].payload))
	}
	if same || strings.Contains(name, "GTID") {
		return
	}
	t.Errorf("%s: packets differ", name)
	shown := 0
	for j := 0; j < max(len(direct), len(via)) && shown < 3; j++ {
		d, v := "-", "-"
		if j < len(direct) {
			d = describe(direct[j])
		}
		if j < len(via) {
			v = describe(via[j])
		}
		if d != v {
			t.Logf("  direct %s\n  relay  %s", d, v)
			shown++
		}
	}
}
