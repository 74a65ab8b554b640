package groupbinlog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/binlog"
)

const testGroup = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

func testOptions() Options {
	return Options{GroupUUID: testGroup, Logger: zerolog.Nop()}
}

func open(t testing.TB, dir string, opt Options) *Store {
	t.Helper()
	s, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// testMeta and testBody are functions of n, so that what is read can be checked
// without a copy. Every fifth is a statement.
func testMeta(n uint64) binlog.Meta {
	m := binlog.Meta{
		Kind: binlog.KindTransaction, OriginalCommitTimestamp: 1700000000000000 + n,
		OriginalServerVersion: 90704, Timestamp: uint32(1700000000 + n),
	}
	if n%5 == 0 {
		m.Kind, m.GTIDFlags = binlog.KindStatement, binlog.GTIDFlagMayHaveSBR
	}
	return m
}

func testBody(t testing.TB, n uint64, size int) []byte {
	t.Helper()
	q := binlog.Query{Schema: []byte("test"), SQL: []byte("BEGIN")}
	if n%5 == 0 {
		q.SQL = fmt.Appendf(nil, "CREATE TABLE t%d (a INT) /* %s */", n, bytes.Repeat([]byte{'x'}, size))
	}
	b, err := binlog.AppendQuery(nil, 1700000000, 0, &q)
	if err != nil {
		t.Fatal(err)
	}
	if n%5 == 0 {
		return b
	}
	q.SQL = fmt.Appendf(nil, "INSERT INTO t VALUES (%d, '%s')", n, bytes.Repeat([]byte{'x'}, size))
	if b, err = binlog.AppendQuery(b, 1700000000, 0, &q); err != nil {
		t.Fatal(err)
	}
	return b
}

func add(t testing.TB, s *Store, n, dep uint64, size int) {
	t.Helper()
	body := testBody(t, n, size)
	if err := s.Append(n, dep, testMeta(n), bytes.NewReader(body), int64(len(body))); err != nil {
		t.Fatal(err)
	}
}

func mustSync(t testing.TB, s *Store) Position {
	t.Helper()
	pos, err := s.Sync()
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

// check compares a transaction with what add appended.
func check(t testing.TB, got Txn, dep uint64, size int) {
	t.Helper()
	raw, err := io.ReadAll(got.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(raw)) != got.Size {
		t.Fatalf("transaction %d: %d bytes, size %d", got.N, len(raw), got.Size)
	}
	ev, rest, err := binlog.NextEvent(raw)
	if err != nil {
		t.Fatal(err)
	}
	g, err := binlog.DecodeGTID(ev[:len(ev)-4])
	if err != nil {
		t.Fatal(err)
	}
	if err := binlog.VerifyChecksum(ev); err != nil {
		t.Fatal(err)
	}
	if g.String() != fmt.Sprintf("%s:%d", testGroup, got.N) || g.TransactionLength != uint64(got.Size) {
		t.Fatalf("GTID event %+v of transaction %d, size %d", g, got.N, got.Size)
	}
	want := testBody(t, got.N, size)
	if got.Meta != testMeta(got.N) {
		t.Fatalf("transaction %d: meta %+v", got.N, got.Meta)
	}
	if got.Meta.Kind == binlog.KindTransaction {
		want = binlog.AppendXID(want, got.Meta.Timestamp, got.N)
	}
	if !bytes.Equal(rest, want) {
		t.Fatalf("transaction %d: body differs (%d and %d bytes)", got.N, len(rest), len(want))
	}
	r, size64 := got.Body()
	if body, err := io.ReadAll(r); err != nil || int64(len(body)) != size64 || !bytes.Equal(body, testBody(t, got.N, size)) {
		t.Fatalf("transaction %d: Body differs (%d bytes of %d), %v", got.N, len(body), size64, err)
	}
	if got.Dep < dep || got.Dep >= got.N {
		t.Fatalf("transaction %d: dependency %d, appended with %d", got.N, got.Dep, dep)
	}
}

// readTo reads from afterN+1 to last and checks every transaction.
func readTo(t testing.TB, s *Store, afterN, last uint64, dep func(uint64) uint64, size func(uint64) int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := s.NewReader(afterN)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for n := afterN + 1; n <= last; n++ {
		got, err := r.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got.N != n {
			t.Fatalf("got %d, want %d", got.N, n)
		}
		check(t, got, dep(n), size(n))
	}
	if _, ok, err := r.TryNext(); ok && last == s.LastN() || err != nil {
		t.Fatalf("behind the last transaction: %v %v", ok, err)
	}
}

// copyDir is a crash: the copy holds what had been written to the files.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o750); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), b, 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

func noDep(uint64) uint64 { return 0 }
func constSize(n int) func(uint64) int {
	return func(uint64) int { return n }
}
