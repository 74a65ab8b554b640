package e2e

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cohort/internal/e2e/cluster"
)

// Two of three members are lost. What waits on the third one completes when it is
// made the group, whoever was the primary; the lost ones rejoin when they are back,
// although they would be a majority of the three that there were.
func TestForceMembers(t *testing.T) {
	g := startGroup(t)
	execAll(t, open(t, g.Primary.Through("plain", "plain"), ""), "CREATE TABLE f (id INT PRIMARY KEY)", "INSERT INTO f VALUES (1)")
	g.forceAlone(t, g.Primary, 10)
	members := g.awaitOnline(t)
	secondary, err := cluster.Secondary(members)
	if err != nil {
		t.Fatal(err)
	}
	g.forceAlone(t, secondary, 20)
	onAll(t, g, "SELECT GROUP_CONCAT(id ORDER BY id) FROM plain.f", "1,10,11,12,20,21,22")
	g.check(t)

	// The variable must be empty when the member starts.
	for _, m := range g.Members {
		if m.Name != secondary.Name {
			continue
		}
		admin := open(t, m.Through("app", "plain"), "")
		execAll(t, admin, "STOP GROUP_REPLICATION")
		if _, err := admin.ExecContext(t.Context(), "START GROUP_REPLICATION"); errno(err) != 3092 {
			t.Errorf("START with group_replication_force_members: %v", err)
		}
		if _, err := admin.ExecContext(t.Context(), "SET GLOBAL group_replication_force_members = 'a:1'"); errno(err) != 4118 || !strings.Contains(err.Error(), "Member is not ONLINE") {
			t.Errorf("forcing on a stopped member: %v", err)
		}
		execAll(t, admin, "SET GLOBAL group_replication_force_members = ''", "START GROUP_REPLICATION")
	}
	g.check(t)
}

// forceAlone kills everybody but one member, makes that the group, and brings the
// others back. It inserts three rows from id on.
func (g *group) forceAlone(t *testing.T, m cluster.Member, id int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	// What it does not have would be lost.
	g.check(t)
	admin, db := open(t, m.Through("app", "plain"), ""), open(t, m.Through("plain", "plain"), "")
	one := func(query string) (s string) {
		t.Helper()
		if err := admin.QueryRowContext(ctx, query).Scan(&s); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		return s
	}
	address := one("SELECT @@GLOBAL.group_replication_local_address")
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer cancel() // before that, which waits for what runs
	if err := conn.PingContext(ctx); err != nil {
		t.Fatal(err)
	}
	// The primary last: no other one can be elected then.
	lost := slices.DeleteFunc(g.awaitOnline(t), func(x cluster.Member) bool { return x.Name == m.Name })
	slices.SortFunc(lost, func(a, b cluster.Member) int { return cmp.Compare(b.Role, a.Role) })
	for _, other := range lost {
		if err := g.Kill(ctx, other.Name, cluster.Both); err != nil {
			t.Fatal(err)
		}
	}
	// A client that comes now is let in.
	eventually(t, func() error {
		db := open(t, m.Through("app", "plain"), "timeout=5s")
		defer db.Close()
		got, err := seen(t, db)
		if err == nil && got[m.UUID] == "" {
			err = fmt.Errorf("it sees %v", got)
		}
		return err
	})
	view := one("SELECT VIEW_ID FROM performance_schema.replication_group_member_stats LIMIT 1")
	insert := func(conn *sql.Conn, id int) error {
		_, err := conn.ExecContext(ctx, fmt.Sprintf("INSERT INTO f VALUES (%d)", id))
		return err
	}
	// Where the primary is left a write waits. Elsewhere there is nothing that would
	// carry it out: it is refused, and works once there is a primary.
	waits := m.Role == "PRIMARY"
	done := make(chan error, 1)
	go func() { done <- insert(conn, id) }()
	const set = "SET GLOBAL group_replication_force_members = '%s'"
	// Until the majority is known to be lost.
	eventually(t, func() error {
		_, err := admin.ExecContext(ctx, fmt.Sprintf(set, "256.256.256.777:1234"))
		if errno(err) != 4118 || !strings.Contains(err.Error(), "Error setting group_replication_force_members value '256.256.256.777:1234'. Please check error log for additional details.") {
			return fmt.Errorf("a list of nobody: %w", err)
		}
		return nil
	})
	if waits {
		select {
		case err := <-done:
			t.Fatalf("an INSERT without a majority has ended: %v", err)
		default:
		}
	} else if err := <-done; errno(err) != 1105 {
		t.Fatalf("an INSERT without a majority and a primary: %v", err)
	}
	execAll(t, admin, fmt.Sprintf(set, address))
	if waits {
		if err := <-done; err != nil {
			t.Errorf("the INSERT that waited: %v", err)
		}
	} else if err := insert(conn, id); err != nil {
		t.Errorf("an INSERT with the new primary: %v", err)
	}
	if err := insert(conn, id+1); err != nil {
		t.Errorf("an INSERT afterwards: %v", err)
	}
	if got := one("SELECT @@GLOBAL.group_replication_force_members"); got != address {
		t.Errorf("the variable shows %q", got)
	}
	if now := one("SELECT VIEW_ID FROM performance_schema.replication_group_member_stats LIMIT 1"); now == view ||
		strings.Split(now, ":")[0] != strings.Split(view, ":")[0] {
		t.Errorf("the view was %s and is %s", view, now)
	}
	if got, err := seen(t, admin); err != nil || len(got) != 1 || got[m.UUID] != "ONLINE PRIMARY" {
		t.Errorf("the group is %v, %v", got, err)
	}
	for _, other := range lost {
		if err := g.Restart(ctx, other.Name, cluster.Both); err != nil {
			t.Fatal(err)
		}
	}
	if got := one("SELECT COUNT(*) FROM f WHERE id IN (1, " + fmt.Sprint(id, ", ", id+1) + ")"); got != "3" {
		t.Errorf("%s rows", got)
	}
	g.known(t)
	if err := insert(conn, id+2); err != nil {
		t.Errorf("an INSERT at last: %v", err)
	}
}
