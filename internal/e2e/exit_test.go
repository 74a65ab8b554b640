package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"cohort/internal/e2e/cluster"
)

// The primary loses its majority for longer than it may: a client that waits for
// a COMMIT gets error 1180, the member is in ERROR and in offline mode, which lets
// administrators in only; when the others are back START brings it back too.
func TestExitWithoutMajority(t *testing.T) {
	g := startGroup(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m := g.Primary
	plain := open(t, m.Through("plain", "plain"), "")
	execAll(t, plain, "CREATE TABLE x (id INT PRIMARY KEY)", "INSERT INTO x VALUES (1)")
	admin := open(t, m.Through("app", "plain"), "")
	execAll(t, admin, "SET GLOBAL group_replication_unreachable_majority_timeout = 1", "SET GLOBAL group_replication_autorejoin_tries = 0")
	waiting, err := plain.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	for _, other := range g.Members {
		if other.Name != m.Name {
			if err := g.Kill(ctx, other.Name, cluster.Proxy); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := waiting.ExecContext(ctx, "INSERT INTO x VALUES (2)"); errno(err) != 1180 {
		t.Errorf("who waits for the group is told: %v", err)
	}
	eventually(t, func() error {
		c := open(t, m.Through("plain", "plain"), "")
		if err := c.PingContext(ctx); errno(err) != 3032 && errno(err) != 6400 {
			return fmt.Errorf("a client is told: %w", err)
		}
		got, err := seen(t, admin)
		if err == nil && (len(got) != 1 || got[m.UUID] != "ERROR ") {
			err = fmt.Errorf("the member shows %v", got)
		}
		return err
	})
	if _, err := admin.ExecContext(ctx, "SET GLOBAL group_replication_force_members = 'a:1'"); errno(err) != 4118 || !strings.Contains(err.Error(), "Member is not ONLINE") {
		t.Errorf("forcing a membership: %v", err)
	}
	if _, err := admin.ExecContext(ctx, "INSERT INTO plain.x VALUES (3)"); errno(err) != 1290 {
		t.Errorf("a write: %v", err)
	}
	for _, other := range g.Members {
		if other.Name != m.Name {
			if err := g.Restart(ctx, other.Name, cluster.Proxy); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The others go on without it.
	for _, other := range g.Members {
		if other.Name != m.Name {
			eventually(t, func() error {
				_, err := open(t, other.Through("plain", "plain"), "").ExecContext(ctx, "INSERT IGNORE INTO x VALUES (4)")
				return err
			})
		}
	}
	execAll(t, admin, "START GROUP_REPLICATION")
	g.awaitOnline(t)
	onAll(t, g, "SELECT COUNT(*) FROM plain.x WHERE id <> 2", "2")
	g.check(t)
}
