package e2e

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"cohort/internal/e2e/cluster"
	"cohort/internal/loadgen"
)

// memory reads a line of /proc/PID/status, in bytes. VmHWM is the peak.
func memory(t *testing.T, pid int, line string) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(text, line+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no %s for process %d", line, pid)
	return 0
}

// A thousand idle connections cost a member less than 100 MB.
func TestIdleConnections(t *testing.T) {
	g := sharedGroup(t)
	for _, m := range []cluster.Member{g.Primary, g.Secondary} {
		before := memory(t, m.Pid, "VmRSS")
		var wg sync.WaitGroup
		conns := make([]*loadgen.Conn, 1000)
		slots := make(chan struct{}, 16)
		for i := range conns {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				c, err := loadgen.Dial(t.Context(), m.Through("plain", "plain"))
				if err != nil {
					t.Error(err)
					return
				}
				conns[i] = c
				if _, err := c.Query("SELECT 1"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		after := memory(t, m.Pid, "VmRSS")
		t.Logf("%s: %d MB before, %d MB with 1000 connections", m.Role, before>>20, after>>20)
		if after-before > 100<<20 {
			t.Errorf("%s: 1000 idle connections cost %d MB", m.Role, (after-before)>>20)
		}
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
		// The primary's mysqld has room for the sessions of one member at a time.
		server := open(t, g.Primary.Direct(), "")
		eventually(t, func() error {
			var n int
			err := server.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM information_schema.PROCESSLIST").Scan(&n)
			if err == nil && n > 500 {
				err = fmt.Errorf("%d sessions are left", n)
			}
			return err
		})
	}
	g.check(t)
}

// A transaction just below the size limit passes through a secondary's member
// while others go on committing, within 1 GiB of memory on every member; one
// above it is refused with 3100 and leaves nothing.
func TestLargeTransactions(t *testing.T) {
	g := startGroup(t, "innodb_redo_log_capacity=1G", "max_binlog_cache_size=1G")
	db := open(t, g.Secondary.Through("plain", "plain"), "")
	execAll(t, db, "CREATE TABLE big (id INT AUTO_INCREMENT PRIMARY KEY, b MEDIUMBLOB)", "CREATE TABLE small (id INT AUTO_INCREMENT PRIMARY KEY)")

	var commits atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for ctx.Err() == nil {
				if _, err := db.Exec("INSERT INTO small () VALUES ()"); err != nil {
					t.Error(err)
					return
				}
				commits.Add(1)
			}
		})
	}
	const row = 1 << 20
	large := func(rows int) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		body := []byte(strings.Repeat("0123456789abcdef", row/16))
		for i := range rows {
			copy(body, fmt.Sprintf("row %d", i))
			if _, err := tx.Exec("INSERT INTO big (b) VALUES (?)", body); err != nil {
				return err
			}
		}
		before := commits.Load()
		err = tx.Commit()
		t.Logf("%d MB: %d others committed meanwhile, %v", rows, commits.Load()-before, err)
		if err == nil && commits.Load() == before {
			t.Error("nobody else could commit during a large transaction")
		}
		return err
	}
	if err := large(140); err != nil {
		t.Errorf("140 MB: %v", err)
	}
	if err := large(160); errno(err) != 3100 {
		t.Errorf("160 MB: %v, want error 3100", err)
	}
	stop()
	others.Wait()
	onAll(t, g, "SELECT COUNT(*) FROM plain.big", "140")
	for _, m := range g.awaitOnline(t) {
		peak := memory(t, m.Pid, "VmHWM")
		t.Logf("%s: peak of %d MB", m.Role, peak>>20)
		if peak > 1<<30 {
			t.Errorf("%s: peak of %d MB", m.Role, peak>>20)
		}
	}
	g.check(t)
}
