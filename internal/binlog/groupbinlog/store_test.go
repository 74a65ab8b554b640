package groupbinlog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cohort/internal/binlog"
)

func TestAppendReadReopen(t *testing.T) {
	dir := t.TempDir()
	opt := testOptions()
	opt.MaxFileSize = 4000
	opt.TailBytes = 2000
	s := open(t, dir, opt)
	if s.FirstN() != 1 || s.LastN() != 0 || s.Position() != (Position{}) {
		t.Fatal("a new store is not empty")
	}
	dep := func(n uint64) uint64 { return n / 2 }
	for n := uint64(1); n <= 100; n++ {
		add(t, s, n, dep(n), 100)
	}
	readTo(t, s, 0, 100, dep, constSize(100))
	readTo(t, s, 41, 100, dep, constSize(100))
	pos := mustSync(t, s)
	if pos.LastN != 100 || pos != s.Position() || pos.File < 5 {
		t.Fatalf("position %+v", pos)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, opt)
	if s.LastN() != 100 || s.Position() != pos {
		t.Fatalf("reopened at %+v, want %+v", s.Position(), pos)
	}
	readTo(t, s, 0, 100, dep, constSize(100))
	add(t, s, 101, 100, 100)
	readTo(t, s, 7, 101, dep, constSize(100))
	if again := mustSync(t, s); again.LastN != 101 {
		t.Fatalf("position %+v", again)
	}
}

func TestAppendOrder(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	body := testBody(t, 1, 10)
	for _, c := range []struct{ n, dep uint64 }{{2, 0}, {0, 0}, {1, 1}, {1, 7}} {
		if err := s.Append(c.n, c.dep, testMeta(1), bytes.NewReader(body), int64(len(body))); !errors.Is(err, ErrOrder) {
			t.Errorf("append %d depending on %d: %v", c.n, c.dep, err)
		}
	}
	if err := s.Append(1, 0, binlog.Meta{}, bytes.NewReader(body), int64(len(body))); !errors.Is(err, binlog.ErrMalformed) {
		t.Errorf("meta without a kind: %v", err)
	}
	add(t, s, 1, 0, 10) // none of these was a failure
}

func TestFailureIsFinal(t *testing.T) {
	for name, reader := range map[string]func([]byte) io.Reader{
		"short":    func(b []byte) io.Reader { return bytes.NewReader(b[:len(b)-1]) },
		"checksum": func(b []byte) io.Reader { b[len(b)-1] ^= 1; return bytes.NewReader(b) },
		"error":    func(b []byte) io.Reader { return io.MultiReader(bytes.NewReader(b[:30]), failing{}) },
	} {
		for _, size := range []int{10, int(InlineLimit) + 10} {
			dir := t.TempDir()
			s := open(t, dir, testOptions())
			add(t, s, 1, 0, 10)
			pos := mustSync(t, s)
			body := testBody(t, 2, size)
			if err := s.Append(2, 0, testMeta(2), reader(bytes.Clone(body)), int64(len(body))); err == nil {
				t.Fatalf("%s: append succeeded", name)
			}
			if err := s.Append(2, 0, testMeta(2), bytes.NewReader(body), int64(len(body))); !errors.Is(err, ErrFailed) {
				t.Fatalf("%s: append after a failure: %v", name, err)
			}
			if _, err := s.Sync(); !errors.Is(err, ErrFailed) {
				t.Fatalf("%s: sync after a failure: %v", name, err)
			}
			if s.Err() == nil || s.LastN() != 1 {
				t.Fatalf("%s: %v, last %d", name, s.Err(), s.LastN())
			}
			s.Close()
			s = open(t, dir, testOptions())
			if err := s.Truncate(pos); err != nil {
				t.Fatal(err)
			}
			add(t, s, 2, 0, size)
			readTo(t, s, 0, 2, noDep, func(n uint64) int { return map[uint64]int{1: 10, 2: size}[n] })
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("spill file is gone") }

func TestTruncateAfterCrash(t *testing.T) {
	base := t.TempDir()
	opt := testOptions()
	opt.MaxFileSize = 3000
	live := open(t, filepath.Join(base, "live"), opt)
	var positions []Position
	for n := uint64(1); n <= 40; n++ {
		add(t, live, n, 0, 300)
		if n%3 == 0 {
			positions = append(positions, mustSync(t, live))
		}
	}
	mustSync(t, live)
	for i, pos := range positions {
		dir := filepath.Join(base, "crash", string(rune('a'+i)))
		copyDir(t, live.dir, dir)
		s := open(t, dir, opt)
		if err := s.Truncate(pos); err != nil {
			t.Fatal(err)
		}
		if s.LastN() != pos.LastN || s.Position() != pos {
			t.Fatalf("truncated to %+v, is at %+v", pos, s.Position())
		}
		for n := pos.LastN + 1; n <= 40; n++ {
			add(t, s, n, 0, 300)
		}
		readTo(t, s, 0, 40, noDep, constSize(300))
		mustSync(t, s)
		// The same transactions in the same files are the same bytes.
		for _, f := range live.Files() {
			a, err := os.ReadFile(f.Path)
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(dir, filepath.Base(f.Path)))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a, b) {
				t.Fatalf("%s differs after truncation to %+v", f.Path, pos)
			}
		}
		s.Close()
	}
}

// TestTornTail cuts the last file at every length.
func TestTornTail(t *testing.T) {
	base := t.TempDir()
	opt := testOptions()
	opt.MaxFileSize = 700
	live := open(t, filepath.Join(base, "live"), opt)
	for n := uint64(1); n <= 4; n++ {
		add(t, live, n, 0, 100)
	}
	pos := mustSync(t, live)
	for n := uint64(5); n <= 7; n++ {
		add(t, live, n, 0, 100)
	}
	mustSync(t, live)
	files := live.Files()
	last := files[len(files)-1]
	for size := int64(0); size <= last.Size; size++ {
		dir := filepath.Join(base, "torn")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		copyDir(t, live.dir, dir)
		if err := os.Truncate(filepath.Join(dir, filepath.Base(last.Path)), size); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, opt)
		if err != nil {
			t.Fatalf("cut at %d: %v", size, err)
		}
		if s.torn != nil {
			body := testBody(t, s.LastN()+1, 1)
			if err := s.Append(s.LastN()+1, 0, testMeta(s.LastN()+1), bytes.NewReader(body), int64(len(body))); !errors.Is(err, ErrTornTail) {
				t.Fatalf("cut at %d: append to a torn tail: %v", size, err)
			}
			if _, err := s.Sync(); !errors.Is(err, ErrTornTail) {
				t.Fatalf("cut at %d: sync of a torn tail: %v", size, err)
			}
		}
		if err := s.Truncate(pos); err != nil {
			t.Fatalf("cut at %d: %v", size, err)
		}
		add(t, s, 5, 0, 100)
		readTo(t, s, 0, 5, noDep, constSize(100))
		s.Close()
	}
}

func TestDamageBelowPositionIsAnError(t *testing.T) {
	base := t.TempDir()
	live := open(t, filepath.Join(base, "live"), testOptions())
	for n := uint64(1); n <= 5; n++ {
		add(t, live, n, 0, 50)
	}
	pos := mustSync(t, live)
	name := filepath.Base(live.Files()[0].Path)
	whole, err := os.ReadFile(filepath.Join(live.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	damage := map[string]func(path string) error{
		"shortened": func(p string) error { return os.Truncate(p, pos.Offset-1) },
		"removed":   os.Remove,
	}
	for at := 0; at < len(whole); at += 7 {
		damage["flipped at "+string(rune('A'+at/7))] = func(p string) error {
			b := bytes.Clone(whole)
			b[at] ^= 0x10
			return os.WriteFile(p, b, 0o640)
		}
	}
	for what, do := range damage {
		dir := filepath.Join(base, "damaged")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		copyDir(t, live.dir, dir)
		if err := do(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, testOptions())
		if err != nil {
			continue // refused at once: fine
		}
		if err := s.Truncate(pos); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
		s.Close()
	}
}

func TestTruncateRefusesForeignPositions(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, testOptions())
	add(t, s, 1, 0, 10)
	if err := s.Truncate(Position{}); !errors.Is(err, ErrOrder) {
		t.Fatalf("truncate after append: %v", err)
	}
	pos := mustSync(t, s)
	s.Close()
	for _, bad := range []Position{
		{File: pos.File, Offset: pos.Offset - 1, LastN: 1}, {File: pos.File, Offset: pos.Offset + 1, LastN: 1},
		{File: pos.File, Offset: pos.Offset, LastN: 2}, {File: 9, Offset: pos.Offset, LastN: 1},
		{File: pos.File, Offset: 5, LastN: 0},
	} {
		s := open(t, dir, testOptions())
		if err := s.Truncate(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("truncate to %+v: %v", bad, err)
		}
		s.Close()
	}
	s = open(t, dir, testOptions())
	if err := s.Truncate(pos); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir, testOptions())
	if err := s.Truncate(Position{}); err != nil {
		t.Fatal(err)
	}
	if s.LastN() != 0 || len(s.Files()) != 0 {
		t.Fatal("not empty after truncation to nothing")
	}
	add(t, s, 1, 0, 10)
}

func TestReset(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, testOptions())
	add(t, s, 1, 0, 10)
	r, err := s.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	pos, err := s.Reset(500)
	if err != nil {
		t.Fatal(err)
	}
	if pos.LastN != 500 || s.LastN() != 500 || s.FirstN() != 501 {
		t.Fatalf("after reset: %+v", pos)
	}
	if _, err := r.Next(context.Background()); !errors.Is(err, ErrReset) {
		t.Fatalf("reader over a reset: %v", err)
	}
	if _, err := s.NewReader(499); !errors.Is(err, ErrPurged) {
		t.Fatalf("reader before the first: %v", err)
	}
	add(t, s, 501, 3, 10)
	add(t, s, 502, 500, 10)
	after := mustSync(t, s)
	s.Close()
	s = open(t, dir, testOptions())
	if err := s.Truncate(after); err != nil {
		t.Fatal(err)
	}
	readTo(t, s, 500, 502, noDep, constSize(10))
	s.Close()
	s = open(t, dir, testOptions())
	if err := s.Truncate(pos); err != nil {
		t.Fatal(err)
	}
	if s.LastN() != 500 {
		t.Fatalf("last %d", s.LastN())
	}
}

func TestPurge(t *testing.T) {
	opt := testOptions()
	opt.MaxFileSize = 1000
	opt.TailBytes = 1
	s := open(t, t.TempDir(), opt)
	for n := uint64(1); n <= 20; n++ {
		add(t, s, n, 0, 200)
	}
	r, err := s.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	if k, err := s.Purge(20); k != 0 || err != nil {
		t.Fatalf("purged %d files that a stored position may need: %v", k, err)
	}
	mustSync(t, s)
	mustSync(t, s)
	if k, _ := s.Purge(20); k != 0 {
		t.Fatalf("purged %d files before the position can have been stored", k)
	}
	mustSync(t, s)
	before := len(s.Files())
	k, err := s.Purge(10)
	if err != nil || k == 0 || k == before-1 {
		t.Fatalf("purged %d of %d: %v", k, before, err)
	}
	first := s.FirstN()
	if first > 11 || first < 5 {
		t.Fatalf("first is %d after a purge up to 10", first)
	}
	if _, err := s.NewReader(first - 2); !errors.Is(err, ErrPurged) {
		t.Fatalf("reader of purged transactions: %v", err)
	}
	readTo(t, s, first-1, 20, noDep, constSize(200))
	for err == nil { // its own file is still open, the next one is gone or not
		var got Txn
		if got, err = r.Next(context.Background()); err == nil {
			check(t, got, 0, 200)
			if got.N == 20 {
				return
			}
		}
	}
	if !errors.Is(err, ErrPurged) {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	opt := testOptions()
	opt.MaxFileSize = 500
	s := open(t, dir, opt)
	if _, err := Open(dir, opt); !errors.Is(err, ErrInUse) {
		t.Fatalf("second open: %v", err)
	}
	for n := uint64(1); n <= 10; n++ {
		add(t, s, n, 0, 200)
	}
	mustSync(t, s)
	s.Close()
	other := opt
	other.GroupUUID = "11111111-bbbb-cccc-dddd-eeeeeeeeeeee"
	if _, err := Open(dir, other); !errors.Is(err, ErrWrongGroup) {
		t.Fatalf("other group: %v", err)
	}
	other.GroupUUID = "nonsense"
	if _, err := Open(dir, other); err == nil {
		t.Fatal("a group name that is no UUID")
	}
	if err := os.Remove(filepath.Join(dir, fileName(2))); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, opt); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a file is missing: %v", err)
	}
}

func TestNextWaits(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	r, err := s.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := r.Next(ctx); !errors.Is(err, stop) {
		t.Fatalf("cancelled: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := r.Next(ctx); err != nil {
			got <- err
			return
		}
		_, err := r.Next(ctx)
		got <- err
	}()
	add(t, s, 1, 0, 10)
	s.Close()
	if err := <-got; !errors.Is(err, ErrClosed) {
		t.Fatalf("closed: %v", err)
	}
}
