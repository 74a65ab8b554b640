package battery

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"cohort/internal/skip"
)

// A filled disk takes nothing more, an emptied one does, and nothing stays
// mounted.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	image, home := filepath.Join(dir, "image"), filepath.Join(dir, "home")
	d, err := mountDisk(t.Context(), image, home)
	if err != nil {
		skip.For(t, "no disks of one's own here: ", err)
	}
	mounted := true
	defer func() {
		if mounted {
			_ = d.unmount(context.Background())
		}
	}()
	write := func() error { return os.WriteFile(filepath.Join(home, "file"), make([]byte, 64<<10), 0o600) }
	if err := d.fill(); err != nil {
		t.Fatal(err)
	}
	if err := write(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk took a file: %v", err)
	}
	if err := d.empty(); err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Errorf("an empty disk: %v", err)
	}
	s := &slowDisk{dir: home}
	s.start()
	s.start() // once is enough
	s.stop()
	s.stop()
	if left, err := filepath.Glob(filepath.Join(home, "churn*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := d.unmount(t.Context()); err != nil {
		t.Fatal(err)
	}
	mounted = false
	if _, err := os.Stat(image); !os.IsNotExist(err) {
		t.Errorf("the image is still there: %v", err)
	}
}

func TestGaps(t *testing.T) {
	at := func(n ...int) []time.Duration {
		var all []time.Duration
		for _, n := range n {
			all = append(all, ms(n))
		}
		return all
	}
	struck := []Struck{{At: ms(100)}, {At: ms(1000)}, {At: ms(3000)}}
	got := gaps(at(2100, 50, 150, 900, 1400, 3001), struck)
	// The last answer counts for the fault before it although it came after the
	// next: nothing was answered in between.
	want := at(750, 901, 1)
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %s, want %s", i, got[i], want[i])
		}
	}
}
