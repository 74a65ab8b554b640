package consensus

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/lni/vfs"

	"cohort/internal/durable/durabletest"
	"cohort/internal/fsync"
	"cohort/internal/skip"
)

// A log has room, and is on the disk when it is said to be.
func TestLogFile(t *testing.T) {
	t.Run("fsync(2)", func(t *testing.T) { testLogFile(t, nil) })
	t.Run("asynchronous", func(t *testing.T) {
		s, err := fsync.New()
		if err != nil {
			skip.For(t, "no asynchronous I/O: ", err)
		}
		testLogFile(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func testLogFile(t *testing.T, s *fsync.Syncer) {
	fs := logFS{vfs.Default, s}
	dir := durabletest.Dir(t)
	name := filepath.Join(dir, "000001.log")
	f, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := f.(logFile); !ok {
		t.Fatalf("%T", f)
	}
	fi, err := os.Stat(name)
	if err != nil || fi.Size() != 0 {
		t.Fatal(fi, err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Blocks*512 < logSize {
		t.Errorf("room for %d bytes", st.Blocks*512)
	}
	want := bytes.Repeat([]byte("entry"), 5000)
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if n := durabletest.Unstable(t, name); n != 0 {
		t.Errorf("%d pages are not on the disk", n)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
		t.Fatal(len(got), err)
	}
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if n := durabletest.Unstable(t, name); n != 0 {
		t.Errorf("%d pages of a full log are not on the disk", n)
	}
	other, err := fs.Create(filepath.Join(dir, "MANIFEST"))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := other.(logFile); ok {
		t.Error("not only logs")
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
}
