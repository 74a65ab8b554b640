package groupbinlog

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cohort/internal/binlog"
)

// FuzzOpen opens a directory whose one file holds arbitrary bytes. Nothing may
// panic; what Open takes for whole transactions must be readable; Truncate to
// anywhere behind it must fail. Checksums are mended first, so that mutations
// get past them.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	s, err := Open(dir, testOptions())
	if err != nil {
		f.Fatal(err)
	}
	for n := uint64(1); n <= 6; n++ {
		add(f, s, n, n/2, 20)
	}
	name := filepath.Base(s.Files()[0].Path)
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add(whole[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		b = bytes.Clone(b)
		reseal(b)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o640); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, testOptions())
		if err != nil {
			return
		}
		defer s.Close()
		r, err := s.NewReader(s.FirstN() - 1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for n := s.FirstN(); n <= s.LastN(); n++ {
			if got, ok, err := r.TryNext(); err != nil || !ok || got.N != n || got.Dep >= n {
				t.Fatalf("transaction %d of %d: %+v %v %v", n, s.LastN(), got, ok, err)
			}
		}
		pos := s.Position()
		if pos.File == 0 {
			return
		}
		wrong := pos
		wrong.Offset++
		if err := s.Truncate(wrong); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("truncate to %+v behind %+v: %v", wrong, pos, err)
		}
	})
}

// reseal makes the checksums of all whole events in b right.
func reseal(b []byte) {
	b = b[min(len(b), binlog.MagicSize):]
	for {
		ev, rest, err := binlog.NextEvent(b)
		if err != nil {
			return
		}
		if len(ev) >= binlog.MinEventSize {
			binlog.FixChecksum(ev)
		}
		b = rest
	}
}

// FuzzScan is FuzzOpen's verification without the file system, and so faster.
func FuzzScan(f *testing.F) {
	group, err := binlog.ParseUUID(testGroup)
	if err != nil {
		f.Fatal(err)
	}
	s := &Store{group: group, opt: Options{ServerVersion: "9.7.4"}}
	for _, first := range []uint64{1, 1000} {
		b := s.renderHeader(first)
		for n := first; n < first+5; n++ {
			b = binlog.AppendTransaction(b, binlog.Transaction{Group: group, N: n, SequenceNumber: int64(n-first) + 1}, testMeta(n), testBody(f, n, 10))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		reseal(b)
		br := bufio.NewReaderSize(bytes.NewReader(b), maxControlEvent)
		h, err := s.parseHeader(br)
		if err != nil {
			return
		}
		size := h.start
		for n := h.firstN; ; n++ {
			k, err := s.scanTransaction(h, br, n)
			if err != nil {
				break
			}
			size += k
		}
		if size > int64(len(b)) {
			t.Fatalf("found %d bytes of transactions in %d", size, len(b))
		}
	})
}
