package fsync_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"cohort/internal/durable/durabletest"
	"cohort/internal/fsync"
	"cohort/internal/skip"
)

func newSyncer(t *testing.T) *fsync.Syncer {
	t.Helper()
	s, err := fsync.New()
	if err != nil {
		skip.For(t, "no asynchronous I/O: ", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// What was written is on the disk, not in memory only. Callers take turns.
func TestSync(t *testing.T) {
	s := newSyncer(t)
	dir := durabletest.Dir(t)
	var wg sync.WaitGroup
	for k := range 3 {
		wg.Go(func() {
			f, err := os.Create(filepath.Join(dir, strconv.Itoa(k)))
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			unstable := false
			for i := range 100 {
				if _, err := f.Write(make([]byte, 1+i*97)); err != nil {
					t.Error(err)
				}
				unstable = unstable || durabletest.Unstable(t, f.Name()) > 0
				if err := s.Sync(f); err != nil {
					t.Error(err)
				}
				if n := durabletest.Unstable(t, f.Name()); n != 0 {
					t.Errorf("%d pages are not on the disk", n)
				}
			}
			if !unstable {
				t.Error("nothing was ever in memory only")
			}
		})
	}
	wg.Wait()
}

// What fails says so, and the next one is none the worse.
func TestSyncFails(t *testing.T) {
	s := newSyncer(t)
	r, w, err := os.Pipe() // has no fsync
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.Sync(w); !errors.Is(err, syscall.EINVAL) {
			t.Fatal(err)
		}
		if err := s.Sync(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(f); err == nil {
		t.Fatal("a closed file was synced")
	}
}
