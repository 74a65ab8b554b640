package capture

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/klauspost/compress/zstd"

	"cohort/internal/binlog"
)

// event makes an event without checksum.
func event(typ binlog.Type, body []byte) []byte {
	ev := binlog.AppendHeader(nil, binlog.Header{Type: typ, ServerID: 1, Size: uint32(binlog.HeaderSize + len(body))})
	return append(ev, body...)
}

func queryEvent(sql string) []byte {
	ev, err := binlog.AppendQuery(nil, 0, 0, &binlog.Query{SQL: []byte(sql), Schema: []byte("d")})
	if err != nil {
		panic(err)
	}
	ev = ev[:len(ev)-binlog.ChecksumSize]
	binlog.SetSize(ev, uint32(len(ev)))
	return ev
}

func gtidEvent(gno int64) []byte {
	ev := binlog.AppendGTID(nil, 0, &binlog.GTID{UUID: binlog.UUID{1}, GNO: gno})
	ev = ev[:len(ev)-binlog.ChecksumSize]
	binlog.SetSize(ev, uint32(len(ev)))
	return ev
}

func xaPrepareEvent(gtrid string, onePhase byte) []byte {
	b := []byte{onePhase, 1, 0, 0, 0}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(gtrid)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	return event(binlog.TypeXAPrepare, append(b, gtrid...))
}

func rowEvents() []byte {
	tableMap := []byte{1, 0, 0, 0, 0, 0, 1, 0, 1, 'd', 0, 1, 't', 0, 1, 3, 0, 0}
	rows := []byte{1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 0xff, 0, 7, 0, 0, 0}
	return append(event(binlog.TypeTableMap, tableMap), event(binlog.TypeWriteRows, rows)...)
}

func smallTransaction(xid string) []byte {
	b := gtidEvent(5)
	b = append(b, queryEvent("XA START X'636f686f72742e61',X'',1")...)
	b = append(b, rowEvents()...)
	b = append(b, queryEvent("XA END X'636f686f72742e61',X'',1")...)
	return append(b, xaPrepareEvent(xid, 0)...)
}

func testAssembler(t testing.TB, sink func(Captured) error) *assembler {
	group, err := binlog.ParseUUID(testGroup)
	if err != nil {
		t.Fatal(err)
	}
	a := newAssembler(&Options{Extractor: &tally{}}, group, func() int64 { return 1 << 20 })
	a.sink = sink
	return a
}

// feedAll splits b into events and hands them on until one is refused.
func feedAll(a *assembler, b []byte) error {
	for len(b) > 0 {
		ev, rest, err := binlog.NextEvent(b)
		if err != nil {
			return err
		}
		if err := a.handle(context.Background(), append([]byte(nil), ev...)); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// FuzzStream: no stream of events makes the assembler panic, and what it
// delivers has a well-formed body.
func FuzzStream(f *testing.F) {
	f.Add(smallTransaction("cohort.a"))
	f.Add(append(append(gtidEvent(1), queryEvent("BEGIN")...), append(rowEvents(), event(binlog.TypeXID, make([]byte, 8))...)...))
	f.Add(append(gtidEvent(2), queryEvent("CREATE TABLE t (a INT)")...))
	f.Add(append(gtidEvent(3), queryEvent("XA COMMIT X'61',X'',1")...))
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	inner := append(queryEvent("BEGIN"), append(rowEvents(), event(binlog.TypeXID, make([]byte, 8))...)...)
	packed := enc.EncodeAll(inner, nil)
	body := append([]byte{payloadCompression, 1, compressionZstd, payloadSize, byte(len(packed)), payloadEnd}, packed...)
	f.Add(append(gtidEvent(4), event(binlog.TypeTransactionPayload, body)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := testAssembler(t, func(c Captured) error {
			if c.Body != nil {
				if err := binlog.CheckBody(c.Body.Bytes()); err != nil {
					t.Errorf("%s: %v", c.Kind, err)
				}
			}
			return c.Body.Close()
		})
		_ = feedAll(a, b)
		a.stop()
	})
}

// FuzzStatusVars: no bytes make the list of schemas panic.
func FuzzStatusVars(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 12, 1, 'd', 0})
	f.Add([]byte{12, 254})
	f.Fuzz(func(t *testing.T, b []byte) {
		dbs, ok := updatedDBs(b)
		if ok && len(dbs) == 0 {
			t.Error("no schema, but known")
		}
		_, _, _ = parseXID(append([]byte("XA START "), b...))
	})
}

// TestSmallStreams: shapes that a test cannot make mysqld write at will.
func TestSmallStreams(t *testing.T) {
	for _, c := range []struct {
		name   string
		stream []byte
		want   string
		fails  bool
	}{
		{"prepared", smallTransaction("cohort.a"), "prepared xid=cohort.a tables=1 snapshot=0[] [BEGIN map write]\n", false},
		{"xid changes", smallTransaction("cohort.b"), "", true},
		{"committed by mysqld in XA", append(append(append(gtidEvent(1), queryEvent("XA START X'636f686f72742e61',X'',1")...), rowEvents()...), event(binlog.TypeXID, make([]byte, 8))...),
			"direct xid=cohort.a tables=1 snapshot=0[] [BEGIN map write]\n", false},
		{"incident", event(binlog.TypeIncident, []byte{1, 0}), "", true},
		{"anonymous", event(binlog.TypeAnonymousGTID, make([]byte, 42)), "", true},
		{"rows without transaction", rowEvents(), "", true},
		{"two GTIDs", append(gtidEvent(1), gtidEvent(2)...), "", true},
		{"unknown event", event(200, nil), "", true},
		{"partial rows", append(append(append(gtidEvent(1), queryEvent("BEGIN")...), event(binlog.TypePartialUpdateRows, []byte{1})...), event(binlog.TypeXID, make([]byte, 8))...),
			"direct refuse=3098 snapshot=0[] [BEGIN 39]\n", false},
	} {
		var got []Captured
		a := testAssembler(t, func(c Captured) error { got = append(got, c); return nil })
		err := feedAll(a, c.stream)
		if d := describe(got); d != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %v\n%s", c.name, err, d)
		}
	}
}

func BenchmarkSmallTransaction(b *testing.B) {
	a := testAssembler(b, func(Captured) error { return nil })
	stream := smallTransaction("cohort.a")
	b.ReportAllocs()
	for b.Loop() {
		for s := stream; len(s) > 0; {
			ev, rest, _ := binlog.NextEvent(s)
			if err := a.handle(context.Background(), ev); err != nil {
				b.Fatal(err)
			}
			s = rest
		}
	}
}

func TestTracker(t *testing.T) {
	var tr tracker
	for _, n := range []uint64{3, 1, 7, 5, 3, 2, 4} {
		tr.add(n)
	}
	if s := tr.snapshot(); s.Low != 5 || len(s.Extra) != 1 || s.Extra[0] != 7 {
		t.Errorf("%v", s)
	}
	tr.union(binlog.Intervals{{Start: 1, End: 6}, {Start: 9, End: 10}})
	if s := tr.snapshot(); s.Low != 7 || len(s.Extra) != 2 {
		t.Errorf("%v", s)
	}
	tr.union(binlog.Intervals{{Start: 1, End: 20}})
	if s := tr.snapshot(); s.Low != 20 || s.Extra != nil {
		t.Errorf("%v", s)
	}
}
