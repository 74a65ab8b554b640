package state

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"cohort/certify"
	"cohort/internal/binlog"
)

// sums is a Sink that remembers what was appended, spools included.
type sums struct {
	rows      map[uint64]string
	spool     map[StreamID]string
	decisions []Decision
	ignored   int
	fail      error
}

func newSums() *sums { return &sums{rows: map[uint64]string{}, spool: map[StreamID]string{}} }

func (s *sums) Spool(id StreamID, off int64, data []byte) error {
	s.spool[id] = s.spool[id][:off] + string(data)
	return s.fail
}
func (s *sums) DropSpool(id StreamID) error { delete(s.spool, id); return s.fail }
func (s *sums) Append(n, _ uint64, _ binlog.Meta, body []byte, id *StreamID, size int64) error {
	if id != nil {
		body = []byte(s.spool[*id])
	}
	if int64(len(body)) != size {
		return fmt.Errorf("%d bytes, not %d", len(body), size)
	}
	s.rows[n] = string(body)
	return s.fail
}
func (s *sums) StartAt(uint64) error        { return s.fail }
func (s *sums) Decided(d Decision)          { s.decisions = append(s.decisions, d) }
func (s *sums) Ignored(uint64, Kind, error) { s.ignored++ }
func (s *sums) last() Decision              { return s.decisions[len(s.decisions)-1] }

type item interface{ AppendItem([]byte) []byte }

// group is a state with a founded group, its sink and a helper to apply items.
type group struct {
	t    testing.TB
	s    *State
	sink *sums
}

func newTestGroup(t testing.TB) *group {
	g := &group{t: t, s: New(), sink: newSums()}
	g.apply(&Bootstrap{GroupName: "g", Lineage: 42, Rules: 1, Replicas: 9, Primary: 1})
	g.apply(&Join{Member: 1, Replica: 1, Nonce: 1, Info: MemberInfo{UUID: "u1"}})
	return g
}

func (g *group) apply(items ...item) uint64 {
	g.t.Helper()
	b := AppendHeader(nil)
	for _, it := range items {
		b = it.AppendItem(b)
	}
	n, err := g.s.Apply(g.s.Index()+1, b, g.sink)
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

func txn(seq uint64, xid string, key uint64, body []byte) *Txn {
	return &Txn{Member: 1, Incarnation: 1, Seq: seq, Epoch: 1, XID: xid, Writes: []uint64{key},
		Meta: binlog.Meta{Kind: binlog.KindTransaction}, Body: body, BodyLen: int64(len(body))}
}

func TestItemsRoundTrip(t *testing.T) {
	u64s := rapid.SliceOfN(rapid.Uint64(), 0, 5)
	rapid.Check(t, func(t *rapid.T) {
		x := Txn{Direct: rapid.Bool().Draw(t, "direct"), Member: rapid.Uint64().Draw(t, "m"),
			Incarnation: rapid.Uint64().Draw(t, "inc"), Seq: rapid.Uint64().Draw(t, "seq"),
			Epoch: rapid.Uint64().Draw(t, "epoch"), XID: rapid.StringN(0, 64, -1).Draw(t, "xid"),
			LocalGTID: rapid.StringN(0, 64, -1).Draw(t, "gtid"),
			Writes:    u64s.Draw(t, "w"), Refs: u64s.Draw(t, "r"), Tables: u64s.Draw(t, "t"),
			Serial: rapid.Bool().Draw(t, "serial"), CommitOrder: rapid.Bool().Draw(t, "order"),
			Wide: rapid.Bool().Draw(t, "wide"), Refuse: rapid.Uint16().Draw(t, "refuse"),
			Stream: rapid.Uint64().Draw(t, "stream"), BodyLen: rapid.Int64Range(0, 1<<40).Draw(t, "len"),
			Compressed: rapid.Bool().Draw(t, "z"), Body: rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "body"),
			Meta: binlog.Meta{Kind: binlog.Kind(rapid.Byte().Draw(t, "kind")), GTIDFlags: rapid.Byte().Draw(t, "flags"),
				OriginalCommitTimestamp: rapid.Uint64().Draw(t, "octs"), OriginalServerVersion: rapid.Uint32().Draw(t, "osv"),
				Timestamp: rapid.Uint32().Draw(t, "ts")}}
		n := rapid.Uint64Range(0, 1<<60).Draw(t, "low")
		x.Snapshot.Low = n
		for range rapid.IntRange(0, 4).Draw(t, "extras") {
			n += rapid.Uint64Range(1, 1000).Draw(t, "gap")
			x.Snapshot.Extra = append(x.Snapshot.Extra, n)
		}
		b := x.AppendItem([]byte("before"))[6:]
		r := reader{b: b}
		kind, body := Kind(r.byte()), r.bytes()
		if r.bad || len(r.b) != 0 || len(b) > x.SizeHint()+10 {
			t.Fatalf("framing: %d bytes, hint %d", len(b), x.SizeHint())
		}
		// Scratch of an earlier transaction must not show.
		y := Txn{Writes: []uint64{1, 2, 3, 4, 5, 6, 7}, Snapshot: certify.Snapshot{Extra: []uint64{9}}, XID: "old"}
		if err := y.decode(kind, body); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprintf("%+v", x) != fmt.Sprintf("%+v", y) {
			t.Fatalf("\n%+v\n%+v", x, y)
		}
	})
}

func TestControlItemsRoundTrip(t *testing.T) {
	j := Join{Member: 3, Replica: 3, Nonce: 9, Info: MemberInfo{UUID: "u", ServerVersion: 90704, Weight: 50, MysqldAddress: "a:1",
		ClientAddress: "b:2", HTTPAddress: "c:3", PeerAddress: "d:4", PeerToken: "t", CohortVersion: "v", MysqldVersion: "9.7.4", ServerID: 8, LogAddress: "e:4"}}
	check := func(in item, out interface{ decode([]byte) error }) {
		t.Helper()
		r := reader{b: in.AppendItem(nil)}
		r.byte()
		// A field of a later release is skipped.
		if err := out.decode(appendString(append([]byte(nil), r.bytes()...), 99, "later")); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("%+v became %+v", in, out)
		}
	}
	check(&j, &Join{})
	check(&Bootstrap{GroupName: "g", Lineage: 1, Rules: 2, Primary: 3, StartN: 4, Base: "u:1-5", Replicas: 3, Settings: "a=1\nb=2"}, &Bootstrap{})
	check(&Admit{Member: 1, Nonce: 2, UUID: "u", ServerID: 3, Address: "a:1"}, &Admit{})
	check(&Evict{Member: 1, Replica: 2, Incarnation: 3}, &Evict{})
	check(&Weight{Member: 1, Incarnation: 2, Weight: 3}, &Weight{})
	check(&SetState{Member: 1, Incarnation: 2, State: StateOnline, Epoch: 3}, &SetState{})
	check(&Primary{Member: 1, Epoch: 2}, &Primary{})
	check(&Abort{XIDs: []string{"a", "b"}, Incarnation: 7}, &Abort{})
	check(&Watermark{Member: 1, Incarnation: 2, Applied: 3, Stable: 4, Low: 5}, &Watermark{})
	check(&Rules{Version: 1}, &Rules{})
}

func TestCompressedBodies(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte("some rows, "), 1000)
	g := newTestGroup(t)
	x := txn(1, "a", 1, enc.EncodeAll(body, nil))
	x.Compressed, x.BodyLen = true, int64(len(body))
	g.apply(x)
	if g.sink.rows[1] != string(body) {
		t.Fatal("body differs")
	}
	f := Fragment{Member: 1, Incarnation: 1, Seq: 2, Stream: 2, Data: enc.EncodeAll(body, nil), Compressed: true, Len: int64(len(body))}
	g.apply(&f)
	y := txn(3, "b", 2, nil)
	y.Stream, y.BodyLen = 2, int64(len(body))
	g.apply(y)
	if g.sink.rows[2] != string(body) {
		t.Fatal("spooled body differs")
	}
	// What does not unpack aborts, and stops nobody.
	z := txn(4, "c", 3, []byte("no zstd"))
	z.Compressed = true
	g.apply(z)
	if d := g.sink.last(); d.Committed || d.Reason != ReasonInvalid || g.sink.ignored != 1 || g.s.LastN() != 2 {
		t.Fatalf("%+v, %d ignored", d, g.sink.ignored)
	}
	f.Seq, f.Stream, f.Data = 5, 5, []byte("no zstd")
	if g.apply(&f) != 1 || g.sink.ignored != 2 {
		t.Fatal("bad fragment")
	}
}

// The same body has the same checksum whether it came whole or in parts.
func TestChecksum(t *testing.T) {
	a, b := newTestGroup(t), newTestGroup(t)
	body := []byte("abcdef")
	a.apply(&Fragment{Member: 1, Incarnation: 1, Seq: 1, Stream: 1, Data: body[:2], Len: 2})
	a.apply(&Fragment{Member: 1, Incarnation: 1, Seq: 2, Stream: 1, Offset: 2, Data: body[2:], Len: 4})
	x := txn(3, "a", 1, nil)
	x.Stream, x.BodyLen = 1, 6
	a.apply(x)
	b.apply(txn(1, "a", 1, body))
	if a.s.Checksum() != b.s.Checksum() || a.s.Checksum() == 42 {
		t.Fatalf("%x and %x", a.s.Checksum(), b.s.Checksum())
	}
	if sum, ok := a.s.ChecksumAt(0); !ok || sum != 42 {
		t.Fatalf("at 0: %x %t", sum, ok)
	}
	b.apply(txn(2, "b", 1, []byte("other")))
	if sum, ok := b.s.ChecksumAt(1); !ok || sum != a.s.Checksum() || b.s.Checksum() == sum {
		t.Fatal("the chain does not grow")
	}
	if _, ok := b.s.ChecksumAt(3); ok {
		t.Fatal("checksum of the future")
	}
	for i := range 3 * checksumRing {
		b.apply(txn(uint64(i)+3, fmt.Sprint("x", i), 1, nil))
	}
	if _, ok := b.s.ChecksumAt(1); ok || len(b.s.sums) > 2*checksumRing {
		t.Fatalf("%d checksums kept", len(b.s.sums))
	}
	if sum, ok := b.s.ChecksumAt(b.s.LastN()); !ok || sum != b.s.Checksum() {
		t.Fatal("last")
	}
}

func TestOutcomesAreKeptUntilStable(t *testing.T) {
	g := newTestGroup(t)
	const n = MinRecent + 500
	for i := range uint64(n) {
		g.apply(txn(i+1, fmt.Sprint("x", i), i, nil))
	}
	if g.s.outcomes.len() != n {
		t.Fatalf("%d outcomes, none was reported stable", g.s.outcomes.len())
	}
	g.apply(&Watermark{Member: 1, Incarnation: 1, Applied: 100, Stable: 100, Low: 100})
	if _, ok := g.s.Outcome("x99"); ok || g.s.outcomes.len() != n-100 {
		t.Fatalf("%d outcomes after 100 were reported stable", g.s.outcomes.len())
	}
	if o, ok := g.s.Outcome("x100"); !ok || o.N != 101 {
		t.Fatalf("%+v %t", o, ok)
	}
	g.apply(&Watermark{Member: 1, Incarnation: 1, Applied: n, Stable: n, Low: n})
	if g.s.outcomes.len() != MinRecent {
		t.Fatalf("%d outcomes", g.s.outcomes.len())
	}
	// What was forced on a life that has ended is kept for a while.
	g.apply(&Join{Member: 1, Replica: 1, Nonce: 2})
	g.apply(&Watermark{Member: 1, Incarnation: 2, Applied: n, Stable: n, Low: n})
	for i := range MinRecent + 10 {
		g.apply(&Abort{XIDs: []string{fmt.Sprint("f", i)}, Incarnation: 1})
	}
	if _, ok := g.s.Outcome("f0"); ok || g.s.outcomes.len() != MinRecent {
		t.Fatalf("%d outcomes", g.s.outcomes.len())
	}
	again, err := Decode(g.s.Encode(nil))
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := again.Outcome("f5000"); !ok || o.Committed {
		t.Fatal("lost by encoding")
	}
}

// However long a prepare waits in its origin's queue, a forced abort of it
// stands, and its origin is told to roll it back.
func TestForcedAbortsWaitForTheirTransactions(t *testing.T) {
	for _, life := range []uint64{0, 1} {
		g := newTestGroup(t)
		g.apply(&Join{Member: 2, Replica: 2, Nonce: 2, Info: MemberInfo{UUID: "u2"}})
		if n := g.apply(&Abort{XIDs: []string{"late", "never"}, Incarnation: life}); n != 2 {
			t.Fatalf("%d decided", n)
		}
		const n = MinRecent + 100
		for i := range uint64(n) {
			g.apply(txn(i+1, fmt.Sprint("x", i), i, nil))
		}
		g.apply(&Watermark{Member: 1, Incarnation: 1, Applied: n, Stable: n, Low: n})
		again, err := Decode(g.s.Clone().Encode(nil))
		if err != nil {
			t.Fatal(err)
		}
		g.s = again
		x := txn(n+1, "late", 5, nil)
		x.Snapshot.Low = n
		if g.apply(x) != 1 {
			t.Fatal("not taken")
		}
		d := g.sink.last()
		want := Decision{Index: g.s.Index(), Kind: KindTxn, Origin: 1, Incarnation: 1, Seq: n + 1, XID: "late",
			Epoch: 1, Errno: ErrnoConflict, Reason: ReasonForced, Repeated: true}
		if d != want {
			t.Fatalf("%+v", d)
		}
		if o, ok := g.s.Outcome("late"); !ok || o.Committed || o.Origin != 1 || o.Incarnation != 1 {
			t.Fatalf("%+v %t", o, ok)
		}
		// Met, it is forgotten like any other; what never came is kept.
		for i := range uint64(n) {
			g.apply(txn(n+2+i, fmt.Sprint("y", i), i, nil))
		}
		g.apply(&Watermark{Member: 1, Incarnation: 1, Applied: 2 * n, Stable: 2 * n, Low: 2 * n})
		if _, ok := g.s.Outcome("late"); ok {
			t.Fatal("kept for good")
		}
		if o, ok := g.s.Outcome("never"); !ok || o.Committed {
			t.Fatalf("%+v %t", o, ok)
		}
	}
}

// More than can be kept are not promised.
func TestForcedAbortsAreBounded(t *testing.T) {
	g := newTestGroup(t)
	for i := range MaxForced - 1 {
		g.apply(&Abort{XIDs: []string{fmt.Sprint("f", i)}, Incarnation: 1})
	}
	told := len(g.sink.decisions)
	for range 2 {
		if n := g.apply(&Abort{XIDs: []string{"f0", "a", "b"}}); n != 2 {
			t.Fatalf("%d decided", n)
		}
	}
	if _, ok := g.s.Outcome("b"); ok || len(g.sink.decisions)-told != 4 {
		t.Fatal("b was decided")
	}
	g.apply(txn(1, "b", 1, nil))
	if d := g.sink.last(); !d.Committed {
		t.Fatalf("%+v", d)
	}
	g.apply(txn(2, "f7", 2, nil))
	if n := g.apply(&Abort{XIDs: []string{"c"}}); n != 1 {
		t.Fatal("no room was made")
	}
	// With the life the need ends: only the latest are kept. Its own abort of
	// b, which committed, never came to be.
	g.apply(&Join{Member: 1, Replica: 1, Nonce: 2})
	if len(g.s.forced.byXID) != 0 || g.s.outcomes.len() > MaxForced+2 {
		t.Fatalf("%d forced, %d outcomes", len(g.s.forced.byXID), g.s.outcomes.len())
	}
	if o, ok := g.s.Outcome("b"); ok && !o.Committed {
		t.Fatalf("%+v", o)
	}
}

func TestBase(t *testing.T) {
	s, sink := New(), newSums()
	b := Bootstrap{Lineage: 1, Rules: 1, Replicas: 9, Base: string(make([]byte, MaxBase+1))}
	if n, err := s.Apply(1, Entry(b.AppendItem(nil)), sink); err != nil || n != 0 || sink.ignored != 1 || s.View().Founded {
		t.Fatalf("%d, %v, %d ignored", n, err, sink.ignored)
	}
	b.Base = b.Base[1:]
	if n, err := s.Apply(2, Entry(b.AppendItem(nil)), sink); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	again, err := Decode(s.Encode(nil))
	if err != nil || again.View().Base != b.Base || s.View().Base != b.Base {
		t.Fatalf("%v", err)
	}
}

func TestDirectAndTransactionKeysAreApart(t *testing.T) {
	g := newTestGroup(t)
	g.apply(txn(1, "name", 1, nil))
	if _, ok := g.s.DirectOutcome("name"); ok {
		t.Fatal("an xid answers for a local GTID")
	}
}

func TestLaterFormatsStopTheMember(t *testing.T) {
	for _, entry := range [][]byte{{2}, appendItem([]byte{1}, Kind(99), nil), appendItem([]byte{1}, KindTxn, []byte{9})} {
		if _, err := New().Apply(1, entry, newSums()); !errors.Is(err, ErrUnsupported) {
			t.Fatalf("%v: %v", entry, err)
		}
	}
}

func TestMalformedIsIgnored(t *testing.T) {
	for _, entry := range [][]byte{{}, {1, 5}, {1, 5, 200}, appendItem([]byte{1}, KindJoin, []byte{3}), appendItem([]byte{1}, KindTxn, []byte{1})} {
		s, sink := New(), newSums()
		if n, err := s.Apply(1, entry, sink); err != nil || n != 0 || sink.ignored != 1 {
			t.Fatalf("%v: %d, %v, %d ignored", entry, n, err, sink.ignored)
		}
	}
}

func TestSinkErrorsStopTheMember(t *testing.T) {
	g := newTestGroup(t)
	g.sink.fail = errors.New("disk full")
	if _, err := g.s.Apply(9, Entry(txn(1, "a", 1, nil).AppendItem(nil)), g.sink); !errors.Is(err, g.sink.fail) {
		t.Fatal(err)
	}
}

// randomItem draws items that often make sense.
func randomItem(t *rapid.T, s *State) item {
	m := rapid.Uint64Range(1, 3).Draw(t, "member")
	var inc, seq uint64 = 1, 1
	if x := s.member(m); x != nil {
		inc, seq = x.Incarnation, x.Seq+1
		if inc > 0 && rapid.IntRange(0, 5).Draw(t, "stale") == 0 {
			inc, seq = rapid.Uint64Range(1, inc).Draw(t, "inc"), rapid.Uint64Range(1, 5).Draw(t, "seq")
		}
	}
	keys := rapid.SliceOfN(rapid.Uint64Range(1, 5), 0, 3)
	switch rapid.IntRange(0, 17).Draw(t, "kind") {
	case 0:
		return &Bootstrap{GroupName: "g", Lineage: 5, Rules: 1, Replicas: 9, Primary: 1, Base: "u:1"}
	case 1:
		replica := m
		if x := s.member(m); x != nil && rapid.IntRange(0, 3).Draw(t, "other replica") > 0 {
			replica = x.Replica
		}
		return &Join{Member: m, Replica: replica, Nonce: rapid.Uint64Range(1, 9).Draw(t, "nonce"),
			Info: MemberInfo{UUID: rapid.SampledFrom([]string{"", "u1", "u2", "U2", "u3"}).Draw(t, "uuid")}}
	case 2:
		return &SetState{Member: m, Incarnation: inc, State: MemberState(rapid.IntRange(1, 4).Draw(t, "state"))}
	case 3:
		return &Primary{Member: m, Epoch: s.Epoch()}
	case 4:
		return &Abort{XIDs: []string{fmt.Sprint("x", rapid.IntRange(0, 30).Draw(t, "xid"))}, Incarnation: rapid.Uint64Range(0, 4).Draw(t, "life")}
	case 5:
		n := rapid.Uint64Range(0, s.LastN()+1).Draw(t, "applied")
		return &Watermark{Member: m, Incarnation: inc, Applied: n, Stable: n, Low: n}
	case 6, 7:
		f := &Fragment{Member: m, Incarnation: inc, Seq: seq, Stream: seq, Data: []byte("part"), Len: 4}
		if x := s.member(m); x != nil && x.stream != nil && rapid.Bool().Draw(t, "goes on") {
			f.Stream, f.Offset = x.stream.id, x.stream.len
		}
		return f
	case 8:
		return &Admit{Member: m, Nonce: rapid.Uint64Range(1, 9).Draw(t, "nonce"), UUID: fmt.Sprint("u", m),
			ServerID: rapid.Uint64Range(0, 2).Draw(t, "server_id"), Address: fmt.Sprint("a:", rapid.IntRange(1, 4).Draw(t, "port"))}
	case 9:
		e := &Evict{Member: m, Replica: m, Incarnation: inc}
		if x := s.member(m); x != nil {
			e.Replica = x.Replica
		}
		return e
	case 10:
		f := &Force{Lineage: rapid.Uint64Range(0, 9).Draw(t, "lineage"), SureN: rapid.Uint64Range(0, s.LastN()+1).Draw(t, "sure")}
		for _, x := range s.members {
			if rapid.Bool().Draw(t, "listed") {
				f.Members = append(f.Members, Place{x.ID, x.Replica})
			}
		}
		return f
	default:
		x := &Txn{Member: m, Incarnation: inc, Seq: seq, Epoch: s.Epoch(), Meta: binlog.Meta{Kind: binlog.KindTransaction},
			Writes: keys.Draw(t, "w"), Refs: keys.Draw(t, "r"), Tables: keys.Draw(t, "t"),
			Snapshot: certify.Snapshot{Low: rapid.Uint64Range(0, s.LastN()).Draw(t, "low")},
			XID:      fmt.Sprint("x", rapid.IntRange(0, 30).Draw(t, "xid"))}
		if rapid.IntRange(0, 4).Draw(t, "direct") == 0 {
			x.Direct, x.LocalGTID, x.XID = true, x.XID, ""
		}
		if y := s.member(m); y != nil && y.stream != nil && rapid.Bool().Draw(t, "spooled") {
			x.Stream, x.BodyLen = y.stream.id, y.stream.len
		}
		return x
	}
}

// Whatever the entries and wherever a member restarts from its encoding, all
// come to the same state, and invariants hold: numbers without gaps, first
// verdicts final.
func TestReplayEquality(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := New(), New()
		sa, sb := newSums(), newSums()
		verdicts := make(map[string]Decision)
		var lastN uint64
		for i := range rapid.IntRange(1, 80).Draw(t, "entries") {
			entry := AppendHeader(nil)
			for range rapid.IntRange(1, 3).Draw(t, "items") {
				entry = randomItem(t, a).AppendItem(entry)
			}
			before := len(sa.decisions)
			ra, err := a.Apply(uint64(i)+1, entry, sa)
			if err != nil {
				t.Fatal(err)
			}
			if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
				enc := b.Encode(nil)
				if cl := b.Clone().Encode(nil); !bytes.Equal(enc, cl) {
					t.Fatal("a clone encodes differently")
				}
				if b, err = Decode(enc); err != nil {
					t.Fatal(err)
				}
			}
			rb, err := b.Apply(uint64(i)+1, entry, sb)
			if err != nil || ra != rb {
				t.Fatalf("%d and %d, %v", ra, rb, err)
			}
			if !bytes.Equal(a.Encode(nil), b.Encode(nil)) {
				t.Fatal("states differ")
			}
			for _, d := range sa.decisions[before:] {
				key := d.XID
				if d.Kind == KindDirect {
					key = "direct " + d.LocalGTID
				} else if d.Kind != KindTxn && d.Kind != KindAbort {
					continue
				}
				if old, ok := verdicts[key]; ok {
					if !d.Repeated || old.Committed != d.Committed || old.N != d.N {
						t.Fatalf("%s was %+v, now %+v", key, old, d)
					}
					continue
				}
				if d.Committed {
					if lastN++; d.N != lastN || d.Dep >= d.N {
						t.Fatalf("%+v after %d", d, lastN-1)
					}
				}
				verdicts[key] = d
			}
		}
		if !reflect.DeepEqual(sa.decisions, sb.decisions) || !reflect.DeepEqual(sa.rows, sb.rows) || !reflect.DeepEqual(sa.spool, sb.spool) {
			t.Fatal("effects differ")
		}
		if uint64(len(sa.rows)) != a.LastN() {
			t.Fatalf("%d rows, last %d", len(sa.rows), a.LastN())
		}
	})
}

func FuzzApply(f *testing.F) {
	g := newTestGroup(f)
	base := g.s.Encode(nil)
	f.Add(Entry(txn(1, "a", 1, []byte("rows")).AppendItem(nil), (&Abort{XIDs: []string{"a"}}).AppendItem(nil)))
	f.Add(Entry((&Fragment{Member: 1, Incarnation: 1, Seq: 1, Stream: 1, Data: []byte("x"), Len: 1}).AppendItem(nil)))
	f.Add(Entry((&Join{Member: 2, Replica: 2, Nonce: 2}).AppendItem(nil)))
	f.Add(Entry((&Force{Lineage: 7, SureN: 1, SureIndex: 1, Members: []Place{{1, 1}, {2, 2}}}).AppendItem(nil)))
	f.Fuzz(func(t *testing.T, entry []byte) {
		s, err := Decode(base)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply(s.Index()+1, entry, newSums()); err != nil {
			return
		}
		enc := s.Encode(nil)
		again, err := Decode(enc)
		if err != nil || !bytes.Equal(again.Encode(nil), enc) {
			t.Fatalf("state does not survive: %v", err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	g := newTestGroup(f)
	g.apply(txn(1, "a", 1, nil), &Fragment{Member: 1, Incarnation: 1, Seq: 2, Stream: 2, Data: []byte("x"), Len: 1})
	f.Add(g.s.Encode(nil))
	g = forcedGroup(f)
	g.apply(&Force{Lineage: 7, SureN: 1, Members: []Place{{1, 1}}})
	f.Add(g.s.Encode(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		s.View()
		s.Encode(nil)
	})
}

func BenchmarkApply(b *testing.B) {
	g := newTestGroup(b)
	body := make([]byte, 500)
	b.ReportAllocs()
	var buf []byte
	for i := uint64(1); b.Loop(); i++ {
		x := txn(i, fmt.Sprintf("cohort.01234567.1.%d.0123456789abcdef", i), i, body)
		x.Snapshot.Low = i - 1
		buf = x.AppendItem(AppendHeader(buf[:0]))
		if _, err := g.s.Apply(i+5, buf, g.sink); err != nil {
			b.Fatal(err)
		}
		clear(g.sink.rows)
		g.sink.decisions = g.sink.decisions[:0]
		if i%1000 == 0 {
			g.apply(&Watermark{Member: 1, Incarnation: 1, Applied: i, Stable: i, Low: i})
		}
	}
}
