package groupbinlog

import (
	"bytes"
	"context"
	"hash/crc32"
	"io"
	"runtime"
	"testing"

	"cohort/internal/binlog"
)

// repeated is a body of count copies of one event, without holding them.
type repeated struct {
	event []byte
	left  int64
	at    int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), r.left)], r.event[r.at:])
	r.at = (r.at + n) % len(r.event)
	r.left -= int64(n)
	return n, nil
}

// TestLargeTransactionPassesThrough: 150 MB in and out again, holding next to
// nothing of it in memory, with small ones before and behind.
func TestLargeTransactionPassesThrough(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	r, err := s.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	add(t, s, 1, 0, 100)
	event, err := binlog.AppendQuery(nil, 1, 0, &binlog.Query{SQL: bytes.Repeat([]byte{'r'}, 8<<10)})
	if err != nil {
		t.Fatal(err)
	}
	length := int64(len(event)) * (150_000_000 / int64(len(event)))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := s.Append(2, 1, testMeta(2), &repeated{event: event, left: length}, length); err != nil {
		t.Fatal(err)
	}
	add(t, s, 3, 2, 100)
	for n := uint64(1); n <= 3; n++ {
		got, err := r.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if n != 2 {
			check(t, got, n-1, 100)
			continue
		}
		if got.Raw != nil || got.Dep != 1 || got.Meta != testMeta(2) {
			t.Fatalf("large transaction %+v", got)
		}
		sum, want := crc32.NewIEEE(), crc32.NewIEEE()
		src := got.Bytes()
		gtid, err := readEvent(src, maxControlEvent)
		if err != nil {
			t.Fatal(err)
		}
		k, err := io.Copy(sum, src)
		if err != nil || k != length+binlog.XIDSize || got.Size != k+int64(len(gtid)) {
			t.Fatalf("read %d bytes, size %d: %v", k, got.Size, err)
		}
		if _, err := io.Copy(want, &repeated{event: event, left: length}); err != nil {
			t.Fatal(err)
		}
		want.Write(binlog.AppendXID(nil, got.Meta.Timestamp, 2))
		if sum.Sum32() != want.Sum32() {
			t.Fatal("the bytes differ")
		}
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
		t.Errorf("allocated %d bytes for a transaction of %d", used, length)
	}
	pos := mustSync(t, s)
	s.Close()
	s = open(t, s.dir, testOptions())
	if s.Position() != pos {
		t.Fatalf("reopened at %+v, want %+v", s.Position(), pos)
	}
}

func BenchmarkAppend(b *testing.B) {
	s := open(b, b.TempDir(), testOptions())
	bodies := [][]byte{testBody(b, 1, 300)}
	r := bytes.NewReader(nil)
	b.ReportAllocs()
	for n := uint64(1); b.Loop(); n++ {
		r.Reset(bodies[0])
		if err := s.Append(n, n-1, testMeta(1), r, int64(len(bodies[0]))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFollow(b *testing.B) {
	s := open(b, b.TempDir(), testOptions())
	body := testBody(b, 1, 300)
	r, err := s.NewReader(0)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for n := uint64(1); b.Loop(); n++ {
		if err := s.Append(n, n-1, testMeta(1), bytes.NewReader(body), int64(len(body))); err != nil {
			b.Fatal(err)
		}
		if _, ok, err := r.TryNext(); !ok || err != nil {
			b.Fatal(err)
		}
	}
}
