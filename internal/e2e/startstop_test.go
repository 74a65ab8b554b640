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

// lag keeps a secondary's mysqld from applying changes of the row, until the one who
// does so is ended for it.
func lag(t *testing.T, m cluster.Member) {
	t.Helper()
	c, err := open(t, m.Direct(), "").Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for _, sql := range []string{"BEGIN", "SELECT n FROM plain.seen WHERE id = 1 FOR SHARE"} {
		if _, err := c.ExecContext(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

// readsNoLess checks that a session of a member that is out of the group reads what it
// has seen, or is told that it cannot, which is right only where that is not there.
func readsNoLess(t *testing.T, session *sql.Conn, m cluster.Member, want int) {
	t.Helper()
	const query = "SELECT n FROM plain.seen WHERE id = 1"
	var got, here int
	err := session.QueryRowContext(t.Context(), query).Scan(&got)
	if own := open(t, m.Direct(), "").QueryRowContext(t.Context(), query).Scan(&here); own != nil {
		t.Fatal(own)
	}
	switch {
	case errno(err) == 1105 && here < want:
		// A session that begins now asks for what the member has.
		if err := open(t, m.Through("plain", "plain"), "").QueryRowContext(t.Context(), query).Scan(&got); err != nil || got != here {
			t.Errorf("a new session on %s reads %d, %v, its server has %d", m.Name, got, err, here)
		}
	case err != nil || got != want:
		t.Errorf("a session on %s that has seen %d reads %d, %v; its server has %d", m.Name, want, got, err, here)
	}
}

// A member that is told to STOP leaves the group, which goes on without it; its
// own clients find its server, read-only; START brings it back with what was
// written meanwhile. A primary that stops is replaced.
func TestStopAndStart(t *testing.T) {
	g := startGroup(t)
	ctx := t.Context()
	setup := open(t, g.Secondary.Through("plain", "plain"), "")
	execAll(t, setup, "CREATE TABLE s (id INT AUTO_INCREMENT PRIMARY KEY, who VARCHAR(20))")
	execAll(t, setup, "CREATE TABLE seen (id INT PRIMARY KEY, n INT)", "INSERT INTO seen VALUES (1, 0)")
	onAll(t, g, "SELECT n FROM plain.seen", "0")
	for i, victim := range []cluster.Member{g.Secondary, g.Primary} {
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
		if i == 0 {
			lag(t, victim)
		}
		if err := exec("UPDATE seen SET n = n + 1"); err != nil {
			t.Fatal(err)
		}
		if err := exec("STOP GROUP_REPLICATION"); err != nil {
			t.Fatal(err)
		}
		readsNoLess(t, admin, victim, i+1)
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
		readsNoLess(t, admin, victim, i+1)
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
	setup := open(t, g.Secondary.Through("plain", "plain"), "")
	execAll(t, setup, "CREATE TABLE seen (id INT PRIMARY KEY, n INT)", "INSERT INTO seen VALUES (1, 0)")
	for i, m := range g.Members {
		c, err := open(t, m.Through("app", "plain"), "").Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{"UPDATE seen SET n = n + 1", "STOP GROUP_REPLICATION"} {
			if _, err := c.ExecContext(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		readsNoLess(t, c, m, i+1)
	}
	for _, m := range g.Members {
		execAll(t, open(t, m.Through("app", "plain"), ""), "START GROUP_REPLICATION")
	}
	g.awaitOnline(t)
	execAll(t, open(t, g.Secondary.Through("plain", "plain"), ""), "CREATE TABLE s (id INT PRIMARY KEY)", "INSERT INTO s VALUES (1)")
	onAll(t, g, "SELECT COUNT(*) FROM plain.s", "1")
	g.check(t)
}
