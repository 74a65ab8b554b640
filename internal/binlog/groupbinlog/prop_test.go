package groupbinlog

import (
	"bytes"
	"context"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"pgregory.net/rapid"
)

// TestModel runs random histories of appends, syncs, crashes and purges
// against a list.
func TestModel(t *testing.T) {
	base := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		dirs := 0
		newDir := func() string {
			dirs++
			return filepath.Join(base, strconv.Itoa(run), strconv.Itoa(dirs))
		}
		opt := Options{
			GroupUUID: testGroup, Logger: zerolog.Nop(),
			MaxFileSize: rapid.Int64Range(1, 5000).Draw(rt, "file size"),
			TailBytes:   rapid.Int64Range(1, 20000).Draw(rt, "tail"),
		}
		type txn struct {
			dep  uint64
			size int
		}
		var (
			dir    = newDir()
			s      *Store
			model  []txn // model[n-1]
			synced Position
			first  = uint64(1)
		)
		openStore := func() {
			var err error
			if s, err = Open(dir, opt); err != nil {
				rt.Fatal(err)
			}
		}
		openStore()
		defer func() { s.Close() }()
		dep := func(n uint64) uint64 { return model[n-1].dep }
		size := func(n uint64) int { return model[n-1].size }
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				for range rapid.IntRange(1, 8).Draw(rt, "count") {
					n := uint64(len(model)) + 1
					x := txn{rapid.Uint64Range(0, n-1).Draw(rt, "dep"), rapid.IntRange(0, 600).Draw(rt, "size")}
					if rapid.IntRange(0, 300).Draw(rt, "large") == 0 {
						x.size += int(InlineLimit)
					}
					model = append(model, x)
					body := testBody(t, n, x.size)
					if err := s.Append(n, x.dep, testMeta(n), bytes.NewReader(body), int64(len(body))); err != nil {
						rt.Fatal(err)
					}
				}
			},
			"sync": func(rt *rapid.T) {
				var err error
				if synced, err = s.Sync(); err != nil {
					rt.Fatal(err)
				}
				if synced.LastN != uint64(len(model)) {
					rt.Fatalf("synced %+v, appended %d", synced, len(model))
				}
			},
			"crash": func(rt *rapid.T) {
				fresh := newDir()
				copyDir(t, s.dir, fresh)
				s.Close()
				dir = fresh
				openStore()
				if s.LastN() < synced.LastN {
					rt.Fatalf("lost %d of %d", s.LastN(), synced.LastN)
				}
				if err := s.Truncate(synced); err != nil {
					rt.Fatal(err)
				}
				model = model[:synced.LastN]
				if synced == (Position{}) {
					first = 1
				}
			},
			"restart": func(rt *rapid.T) {
				s.Close()
				openStore()
				if s.LastN() != uint64(len(model)) {
					rt.Fatalf("reopened with %d of %d", s.LastN(), len(model))
				}
				synced = Position{}
				if p, err := s.Sync(); err != nil {
					rt.Fatal(err)
				} else {
					synced = p
				}
			},
			"purge": func(rt *rapid.T) {
				upto := rapid.Uint64Range(0, uint64(len(model))).Draw(rt, "upto")
				if _, err := s.Purge(upto); err != nil {
					rt.Fatal(err)
				}
				if f := s.FirstN(); f < first || f > max(upto+1, first) {
					rt.Fatalf("purged to %d, first is %d", upto, f)
				}
				first = s.FirstN()
			},
			"read": func(rt *rapid.T) {
				from := rapid.Uint64Range(first-1, uint64(len(model))).Draw(rt, "from")
				readTo(t, s, from, uint64(len(model)), dep, size)
			},
			"": func(rt *rapid.T) {
				if s.LastN() != uint64(len(model)) {
					rt.Fatalf("last %d, model %d", s.LastN(), len(model))
				}
			},
		})
		readTo(t, s, first-1, uint64(len(model)), dep, size)
	})
}

func TestConcurrentReaders(t *testing.T) {
	opt := testOptions()
	opt.MaxFileSize = 100 << 10
	opt.TailBytes = 20 << 10
	s := open(t, t.TempDir(), opt)
	const total = 3000
	size := func(n uint64) int {
		if n%1000 == 0 {
			return int(InlineLimit)
		}
		return int(n * 7919 % 900)
	}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			r, err := s.NewReader(uint64(i))
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			for n := uint64(i) + 1; n <= total; n++ {
				got, err := r.Next(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				if got.N != n {
					t.Errorf("got %d, want %d", got.N, n)
					return
				}
				if n%uint64(i+3) == 0 { // some are slower than others
					check(t, got, 0, size(n))
				}
			}
		})
	}
	for n := uint64(1); n <= total; n++ {
		add(t, s, n, n-1, size(n))
		if n%100 == 0 {
			mustSync(t, s)
		}
	}
	wg.Wait()
	// A crash during all this leaves every earlier position intact.
}

// TestCrashWhileWriting copies the directory while appends go on.
func TestCrashWhileWriting(t *testing.T) {
	opt := testOptions()
	opt.MaxFileSize = 50 << 10
	base := t.TempDir()
	s := open(t, filepath.Join(base, "live"), opt)
	stop := make(chan struct{})
	synced := make(chan Position)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(synced)
		for n := uint64(1); ; n++ {
			size := 500
			if n%50 == 0 {
				size = int(InlineLimit)
			}
			add(t, s, n, 0, size)
			if n%20 != 0 {
				continue
			}
			pos := mustSync(t, s)
			select {
			case synced <- pos:
			case <-stop:
				return
			}
		}
	})
	for i := range 10 {
		pos := <-synced
		dir := filepath.Join(base, strconv.Itoa(i))
		copyDir(t, s.dir, dir) // runs beside the next appends
		c := open(t, dir, opt)
		if err := c.Truncate(pos); err != nil {
			t.Fatal(err)
		}
		readTo(t, c, 0, pos.LastN, noDep, func(n uint64) int {
			if n%50 == 0 {
				return int(InlineLimit)
			}
			return 500
		})
		c.Close()
	}
	close(stop)
	wg.Wait()
}
