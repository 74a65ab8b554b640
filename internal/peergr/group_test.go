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
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
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
		if late, err := s.ask(ctx, "SELECT WAIT_FOR_EXECUTED_GTID_SET('"+executed+"', 120)"); err != nil || late != "0" {
			t.Fatalf("%s does not come to hold it: %q, %v", s.Name, late, err)
		}
		if got, err := s.ask(ctx, "SELECT SUM(id) FROM d.t"); err != nil || got != "7" {
			t.Errorf("%s holds %q: %v", s.Name, got, err)
		}
	}
	eventually(t, func() error { return g.AllOnline(ctx) })
}

// A router that follows the group takes clients to the primary that was elected,
// and the one that was killed joins again.
func TestRouterFollowsPrimary(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	g, err := Start(ctx, Options{Installation: installation(t), Dir: t.TempDir(), Router: true, RouterFollows: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	if err := g.Primary().run(ctx, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	first, err := g.Elected(ctx)
	if err != nil || first != g.Primary() {
		t.Fatalf("the first primary: %v", err)
	}
	insert := func(id string) error {
		c, err := loadgen.Dial(ctx, g.Router.App())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Query("INSERT INTO d.t VALUES (" + id + ")")
		return err
	}
	if err := insert("1"); err != nil {
		t.Fatal(err)
	}
	if err := first.proc.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return insert("2") })
	if second, err := g.Elected(ctx); err != nil || second == first {
		t.Errorf("the second primary: %v", err)
	}
	if err := g.Rejoin(ctx, first); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return g.AllOnline(ctx) })
	if err := g.Synchronise(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := first.ask(ctx, "SELECT COUNT(*) FROM d.t"); err != nil || n != "2" {
		t.Errorf("the first primary has %s rows: %v", n, err)
	}
}

func eventually(t *testing.T, what func() error) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	for {
		err := what()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
