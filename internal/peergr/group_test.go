package peergr

import (
	"context"
	"testing"
	"time"

	"cohort/internal/loadgen"
	"cohort/internal/mysqld"
)

// installation is a stock server with MySQL Router.
func installation(t *testing.T) *mysqld.Installation {
	t.Helper()
	in, err := mysqld.Find(t.Context(), mysqld.FindOptions{With: []string{mysqld.WithRouter}})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// A write through the router reaches every member.
func TestGroupReplicatesBehindRouter(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	g, err := Start(ctx, Options{Installation: installation(t), Dir: t.TempDir(), Router: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	c, err := loadgen.Dial(ctx, g.Router.App())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, sql := range []string{"CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (7)"} {
		if _, err := c.Query(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	executed, err := c.QueryString("SELECT @@GLOBAL.gtid_executed")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range g.Servers {
		if _, err := s.ask(ctx, "SELECT WAIT_FOR_EXECUTED_GTID_SET('"+executed+"', 30)"); err != nil {
			t.Fatal(err)
		}
		if got, err := s.ask(ctx, "SELECT SUM(id) FROM d.t"); err != nil || got != "7" {
			t.Errorf("%s holds %q: %v", s.Name, got, err)
		}
		if n, err := s.ask(ctx, "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE = 'ONLINE'"); err != nil || n != "3" {
			t.Errorf("%s sees %s members ONLINE: %v", s.Name, n, err)
		}
	}
}
