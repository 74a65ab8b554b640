package feed

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/wire"
)

var group = func() binlog.UUID { u, _ := binlog.ParseUUID(testGroup); return u }()

// receiver is a hand-made replica.
type receiver struct {
	t  *testing.T
	cl *wire.Client
	// sum is what a mysqld would count since the rotate event.
	sum uint64
}

func dial(t *testing.T, f *Feed, password string) (*wire.Client, error) {
	t.Helper()
	cl, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: f.Addr().String(), User: "feed", Password: password})
	if err == nil {
		t.Cleanup(func() { cl.Close() })
	}
	return cl, err
}

func dumpPayload(flags uint16, set binlog.GTIDSet) []byte {
	p := binary.LittleEndian.AppendUint16(nil, flags)
	p = binary.LittleEndian.AppendUint32(p, 77)
	p = binary.LittleEndian.AppendUint32(p, 0)
	p = binary.LittleEndian.AppendUint64(p, 4)
	gtids := binlog.AppendGTIDSet(nil, set)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(gtids)))
	return append(p, gtids...)
}

// connect does what a mysqld does before it asks for a dump, and asks.
func connect(t *testing.T, f *Feed, uuid string, set binlog.GTIDSet, extra ...string) *receiver {
	t.Helper()
	cl, err := dial(t, f, "pass'word")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for q, want := range map[string]string{
		"SELECT @@GLOBAL.SERVER_ID": "2147418125", "SELECT @@GLOBAL.SERVER_UUID": sourceUUID,
		"SELECT @@GLOBAL.GTID_MODE": "ON", "SELECT @source_binlog_checksum": "CRC32", "SELECT VERSION()": "9.7.0",
	} {
		r, err := cl.Query(ctx, q)
		if err != nil || r.Str(0, 0) != want {
			t.Fatalf("%s: %v %v", q, r, err)
		}
	}
	for _, q := range append([]string{"SET @slave_uuid = '" + uuid + "', @replica_uuid = '" + uuid + "'"}, extra...) {
		if _, err := cl.Exec(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	if err := wire.WriteCommand(cl.Conn, wire.ComBinlogDumpGTID, dumpPayload(2, set)); err != nil {
		t.Fatal(err)
	}
	if err := cl.Conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return &receiver{t: t, cl: cl, sum: 4}
}

func (r *receiver) event() ([]byte, error) {
	if err := r.cl.Conn.NetConn().SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	p, err := r.cl.Conn.ReadPacket(1 << 30)
	if err != nil {
		return nil, err
	}
	switch p[0] {
	case 0:
		return p[1:], nil
	case wire.HeaderERR:
		e, err := wire.ParseERR(p)
		if err != nil {
			return nil, err
		}
		return nil, e
	}
	return nil, errors.New("neither an event nor an error")
}

// next returns the next event that is no control event, after checking what
// must hold of every event.
func (r *receiver) next() (binlog.Header, []byte) {
	r.t.Helper()
	for {
		ev, err := r.event()
		if err != nil {
			r.t.Fatal(err)
		}
		if err := binlog.VerifyChecksum(ev); err != nil {
			r.t.Fatal(err)
		}
		h, err := binlog.ParseHeader(ev)
		if err != nil {
			r.t.Fatal(err)
		}
		if h.ServerID != binlog.RenderedServerID || (h.LogPos != 0) != (h.Type == binlog.TypeFormatDescription) || int(h.Size) != len(ev) {
			r.t.Fatalf("event header %+v of %d bytes", h, len(ev))
		}
		switch h.Type {
		case binlog.TypeRotate, binlog.TypeFormatDescription:
			r.sum += uint64(len(ev))
		case binlog.TypeHeartbeatV2:
			if at := heartbeatPosition(r.t, ev); at < r.sum {
				r.t.Fatalf("heartbeat at %d after %d bytes", at, r.sum)
			} else {
				r.sum = at
			}
			return h, ev
		default:
			r.sum += uint64(len(ev))
			return h, ev
		}
	}
}

func heartbeatPosition(t *testing.T, ev []byte) uint64 {
	b := ev[binlog.HeaderSize : len(ev)-4]
	for len(b) > 0 && b[0] != 0 {
		value, rest, ok := wire.ReadLenencString(b[1:])
		if !ok {
			t.Fatalf("heartbeat % x", ev)
		}
		if b[0] == 2 {
			n, _, ok := wire.ReadLenencInt(value)
			if !ok {
				t.Fatalf("heartbeat % x", ev)
			}
			return n
		}
		b = rest
	}
	t.Fatalf("heartbeat % x without a position", ev)
	return 0
}

// transaction reads one whole transaction.
func (r *receiver) transaction() (g binlog.GTID, size int) {
	r.t.Helper()
	h, ev := r.next()
	for h.Type == binlog.TypeHeartbeatV2 {
		h, ev = r.next()
	}
	g, err := binlog.DecodeGTID(ev[:len(ev)-4])
	if err != nil {
		r.t.Fatal(err)
	}
	for size = len(ev); uint64(size) < g.TransactionLength; {
		_, ev := r.next()
		size += len(ev)
	}
	if uint64(size) != g.TransactionLength {
		r.t.Fatalf("%s has %d bytes, says %d", g.String(), size, g.TransactionLength)
	}
	return g, size
}

func add(t *testing.T, s *groupbinlog.Store, dep uint64, size int) {
	t.Helper()
	n := s.LastN() + 1
	b, err := binlog.AppendQuery(nil, 1, 0, &binlog.Query{SQL: []byte("BEGIN")})
	if err != nil {
		t.Fatal(err)
	}
	if b, err = binlog.AppendQuery(b, 1, 0, &binlog.Query{SQL: bytes.Repeat([]byte{'x'}, size)}); err != nil {
		t.Fatal(err)
	}
	m := binlog.Meta{Kind: binlog.KindTransaction, OriginalCommitTimestamp: n, OriginalServerVersion: 90704, Timestamp: 1}
	if err := s.Append(n, dep, m, bytes.NewReader(b), int64(len(b))); err != nil {
		t.Fatal(err)
	}
}

func have(intervals ...binlog.Interval) binlog.GTIDSet {
	return binlog.GTIDSet{
		{UUID: binlog.UUID{1}, Intervals: binlog.Intervals{{Start: 1, End: 1000}}},
		{UUID: binlog.UUID{1}, Tag: "local", Intervals: binlog.Intervals{{Start: 1, End: 9}}},
		{UUID: group, Tag: "local", Intervals: binlog.Intervals{{Start: 1, End: 5}}},
		{UUID: group, Intervals: intervals},
	}
}

func TestStreamLeavesOutWhatTheReceiverHas(t *testing.T) {
	store := openStore(t, 0)
	for n := uint64(1); n <= 30; n++ {
		add(t, store, n-1, 50)
	}
	opt := testOptions(t, store)
	withheld := []uint64{15, 16, 28}
	var asked atomic.Int64
	opt.Skip = func(n uint64) bool { asked.Add(1); return slices.Contains(withheld, n) }
	f, _ := startFeed(t, opt)
	r := connect(t, f, "r1", have(binlog.Interval{Start: 1, End: 10}, binlog.Interval{Start: 13, End: 14}, binlog.Interval{Start: 20, End: 20}))
	sequence := int64(0)
	for _, n := range []int64{11, 12, 17, 18, 19, 21, 22, 23, 24, 25, 26, 27, 29, 30} {
		g, _ := r.transaction()
		sequence++
		last := sequence - 1
		if g.GNO != n || g.SequenceNumber != sequence || g.LastCommitted != last {
			t.Fatalf("got %s %d/%d, want %d %d/%d", g.String(), g.LastCommitted, g.SequenceNumber, n, last, sequence)
		}
	}
	if k := asked.Load(); k != 17 {
		t.Errorf("asked %d times whether to skip", k)
	}
	add(t, store, 3, 50) // depends on what the receiver had before
	if g, _ := r.transaction(); g.GNO != 31 || g.LastCommitted != 1 {
		t.Fatalf("%s depends on %d", g.String(), g.LastCommitted)
	}
	waitFor(t, "the stream in the list", func() bool {
		s := f.Streams()
		return len(s) == 1 && s[0].UUID == "r1" && s[0].SentN == 31 && s[0].ServerID == 77
	})
	r.cl.Close()
	waitFor(t, "the end of the stream", func() bool { return len(f.Streams()) == 0 })
}

func TestLargeEvents(t *testing.T) {
	store := openStore(t, 0)
	// Payloads around one, two and three physical packets: the event is the
	// statement plus 13+1 bytes of Query event, header and checksum, and one
	// more byte makes the payload.
	const overhead = binlog.HeaderSize + 13 + 1 + binlog.ChecksumSize + 1
	sizes := []int{10, int(groupbinlog.InlineLimit)}
	for _, k := range []int{1, 2} {
		for d := -1; d <= 1; d++ {
			sizes = append(sizes, k*wire.MaxPayload-overhead+d)
		}
	}
	f, _ := startFeed(t, testOptions(t, store))
	r := connect(t, f, "r1", nil)
	for i, size := range sizes {
		add(t, store, 0, size)
		g, got := r.transaction()
		if g.GNO != int64(i+1) || got < size {
			t.Fatalf("%s with %d bytes, want %d of at least %d", g.String(), got, i+1, size)
		}
	}
}

func TestHeartbeatsOnlyWhenIdle(t *testing.T) {
	store := openStore(t, 0)
	f, _ := startFeed(t, testOptions(t, store))
	r := connect(t, f, "r1", nil, "SET @master_heartbeat_period = 1000000, @source_heartbeat_period = 1000000")
	for range 3 {
		for range 3 {
			if h, _ := r.next(); h.Type != binlog.TypeHeartbeatV2 {
				t.Fatalf("event of type %d while idle", h.Type)
			}
		}
		before := r.sum
		if h, _ := r.next(); h.Type != binlog.TypeHeartbeatV2 || r.sum != before {
			t.Fatalf("heartbeat moved from %d to %d while nothing was sent", before, r.sum)
		}
		add(t, store, 0, 100)
		if g, _ := r.transaction(); g.GNO != int64(store.LastN()) {
			t.Fatalf("got %s", g.String())
		}
	}
}

func TestDenied(t *testing.T) {
	f, _ := startFeed(t, testOptions(t, openStore(t, 0)))
	if _, err := dial(t, f, "wrong"); wire.ErrorCode(err) != 1045 {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := dial(t, f, ""); wire.ErrorCode(err) != 1045 {
		t.Errorf("empty password: %v", err)
	}
	if _, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: f.Addr().String(), User: "root", Password: "pass'word"}); wire.ErrorCode(err) != 1045 {
		t.Errorf("wrong user: %v", err)
	}
	cl, err := dial(t, f, "pass'word")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Query(context.Background(), "SELECT 1 FROM t"); wire.ErrorCode(err) != 1235 {
		t.Errorf("a statement of no receiver: %v", err)
	}
	if _, err := cl.Query(context.Background(), "SELECT @@GLOBAL.SERVER_ID"); err != nil {
		t.Errorf("after an error: %v", err)
	}
}

func TestTLS(t *testing.T) {
	cert, err := wire.SelfSigned("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	store := openStore(t, 0)
	add(t, store, 0, 10)
	opt := testOptions(t, store)
	opt.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	f, _ := startFeed(t, opt)
	cl, err := wire.Dial(context.Background(), wire.Config{Network: "tcp", Addr: f.Addr().String(), User: "feed", Password: "pass'word", TLS: insecure()})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if cl.Conn.TLSState() == nil {
		t.Fatal("no TLS")
	}
	if err := errors.Join(wire.WriteCommand(cl.Conn, wire.ComBinlogDumpGTID, dumpPayload(2, nil)), cl.Conn.Flush()); err != nil {
		t.Fatal(err)
	}
	if g, _ := (&receiver{t: t, cl: cl}).transaction(); g.GNO != 1 {
		t.Fatalf("got %s", g.String())
	}
}

func TestPurgedIsFatal(t *testing.T) {
	store := openStore(t, 0)
	if _, err := store.Reset(100); err != nil {
		t.Fatal(err)
	}
	f, _ := startFeed(t, testOptions(t, store))
	r := connect(t, f, "r1", have(binlog.Interval{Start: 1, End: 99}))
	_, err := r.event()
	if wire.ErrorCode(err) != 1236 || !strings.Contains(err.Error(), testGroup+":100") {
		t.Fatalf("transaction 100 is gone: %v", err)
	}
	// Who has more than there is yet waits for what comes then.
	r = connect(t, f, "r1", have(binlog.Interval{Start: 1, End: 102}))
	for range 3 {
		add(t, store, 100, 10)
	}
	if g, _ := r.transaction(); g.GNO != 103 {
		t.Fatalf("got %s", g.String())
	}
}

func TestMalformedDumps(t *testing.T) {
	f, _ := startFeed(t, testOptions(t, openStore(t, 0)))
	good := dumpPayload(2, have(binlog.Interval{Start: 1, End: 3}))
	for i := range good {
		cl, err := dial(t, f, "pass'word")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(wire.WriteCommand(cl.Conn, wire.ComBinlogDumpGTID, good[:i]), cl.Conn.Flush()); err != nil {
			t.Fatal(err)
		}
		r := receiver{t: t, cl: cl}
		if _, err := r.event(); wire.ErrorCode(err) != 1236 {
			t.Fatalf("dump request of %d bytes: %v", i, err)
		}
		cl.Close()
	}
	cl, err := dial(t, f, "pass'word")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(wire.WriteCommand(cl.Conn, wire.ComBinlogDump, make([]byte, 20)), cl.Conn.Flush()); err != nil {
		t.Fatal(err)
	}
	if _, err := (&receiver{t: t, cl: cl}).event(); wire.ErrorCode(err) != 1236 {
		t.Fatalf("dump by position: %v", err)
	}
}

// ended waits for the end of a stream.
func (r *receiver) ended() error {
	for {
		if _, err := r.event(); err != nil {
			return err
		}
	}
}

func TestStreamsEnd(t *testing.T) {
	store := openStore(t, 0)
	f, stop := startFeed(t, testOptions(t, store))
	one, other := connect(t, f, "one", nil), connect(t, f, "other", nil)
	waitFor(t, "two streams", func() bool { return len(f.Streams()) == 2 })
	again := connect(t, f, "one", nil) // replaces the first
	if err := one.ended(); wire.ErrorCode(err) != 0 || !isEOF(err) {
		t.Errorf("replaced: %v", err)
	}
	add(t, store, 0, 10)
	for _, r := range []*receiver{again, other} {
		if g, _ := r.transaction(); g.GNO != 1 {
			t.Errorf("got %s", g.String())
		}
	}
	f.CloseStreams()
	for _, r := range []*receiver{again, other} {
		if err := r.ended(); !isEOF(err) {
			t.Errorf("closed: %v", err)
		}
	}
	last := connect(t, f, "one", have(binlog.Interval{Start: 1, End: 1}))
	waitFor(t, "the new stream", func() bool { return len(f.Streams()) == 1 })
	// A receiver that talks during a dump is no receiver.
	if err := errors.Join(wire.WriteCommand[string](last.cl.Conn, wire.ComPing), last.cl.Conn.Flush()); err != nil {
		t.Fatal(err)
	}
	if err := last.ended(); !isEOF(err) {
		t.Errorf("talking receiver: %v", err)
	}
	stop()
	if _, err := dial(t, f, "pass'word"); err == nil {
		t.Error("still listening")
	}
}

func isEOF(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) && !op.Timeout()
}

// TestSlowReceiver: one that does not read holds up nobody and ends with Close.
func TestSlowReceiver(t *testing.T) {
	store := openStore(t, 0)
	f, stop := startFeed(t, testOptions(t, store))
	slow := connect(t, f, "slow", nil)
	waitFor(t, "the stream", func() bool { return len(f.Streams()) == 1 })
	for range 30 {
		add(t, store, 0, int(groupbinlog.InlineLimit)/2)
	}
	quick := connect(t, f, "quick", nil)
	for n := int64(1); n <= 30; n++ {
		if g, _ := quick.transaction(); g.GNO != n {
			t.Fatalf("got %s", g.String())
		}
	}
	stop() // waits for the goroutine that is stuck in a write
	if slow.ended() == nil {
		t.Error("still connected")
	}
}

func TestCorruptTransactionIsReported(t *testing.T) {
	store := openStore(t, 0)
	for range 20 {
		add(t, store, 0, int(groupbinlog.InlineLimit)) // streamed, so read from the file
	}
	if _, err := store.Sync(); err != nil {
		t.Fatal(err)
	}
	damage(t, store.Files()[0].Path, int64(10*groupbinlog.InlineLimit))
	failed := make(chan error, 1)
	opt := testOptions(t, store)
	opt.Failed = func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	f, _ := startFeed(t, opt)
	r := connect(t, f, "r1", nil)
	if err := r.ended(); !isEOF(err) {
		t.Errorf("a damaged transaction must only drop the connection: %v", err)
	}
	if err := <-failed; !errors.Is(err, groupbinlog.ErrCorrupt) {
		t.Errorf("reported %v", err)
	}
}

func FuzzParseDump(f *testing.F) {
	f.Add(dumpPayload(2, nil))
	f.Add(dumpPayload(4, have(binlog.Interval{Start: 1, End: 3}, binlog.Interval{Start: 9, End: 10})))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDump(b)
		if err == nil {
			_ = d.gtids.Of(group, "").Low()
		}
	})
}

// BenchmarkStream is one receiver catching up with a backlog that is read from
// files, 300 bytes a transaction.
func BenchmarkStream(b *testing.B) {
	store, err := groupbinlog.Open(b.TempDir(), groupbinlog.Options{GroupUUID: testGroup, Logger: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	body, err := binlog.AppendQuery(nil, 1, 0, &binlog.Query{SQL: bytes.Repeat([]byte{'x'}, 200)})
	if err != nil {
		b.Fatal(err)
	}
	for n := uint64(1); n <= uint64(b.N); n++ {
		m := binlog.Meta{Kind: binlog.KindTransaction, OriginalServerVersion: 90704}
		if err := store.Append(n, n-1, m, bytes.NewReader(body), int64(len(body))); err != nil {
			b.Fatal(err)
		}
	}
	r, err := store.NewReader(0)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	s := &session{f: &Feed{opt: Options{Skip: func(uint64) bool { return false }}}}
	b.ResetTimer()
	b.ReportAllocs()
	w := newPacketWriter(io.Discard, 0)
	if _, err := s.backlog(r, nil, w, newClock(0)); err != nil {
		b.Fatal(err)
	}
}
