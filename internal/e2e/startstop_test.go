package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"cohort/internal/e2e/cluster"
)

// seen is what a member shows of the group: states by member id.
func seen(t *testing.T, db interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}) (map[string]string, error) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT MEMBER_ID, MEMBER_STATE, MEMBER_ROLE FROM performance_schema.replication_group_members")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var id, state, role string
		if err := rows.Scan(&id, &state, &role); err != nil {
			return nil, err
		}
		out[id] = state + " " + role
	}
	return out, rows.Err()
}

// A member that is told to STOP leaves the group, which goes on without it; its
// own clients find its server, read-only; START brings it back with what was
// written meanwhile. A primary that stops is replaced.
func TestStopAndStart(t *testing.T) {
	g := startGroup(t)
	ctx := t.Context()
	setup := open(t, g.Secondary.Through("plain", "plain"), "")
	execAll(t, setup, "CREATE TABLE s (id INT AUTO_INCREMENT PRIMARY KEY, who VARCHAR(20))")
	for _, victim := range []cluster.Member{g.Secondary, g.Primary} {
		var other cluster.Member
		for _, m := range g.Members {
			if m.Name != victim.Name {
				other = m
			}
		}
		pool := open(t, victim.Through("app", "plain"), "")
		admin, err := pool.Conn(ctx) // one session, all the way
		if err != nil {
			t.Fatal(err)
		}
		exec := func(stmt string) error {
			_, err := admin.ExecContext(ctx, stmt)
			return err
		}
		db := open(t, other.Through("plain", "plain"), "")
		if err := exec("START GROUP_REPLICATION"); errno(err) != 3093 {
			t.Fatalf("START of a member that runs: %v", err)
		}
		if err := exec("STOP GROUP_REPLICATION"); err != nil {
			t.Fatal(err)
		}
		if err := exec("STOP GROUP_REPLICATION"); err != nil {
			t.Errorf("STOP of a member that is out: %v", err)
		}
		if got, err := seen(t, admin); err != nil || len(got) != 1 || got[victim.UUID] != "OFFLINE " {
			t.Errorf("a stopped member shows %v, %v", got, err)
		}
		// Its server is there to read from, and for nothing else.
		if err := exec("INSERT INTO s (who) VALUES ('nobody')"); errno(err) != 1290 {
			t.Errorf("a write on a stopped member: %v", err)
		}
		var n int
		if err := admin.QueryRowContext(ctx, "SELECT COUNT(*) FROM s").Scan(&n); err != nil {
			t.Error(err)
		}
		// The others go on without it.
		eventually(t, func() error {
			got, err := seen(t, db)
			primaries := 0
			for _, s := range got {
				if s == "ONLINE PRIMARY" {
					primaries++
				}
			}
			if err == nil && (len(got) != 2 || got[victim.UUID] != "" || primaries != 1) {
				err = fmt.Errorf("the others show %v", got)
			}
			return err
		})
		execAll(t, db, "INSERT INTO s (who) VALUES ('"+victim.Name+"')")
		if err := exec("START GROUP_REPLICATION"); err != nil {
			t.Fatal(err)
		}
		g.awaitOnline(t)
		execAll(t, open(t, victim.Through("plain", "plain"), ""), "INSERT INTO s (who) VALUES ('back')")
		if err := exec("INSERT INTO s (who) VALUES ('back too')"); err != nil {
			t.Errorf("the session that started it again: %v", err)
		}
		_ = admin.Close()
	}
	onAll(t, g, "SELECT GROUP_CONCAT(who ORDER BY id) FROM plain.s",
		fmt.Sprintf("%s,back,back too,%s,back,back too", g.Secondary.Name, g.Primary.Name))
	g.check(t)
}

// A group of which every member was stopped comes back by START alone.
func TestStopAllAndStart(t *testing.T) {
	g := startGroup(t)
	for _, verb := range []string{"STOP", "START"} {
		for _, m := range g.Members {
			db := open(t, m.Through("app", "plain"), "")
			execAll(t, db, verb+" GROUP_REPLICATION")
		}
	}
	g.awaitOnline(t)
	execAll(t, open(t, g.Secondary.Through("plain", "plain"), ""), "CREATE TABLE s (id INT PRIMARY KEY)", "INSERT INTO s VALUES (1)")
	onAll(t, g, "SELECT COUNT(*) FROM plain.s", "1")
	g.check(t)
}
