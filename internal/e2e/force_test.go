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
	"cohort/internal/e2e/ledger"
	"cohort/internal/loadgen"
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

// Three of five members are lost. The two that are left are made the group, by the one
// that is not the primary, and lose nothing that was acknowledged; what waited goes on.
// The three, which would be a majority of the five, join them when they are back.
func TestForceTwoMembers(t *testing.T) {
	// Nobody is expelled, or the last three would be a group whose two are a majority.
	g := startGroupWith(t, cluster.Options{Members: 5, MemberOptions: []string{"group_replication_member_expel_timeout=3600"}})
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	left := []cluster.Member{g.Secondary, g.Primary}
	lost := slices.DeleteFunc(slices.Clone(g.Members), func(m cluster.Member) bool {
		return m.Name == g.Primary.Name || m.Name == g.Secondary.Name
	})
	var list []string
	for _, m := range left {
		var address string
		if err := open(t, m.Through("app", ""), "").QueryRowContext(ctx, "SELECT @@GLOBAL.group_replication_local_address").Scan(&address); err != nil {
			t.Fatal(err)
		}
		list = append(list, address)
	}

	l := ledger.New([]ledger.Account{{User: "app", Schema: "e2e_app"}}, []ledger.Kind{ledger.Autocommit, ledger.Multi}, len(left))
	dial := func(_ context.Context, w ledger.Writer) (loadgen.Target, error) {
		return left[w.Member].Through(w.Account.User, ""), nil
	}
	if err := l.Prepare(ctx, dial); err != nil {
		t.Fatal(err)
	}
	stop := underLoad(ctx, l, dial)
	defer stop()
	part := cluster.Proxy
	for i, m := range lost {
		if i == len(lost)-1 {
			part = cluster.Both
			// What is acknowledged from now on is on all three that are left, and so is
			// what came before it.
			awaitProgress(t, l, 3)
		}
		if err := g.Kill(ctx, m.Name, part); err != nil {
			t.Fatal(err)
		}
	}
	// As soon as the majority is known to be lost.
	eventually(t, func() error {
		admin := open(t, left[0].Through("app", ""), "timeout=5s")
		defer admin.Close()
		_, err := admin.ExecContext(ctx, "SET GLOBAL group_replication_force_members = '"+strings.Join(list, ", ")+"'")
		return err
	})
	for _, m := range left {
		db := open(t, m.Through("app", ""), "")
		eventually(t, func() error {
			got, err := seen(t, db)
			if err == nil && (len(got) != 2 || !strings.HasPrefix(got[left[0].UUID], "ONLINE ") || !strings.HasPrefix(got[left[1].UUID], "ONLINE ")) {
				err = fmt.Errorf("%s shows %v", m.Name, got)
			}
			return err
		})
	}
	awaitProgress(t, l, 3)
	stop()
	t.Log(l.Summary())
	for _, m := range lost {
		if err := g.Restart(ctx, m.Name, cluster.Both); err != nil {
			t.Fatal(err)
		}
	}
	members := g.awaitOnline(t)
	g.known(t)
	g.check(t)
	for _, m := range members {
		if err := l.Verify(ctx, m.Direct()); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
	}
}
