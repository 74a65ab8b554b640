package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"cohort/internal/e2e/cluster"
)

func errno(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

// eventually waits until what reports no error.
func eventually(t *testing.T, what func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := what()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%v (%v)", err, ctx.Err())
		}
	}
}

// onAll waits until a query gives the same one value on every member's server.
func onAll(t *testing.T, g *group, query, want string) {
	t.Helper()
	for _, m := range g.Members {
		db := open(t, m.Direct(), "")
		eventually(t, func() error {
			var got sql.NullString
			if err := db.QueryRowContext(t.Context(), query).Scan(&got); err != nil {
				return fmt.Errorf("%s: %s: %w", m.Name, query, err)
			}
			if got.String != want {
				return fmt.Errorf("%s: %s is %q, want %q", m.Name, query, got.String, want)
			}
			return nil
		})
		_ = db.Close()
	}
}

// What is committed through any member lands on all of them, as the
// unprivileged account, in every kind of transaction and as DDL.
func TestCommitLandsOnAllMembers(t *testing.T) {
	g := sharedGroup(t)
	for i, m := range g.Members {
		db := open(t, m.Through("plain", "plain"), "")
		table := fmt.Sprintf("t%d", i)
		execAll(t, db,
			"CREATE TABLE "+table+" (id INT AUTO_INCREMENT PRIMARY KEY, v INT)",
			"INSERT INTO "+table+" (v) VALUES (1)",
			"INSERT INTO "+table+" (v) VALUES (2), (3)",
			"ALTER TABLE "+table+" ADD COLUMN w INT DEFAULT 5",
			"UPDATE "+table+" SET w = v WHERE id = 2",
			"DELETE FROM "+table+" WHERE id = 3",
		)
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		for v := range 3 {
			if _, err := tx.Exec("INSERT INTO "+table+" (v) VALUES (?)", 10+v); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		onAll(t, g, "SELECT GROUP_CONCAT(CONCAT(v, ':', w) ORDER BY id) FROM plain."+table, "1:5,2:2,10:5,11:5,12:5")
		execAll(t, db, "TRUNCATE TABLE "+table, "DROP TABLE "+table)
		onAll(t, g, "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'plain'", "0")
	}
	app := open(t, g.Secondary.Through("app", ""), "")
	execAll(t, app, "CREATE USER late@'%' IDENTIFIED BY 'late'", "CREATE DATABASE late", "GRANT ALL ON late.* TO late@'%'", "CREATE TABLE late.c AS SELECT 1 AS id")
	onAll(t, g, "SELECT COUNT(*) FROM mysql.user WHERE user = 'late'", "1")
	execAll(t, app, "DROP USER late@'%'")
	g.check(t)
}

// The group is shown through any member with MySQL's columns.
func TestReplicationGroupMembers(t *testing.T) {
	g := sharedGroup(t)
	for _, m := range g.Members {
		db := open(t, m.Through("app", ""), "")
		rows, err := db.Query("SELECT * FROM performance_schema.replication_group_members")
		if err != nil {
			t.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"CHANNEL_NAME", "MEMBER_ID", "MEMBER_HOST", "MEMBER_PORT", "MEMBER_STATE", "MEMBER_ROLE", "MEMBER_VERSION", "MEMBER_COMMUNICATION_STACK"}
		if fmt.Sprint(columns) != fmt.Sprint(want) {
			t.Errorf("%s: columns %v", m.Name, columns)
		}
		var online, primaries int
		for rows.Next() {
			values := make([]sql.NullString, len(columns))
			into := make([]any, len(values))
			for i := range values {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				t.Fatal(err)
			}
			if values[4].String == "ONLINE" {
				online++
			}
			if values[5].String == "PRIMARY" {
				primaries++
				if values[1].String != g.Primary.UUID {
					t.Errorf("%s: primary is %s, want %s", m.Name, values[1].String, g.Primary.UUID)
				}
			}
		}
		if err := rows.Err(); err != nil || online != 3 || primaries != 1 {
			t.Errorf("%s: %d ONLINE, %d primaries, %v", m.Name, online, primaries, err)
		}
	}
	g.check(t)
}

// What cannot be certified is refused with Group Replication's error and leaves
// nothing behind.
func TestRequirementsRefused(t *testing.T) {
	g := sharedGroup(t)
	for _, m := range []cluster.Member{g.Primary, g.Secondary} {
		db := open(t, m.Through("plain", "plain"), "")
		execAll(t, db, "CREATE TABLE nokey (id INT)", "CREATE TABLE good (id INT PRIMARY KEY)")
		if _, err := db.Exec("INSERT INTO nokey VALUES (1)"); errno(err) != 3098 {
			t.Errorf("a table without a primary key: %v", err)
		}
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err = tx.Exec("INSERT INTO good VALUES (1)"); err != nil {
			t.Fatal(err)
		}
		if _, err = tx.Exec("INSERT INTO nokey VALUES (1)"); err == nil {
			err = tx.Commit()
		}
		if errno(err) != 3098 {
			t.Errorf("a transaction with such a table: %v", err)
		}
		_ = tx.Rollback()
		if _, err := db.Exec("CREATE TABLE my (id INT PRIMARY KEY) ENGINE=MyISAM"); err == nil {
			if _, err = db.Exec("INSERT INTO my VALUES (1)"); errno(err) != 3098 {
				t.Errorf("a table of another engine: %v", err)
			}
			execAll(t, db, "DROP TABLE my")
		}
		onAll(t, g, "SELECT (SELECT COUNT(*) FROM plain.nokey) + (SELECT COUNT(*) FROM plain.good)", "0")
		execAll(t, db, "INSERT INTO good VALUES (2)", "DROP TABLE nokey, good")
	}
	g.check(t)
}

// A clean stop of everything and a start again keep all data.
func TestStopAndStartAgain(t *testing.T) {
	g := startGroup(t)
	db := open(t, g.Secondary.Through("plain", "plain"), "")
	execAll(t, db, "CREATE TABLE kept (id INT PRIMARY KEY)", "INSERT INTO kept VALUES (1)")
	want := "1"
	for i := range rounds(t, 3) {
		want += fmt.Sprint(",", 10+i)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := g.Stop(ctx, "", cluster.Both); err != nil {
			t.Fatal(err)
		}
		if err := g.Restart(ctx, "", cluster.Both); err != nil {
			t.Fatal(err)
		}
		cancel()
		g.awaitOnline(t)
		eventually(t, func() error {
			_, err := db.Exec("INSERT INTO kept VALUES (?)", 10+i)
			if errno(err) == 1062 {
				return nil // an earlier attempt whose answer was lost
			}
			return err
		})
	}
	onAll(t, g, "SELECT GROUP_CONCAT(id ORDER BY id) FROM plain.kept", want)
	g.check(t)
}
