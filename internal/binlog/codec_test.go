package binlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"
	"pgregory.net/rapid"
)

var testUUID = UUID{0xaa, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xff}

// parse has an independent implementation read one of our events.
func parse[E replication.Event](t interface{ Fatalf(string, ...any) }, ev []byte) (*replication.EventHeader, E) {
	p := replication.NewBinlogParser()
	p.SetVerifyChecksum(true)
	if _, err := p.Parse(AppendFormatDescription(nil, 0, "9.7.4", 0)); err != nil {
		t.Fatalf("format description: %v", err)
	}
	e, err := p.Parse(ev)
	if err != nil {
		t.Fatalf("% x: %v", ev, err)
	}
	body, ok := e.Event.(E)
	if !ok {
		t.Fatalf("parsed as %T", e.Event)
	}
	return e.Header, body
}

func drawGTID(t *rapid.T) GTID {
	g := GTID{
		Flags: rapid.Byte().Draw(t, "flags"), UUID: testUUID,
		GNO:                      rapid.Int64Range(1, maxGNO).Draw(t, "gno"),
		LastCommitted:            rapid.Int64Min(0).Draw(t, "last committed"),
		SequenceNumber:           rapid.Int64Min(0).Draw(t, "sequence"),
		ImmediateCommitTimestamp: rapid.Uint64Max(maxTimestampMicros).Draw(t, "immediate"),
		TransactionLength:        rapid.Uint64Max(1<<34).Draw(t, "length"),
		ImmediateServerVersion:   rapid.Uint32Max(versionHasOriginal-1).Draw(t, "version"),
	}
	g.OriginalCommitTimestamp, g.OriginalServerVersion = g.ImmediateCommitTimestamp, g.ImmediateServerVersion
	if rapid.Bool().Draw(t, "other timestamp") {
		g.OriginalCommitTimestamp = rapid.Uint64Max(maxTimestampMicros).Draw(t, "original")
	}
	if rapid.Bool().Draw(t, "other version") {
		g.OriginalServerVersion = rapid.Uint32Max(versionHasOriginal-1).Draw(t, "original version")
	}
	if rapid.Bool().Draw(t, "ticket") {
		g.CommitGroupTicket = rapid.Uint64().Draw(t, "ticket number")
	}
	return g
}

func TestGTIDRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGTID(t)
		ts := rapid.Uint32().Draw(t, "timestamp")
		ev := AppendGTID([]byte{1, 2}, ts, &g)[2:]
		if len(ev) != EncodedGTIDSize(&g) {
			t.Fatalf("%d bytes, promised %d", len(ev), EncodedGTIDSize(&g))
		}
		if err := VerifyChecksum(ev); err != nil {
			t.Fatal(err)
		}
		got, err := DecodeGTID(ev[:len(ev)-ChecksumSize])
		if err != nil || got != g {
			t.Fatalf("got  %+v (%v)\nwant %+v", got, err, g)
		}
		h, other := parse[*replication.GTIDEvent](t, ev)
		if h.Timestamp != ts || h.ServerID != RenderedServerID || h.LogPos != 0 || int(h.EventSize) != len(ev) ||
			other.GNO != g.GNO || !bytes.Equal(other.SID, g.UUID[:]) || other.CommitFlag != g.Flags ||
			other.LastCommitted != g.LastCommitted || other.SequenceNumber != g.SequenceNumber ||
			other.ImmediateCommitTimestamp != g.ImmediateCommitTimestamp || other.OriginalCommitTimestamp != g.OriginalCommitTimestamp ||
			other.TransactionLength != g.TransactionLength ||
			other.ImmediateServerVersion != g.ImmediateServerVersion || other.OriginalServerVersion != g.OriginalServerVersion {
			t.Fatalf("parsed elsewhere as %+v %+v, want %+v", h, other, g)
		}
		if err := PatchGTIDClock(ev, 41, 42); err != nil {
			t.Fatal(err)
		}
		g.LastCommitted, g.SequenceNumber = 41, 42
		if !bytes.Equal(ev, AppendGTID(nil, ts, &g)) {
			t.Fatal("patched event differs from an encoded one")
		}
	})
}

// appendTagged encodes the tagged form, for tests only.
func appendTagged(g *GTID) []byte {
	var f []byte
	varlen := func(v uint64) {
		for n := 1; n <= 8; n++ {
			if v < 1<<(7*n) {
				var b [8]byte
				binary.LittleEndian.PutUint64(b[:], v<<n|(1<<(n-1)-1))
				f = append(f, b[:n]...)
				return
			}
		}
		f = binary.LittleEndian.AppendUint64(append(f, 0xff), v)
	}
	signed := func(v int64) {
		if v < 0 {
			varlen(uint64(^v)<<1 | 1)
		} else {
			varlen(uint64(v) << 1)
		}
	}
	varlen(fieldGTIDFlags)
	varlen(uint64(g.Flags))
	varlen(fieldUUID)
	for _, b := range g.UUID {
		varlen(uint64(b))
	}
	varlen(fieldGNO)
	signed(g.GNO)
	varlen(fieldTag)
	varlen(uint64(len(g.Tag)))
	f = append(f, g.Tag...)
	varlen(fieldLastCommitted)
	signed(g.LastCommitted)
	varlen(fieldSequenceNumber)
	signed(g.SequenceNumber)
	varlen(fieldImmediateTimestamp)
	varlen(g.ImmediateCommitTimestamp)
	if g.OriginalCommitTimestamp != g.ImmediateCommitTimestamp {
		varlen(fieldOriginalTimestamp)
		varlen(g.OriginalCommitTimestamp)
	}
	varlen(fieldTransactionLength)
	varlen(g.TransactionLength)
	varlen(fieldImmediateVersion)
	varlen(uint64(g.ImmediateServerVersion))
	if g.OriginalServerVersion != g.ImmediateServerVersion {
		varlen(fieldOriginalVersion)
		varlen(uint64(g.OriginalServerVersion))
	}
	if g.CommitGroupTicket != 0 {
		varlen(fieldCommitGroupTicket)
		varlen(g.CommitGroupTicket)
	}
	fields := f
	f = nil
	varlen(1)
	varlen(uint64(len(fields) + 3))
	varlen(fieldOriginalVersion)
	ev := AppendHeader(nil, Header{Type: TypeGTIDTagged, Size: uint32(HeaderSize + len(f) + len(fields))})
	return append(append(ev, f...), fields...)
}

func TestTaggedGTID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGTID(t)
		g.Tag = rapid.StringMatching(`[a-z_][a-z0-9_]{0,31}`).Draw(t, "tag")
		got, err := DecodeGTID(appendTagged(&g))
		if err != nil || got != g {
			t.Fatalf("got  %+v (%v)\nwant %+v", got, err, g)
		}
	})
}

func TestQueryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := Query{
			ThreadID: rapid.Uint32().Draw(t, "thread"), ExecTime: rapid.Uint32().Draw(t, "time"),
			ErrorCode:  rapid.Uint16().Draw(t, "error"),
			StatusVars: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "status"),
			Schema:     rapid.SliceOfN(rapid.ByteRange(1, 255), 0, 64).Draw(t, "schema"),
			SQL:        rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "sql"),
		}
		ev, err := AppendQuery(nil, 7, 8, &q)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseQuery(ev[:len(ev)-ChecksumSize])
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(q) {
			t.Fatalf("got  %v\nwant %v", got, q)
		}
		h, other := parse[*replication.QueryEvent](t, ev)
		if h.Timestamp != 7 || h.Flags != 8 || !bytes.Equal(other.Query, q.SQL) || !bytes.Equal(other.Schema, q.Schema) ||
			!bytes.Equal(other.StatusVars, q.StatusVars) || other.SlaveProxyID != q.ThreadID || other.ErrorCode != q.ErrorCode {
			t.Fatalf("parsed elsewhere as %+v %+v", h, other)
		}
	})
	if _, err := AppendQuery(nil, 0, 0, &Query{Schema: make([]byte, 256)}); !errors.Is(err, ErrMalformed) {
		t.Errorf("long schema name: %v", err)
	}
}

func TestControlEvents(t *testing.T) {
	fde := AppendFormatDescription(nil, 5, "9.7.4-test", FlagInUse)
	desc, err := ParseFormatDescription(fde)
	if err != nil || desc.ServerVersion != "9.7.4-test" || !desc.Checksums || desc.Created != 0 || VerifyChecksum(fde) != nil {
		t.Fatalf("format description %+v: %v", desc, err)
	}
	p := replication.NewBinlogParser()
	p.SetVerifyChecksum(true)
	if e, err := p.Parse(fde); err != nil {
		t.Fatal(err)
	} else if f := e.Event.(*replication.FormatDescriptionEvent); f.ServerVersion != "9.7.4-test" || f.ChecksumAlgorithm != replication.BINLOG_CHECKSUM_ALG_CRC32 {
		t.Fatalf("parsed elsewhere as %+v", f)
	}

	h, rot := parse[*replication.RotateEvent](t, AppendRotate(nil, "file.000001", 4))
	if string(rot.NextLogName) != "file.000001" || rot.Position != 4 || h.Flags != FlagArtificial || h.Timestamp != 0 {
		t.Errorf("rotate %+v %+v", h, rot)
	}
	ev := AppendRotate(nil, "file.000001", 4)
	if file, pos, err := ParseRotate(ev[:len(ev)-4]); file != "file.000001" || pos != 4 || err != nil {
		t.Errorf("rotate %s %d %v", file, pos, err)
	}
	_, hb := parse[*replication.HeartbeatEvent](t, AppendHeartbeat(nil, "file.000001", 5_000_000_000))
	if hb.Filename != "file.000001" || hb.Offset != 5_000_000_000 {
		t.Errorf("heartbeat %+v", hb)
	}
	ev = AppendXID(nil, 9, 1<<40)
	if _, x := parse[*replication.XIDEvent](t, ev); x.XID != 1<<40 || len(ev) != XIDSize {
		t.Errorf("xid %d", x.XID)
	}
	if x, err := ParseXID(ev[:len(ev)-4]); x != 1<<40 || err != nil {
		t.Errorf("xid %d %v", x, err)
	}
}

func TestGTIDSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set GTIDSet
		for i := range rapid.IntRange(0, 4).Draw(t, "entries") {
			e := GTIDSetEntry{UUID: UUID{byte(i / 2), 1}}
			if i%2 == 1 {
				e.Tag = fmt.Sprintf("tag%d", i)
			}
			n := uint64(0)
			for range rapid.IntRange(1, 5).Draw(t, "intervals") {
				from := n + rapid.Uint64Range(2, 5).Draw(t, "gap")
				n = from + rapid.Uint64Range(0, 5).Draw(t, "length")
				e.Intervals = append(e.Intervals, Interval{from, n})
			}
			set = append(set, e)
		}
		enc := AppendGTIDSet(nil, set)
		got, err := ParseGTIDSet(enc)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(set) {
			t.Fatalf("got %v (%v), want %v", got, err, set)
		}
		ev := AppendPreviousGTIDs(nil, 0, set)
		_, other := parse[*replication.PreviousGTIDsEvent](t, ev)
		if len(set) > 0 && other.GTIDSets == "" {
			t.Fatal("parsed elsewhere as empty")
		}
		if back, err := ParsePreviousGTIDs(ev[:len(ev)-4]); err != nil || back.String() != set.String() {
			t.Fatalf("%v %v", back, err)
		}
		for _, e := range set {
			in := got.Of(e.UUID, e.Tag)
			for n := uint64(0); n < in.Max()+3; n++ {
				want := false
				for _, iv := range e.Intervals {
					want = want || iv.Start <= n && n <= iv.End
				}
				if in.Contains(n) != want {
					t.Fatalf("%v contains %d: %v", e.Intervals, n, !want)
				}
			}
		}
		for i := range enc { // every prefix is an error or was not needed
			if _, err := ParseGTIDSet(enc[:i]); err == nil {
				t.Fatalf("prefix of %d bytes of %d is accepted", i, len(enc))
			}
		}
	})
	joined, err := ParseGTIDSet(AppendGTIDSet(nil, GTIDSet{
		{UUID: testUUID, Intervals: Intervals{{5, 6}, {1, 2}}}, {UUID: testUUID, Intervals: Intervals{{3, 4}, {9, 9}}},
	}))
	if err != nil || joined.String() != testUUID.String()+":1-6:9" || joined[0].Intervals.Low() != 6 || joined[0].Intervals.Max() != 9 {
		t.Fatalf("joined %s %v", joined, err)
	}
}

func TestUUID(t *testing.T) {
	u, err := ParseUUID("AABB0102-0304-0506-0708-090a0b0c0dff")
	if err != nil || u != testUUID || u.String() != "aabb0102-0304-0506-0708-090a0b0c0dff" {
		t.Fatalf("%s %v", u, err)
	}
	for _, bad := range []string{"", "aabb0102-0304-0506-0708-090a0b0c0df", "aabb0102030405060708090a0b0c0dff----", "gabb0102-0304-0506-0708-090a0b0c0dff"} {
		if _, err := ParseUUID(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func testBody(t testing.TB, size int) []byte {
	t.Helper()
	b, err := AppendBegin(nil, 1, &Query{Schema: []byte("d"), SQL: []byte("XA START"), ExecTime: 3})
	if err != nil {
		t.Fatal(err)
	}
	if b, err = AppendQuery(b, 1, 0, &Query{SQL: bytes.Repeat([]byte{'x'}, size)}); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCheckBodyFindsEveryFlip(t *testing.T) {
	body := testBody(t, 40)
	if err := CheckBody(body); err != nil {
		t.Fatal(err)
	}
	_, rest, err := NextEvent(body)
	if err != nil {
		t.Fatal(err)
	}
	first := len(body) - len(rest) // cut there, it is a body of one event
	for i := range body {
		bad := bytes.Clone(body)
		bad[i] ^= 1
		if CheckBody(bad) == nil {
			t.Errorf("flip at %d is accepted", i)
		}
		if i != first && CheckBody(body[:i]) == nil {
			t.Errorf("cut at %d is accepted", i)
		}
	}
	for name, bad := range map[string][]byte{
		"empty": {}, "GTID event": AppendGTID(nil, 0, &GTID{}), "rotate": AppendRotate(nil, "x", 4),
	} {
		if CheckBody(bad) == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	// Written in pieces of any size the verdict is the same.
	for piece := 1; piece < len(body); piece++ {
		c := BodyChecker{Checksums: true}
		for b := body; len(b) > 0; b = b[min(piece, len(b)):] {
			if _, err := c.Write(b[:min(piece, len(b))]); err != nil {
				t.Fatalf("pieces of %d: %v", piece, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatalf("pieces of %d: %v", piece, err)
		}
	}
}

func TestRenderedTransaction(t *testing.T) {
	for _, size := range []int{0, 50, 120, 130, 65300, 65400, 65500, 1 << 24} {
		for _, kind := range []Kind{KindTransaction, KindStatement} {
			m := Meta{Kind: kind, GTIDFlags: 1, OriginalCommitTimestamp: 123456, OriginalServerVersion: 90704, Timestamp: 99}
			body := testBody(t, size)
			tx := Transaction{Group: testUUID, N: 17, LastCommitted: 3, SequenceNumber: 5}
			raw := AppendTransaction(nil, tx, m, body)
			ev, rest, err := NextEvent(raw)
			if err != nil {
				t.Fatal(err)
			}
			g, err := DecodeGTID(ev[:len(ev)-4])
			if err != nil || g.TransactionLength != uint64(len(raw)) || g.GNO != 17 || g.OriginalCommitTimestamp != 123456 || g.ImmediateCommitTimestamp != 123456 {
				t.Fatalf("%+v of %d bytes: %v", g, len(raw), err)
			}
			if err := CheckBody(rest); err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(rest, body) || (len(rest) == len(body)+XIDSize) != (kind == KindTransaction) {
				t.Fatalf("%d bytes behind the GTID event, body has %d", len(rest), len(body))
			}
			if !bytes.Equal(raw, AppendTransaction(nil, tx, m, body)) {
				t.Fatal("not deterministic")
			}
		}
	}
}

func TestRewrite(t *testing.T) {
	own := testBody(t, 10)
	ev, _, _ := NextEvent(own)
	foreign := bytes.Clone(ev)
	SetHeader(foreign, 5, 1234)
	FixChecksum(foreign)
	got, err := Rewrite(nil, foreign, true)
	if err != nil || !bytes.Equal(got, ev) {
		t.Fatalf("with checksum: %v", err)
	}
	plain := bytes.Clone(foreign[:len(foreign)-4])
	SetSize(plain, uint32(len(plain)))
	if got, err = Rewrite(nil, plain, false); err != nil || !bytes.Equal(got, ev) {
		t.Fatalf("without checksum: %v", err)
	}
	if _, err := Rewrite(nil, foreign[:len(foreign)-1], true); !errors.Is(err, ErrMalformed) {
		t.Fatalf("wrong size: %v", err)
	}
}
