package e2e

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
)

// A secondary that stands still is UNREACHABLE, and nothing else: when it goes on
// it is ONLINE in the same view. Past group_replication_member_expel_timeout it
// is expelled, and comes back by itself.
func TestSuspicion(t *testing.T) {
	g := startGroup(t)
	victim := g.Secondary
	setTimeout := func(seconds int) {
		for _, m := range g.Members {
			if m.Name != victim.Name {
				execAll(t, open(t, m.Through("app", "plain"), ""), fmt.Sprintf("SET GLOBAL group_replication_member_expel_timeout = %d", seconds))
			}
		}
	}
	db := open(t, g.Primary.Through("app", "plain"), "")
	execAll(t, db, "CREATE TABLE s (id INT AUTO_INCREMENT PRIMARY KEY)")
	view := func() (id string) {
		if err := db.QueryRowContext(t.Context(), "SELECT VIEW_ID FROM performance_schema.replication_group_member_stats LIMIT 1").Scan(&id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	signal := func(s syscall.Signal) {
		if err := errors.Join(syscall.Kill(victim.Pid, s), syscall.Kill(victim.MysqldPid, s)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_, _ = syscall.Kill(victim.Pid, syscall.SIGCONT), syscall.Kill(victim.MysqldPid, syscall.SIGCONT)
	})
	shows := func(want string) {
		t.Helper()
		eventually(t, func() error {
			got, err := seen(t, db)
			if err == nil && got[victim.UUID] != want {
				err = fmt.Errorf("%s shows as %q, want %q", victim.Name, got[victim.UUID], want)
			}
			return err
		})
	}
	setTimeout(3600)
	before := view()
	signal(syscall.SIGSTOP)
	shows("UNREACHABLE SECONDARY")
	execAll(t, db, "INSERT INTO s VALUES ()") // the others are a majority
	signal(syscall.SIGCONT)
	shows("ONLINE SECONDARY")
	if now := view(); now != before {
		t.Errorf("the view was %s and is %s", before, now)
	}
	setTimeout(0)
	signal(syscall.SIGSTOP)
	shows("")
	execAll(t, db, "INSERT INTO s VALUES ()")
	signal(syscall.SIGCONT)
	g.awaitOnline(t)
	onAll(t, g, "SELECT COUNT(*) FROM plain.s", "2")
	g.noStaleReads(t) // and the primary is expelled meanwhile
	g.check(t)
}
