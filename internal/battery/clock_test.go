package battery

import (
	"context"
	"math"
	"testing"
	"time"

	"cohort/internal/mysqld"
	"cohort/internal/skip"
)

// A mysqld's clock jumps while it runs, both ways; started again, it finds it as it was
// set; what it waits for by the other clock is not disturbed.
func TestClock(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	path, err := clockMysqld(ctx)
	if err != nil {
		skip.For(t, "no clocks of one's own here: ", err)
	}
	in, err := mysqld.Find(ctx, mysqld.FindOptions{Path: path, NoFetch: true})
	if err != nil {
		t.Fatal(err)
	}
	o := mysqld.Options{Dir: t.TempDir(), KillWithParent: true, Settings: []string{"innodb_buffer_pool_size=64M"}}
	if err := in.InitializeFromTemplate(ctx, o); err != nil {
		t.Fatal(err)
	}
	clock := &wallClock{o.Dir}
	for _, jumps := range [][]time.Duration{{0, time.Hour, -10 * time.Minute, 24 * time.Hour}, {24 * time.Hour, 0}} {
		p, err := in.Start(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		for i, by := range jumps {
			if i > 0 { // the first is what it starts with
				if err := clock.set(by); err != nil {
					t.Fatal(err)
				}
			}
			awaitClock(ctx, t, p.Socket, by)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitClock returns once the clock of the mysqld at socket is off by so much.
func awaitClock(ctx context.Context, t *testing.T, socket string, by time.Duration) {
	t.Helper()
	db, err := mysqld.Open(socket, "root", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var off float64
	for {
		var now float64
		if err := db.QueryRowContext(ctx, "SELECT SLEEP(0.1) + UNIX_TIMESTAMP(SYSDATE(6))").Scan(&now); err != nil {
			t.Fatalf("off by %.0f s instead of %s: %v", off, by, err)
		}
		off = now - float64(time.Now().UnixMicro())/1e6
		if math.Abs(off-by.Seconds()) < 250 { // this machine's load is not what is looked at
			return
		}
	}
}
