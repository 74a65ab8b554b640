package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"

	"cohort/internal/e2e/cluster"
	"cohort/internal/loadgen"
)

// patience bounds every wait for something that must happen. It is generous:
// the tests say what happens, not how fast.
const patience = 3 * time.Minute

// group is a group of one test.
type group struct {
	*cluster.Cluster
	Members   []cluster.Member // as they were when the group had come up
	Primary   cluster.Member   // then; see now
	Secondary cluster.Member   // then; see now
}

// startGroup starts three members; options are name=value for the mysqlds.
func startGroup(t *testing.T, mysqldOptions ...string) *group {
	t.Helper()
	return startGroupWith(t, cluster.Options{MysqldOptions: mysqldOptions})
}

// startGroupWith starts a group with all options but the directory.
func startGroupWith(t *testing.T, o cluster.Options) *group {
	t.Helper()
	g := launch(t, o)
	t.Cleanup(func() { g.end(t) })
	g.look(t)
	return g
}

// launch starts a group that the caller ends.
func launch(t *testing.T, o cluster.Options) *group {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dir, err := os.MkdirTemp("", "cohort-e2e-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	o.Dir = dir
	c, err := cluster.Start(ctx, o)
	if err != nil {
		_ = os.RemoveAll(dir)
		t.Fatal(err)
	}
	return &group{Cluster: c}
}

func (g *group) end(t *testing.T) {
	if t.Failed() {
		g.keepLogs(t)
	}
	if err := g.remove(); err != nil {
		t.Error(err)
	}
}

func (g *group) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := g.Destroy(ctx)
	_ = os.RemoveAll(g.Dir())
	return err
}

// look waits until all members are ONLINE, know it of one another, and notes who
// they are.
func (g *group) look(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	if g.Members, err = g.AwaitOnline(ctx); err != nil {
		t.Fatal(err)
	}
	if g.Primary, err = cluster.Primary(g.Members); err != nil {
		t.Fatal(err)
	}
	if g.Secondary, err = cluster.Secondary(g.Members); err != nil {
		t.Fatal(err)
	}
	g.known(t)
}

// shared is the group of sharedGroup, nil while there is none.
var shared *group

func TestMain(m *testing.M) {
	code := m.Run()
	if shared != nil {
		if err := shared.remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// sharedGroup is a group for a test that stops no process and changes no setting:
// the next such test gets the same one, without schemas but an empty "plain".
// After a failure it gets another one.
func sharedGroup(t *testing.T) *group {
	t.Helper()
	if shared == nil {
		shared = launch(t, cluster.Options{MysqldOptions: []string{"local_infile=ON", "log_bin_trust_function_creators=ON"}})
	}
	g := shared
	t.Cleanup(func() {
		if t.Failed() {
			shared = nil
			g.end(t)
		}
	})
	g.look(t)
	app := open(t, g.Primary.Through("app", ""), "")
	rows, err := app.QueryContext(t.Context(), "SELECT CONCAT('DROP DATABASE `', schema_name, '`') FROM information_schema.schemata "+
		"WHERE schema_name NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var drop []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		drop = append(drop, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	execAll(t, app, append(drop, "CREATE DATABASE plain")...)
	_ = app.Close() // a member serves 1000 clients, which TestIdleConnections needs
	return g
}

// known waits until every member shows that all are ONLINE: each knows it of itself
// first.
func (g *group) known(t *testing.T) {
	t.Helper()
	for _, m := range g.Members {
		db := open(t, m.Through("app", ""), "")
		eventually(t, func() error {
			got, err := seen(t, db)
			for _, other := range g.Members {
				if !strings.HasPrefix(got[other.UUID], "ONLINE ") {
					return fmt.Errorf("%s shows %v, %v", m.Name, got, err)
				}
			}
			return err
		})
		_ = db.Close()
	}
}

// keepLogs has every member's process write its stacks to its log and end, and
// copies all logs to $COHORT_E2E_LOGS, if set; otherwise it shows their ends.
func (g *group) keepLogs(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if members, err := g.Status(ctx); err == nil {
		for _, m := range members {
			if m.Pid != 0 && syscall.Kill(m.Pid, syscall.SIGQUIT) == nil {
				eventually(t, func() error {
					if syscall.Kill(m.Pid, 0) == nil {
						return fmt.Errorf("%s has not ended", m.Name)
					}
					return nil
				})
			}
		}
	}
	keep := os.Getenv("COHORT_E2E_LOGS")
	_ = filepath.WalkDir(g.Dir(), func(path string, d os.DirEntry, err error) error {
		// The ordered log's own files end in .log too.
		if err != nil || d.IsDir() || d.Name() != "cohort.log" && d.Name() != "mysqld.log" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		rel, _ := filepath.Rel(g.Dir(), path)
		if keep != "" {
			name := strings.NewReplacer("/", "_", " ", "_").Replace(t.Name() + "-" + rel)
			if err := os.WriteFile(filepath.Join(keep, name), text, 0o644); err == nil {
				return nil
			}
		}
		t.Logf("end of %s:\n%s", rel, text[max(0, len(text)-4000):])
		return nil
	})
}

// now asks the group for its members until it can pick one of them: a member that
// does not answer at once shows no role.
func (g *group) now(ctx context.Context, pick func([]cluster.Member) (cluster.Member, error)) (m cluster.Member, err error) {
	err = g.awaitStatus(ctx, func(members []cluster.Member) (err error) {
		m, err = pick(members)
		return err
	})
	return m, err
}

// returned waits until all members are ONLINE and the one that was hit is a
// secondary: if it was the primary, the others elected another one meanwhile.
func (g *group) returned(ctx context.Context, was cluster.Member) error {
	return g.awaitStatus(ctx, func(members []cluster.Member) error {
		for _, m := range members {
			switch {
			case m.State != "ONLINE":
				return fmt.Errorf("%s is %s", m.Name, m.State)
			case m.Name == was.Name && m.Role != "SECONDARY":
				return fmt.Errorf("%s was %s when it was hit and is %s now", m.Name, was.Role, m.Role)
			}
		}
		return nil
	})
}

// awaitStatus waits until the members satisfy a condition.
func (g *group) awaitStatus(ctx context.Context, holds func([]cluster.Member) error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		members, err := g.Status(ctx)
		if err == nil {
			if err = holds(members); err == nil {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// awaitOnline returns the members once all are ONLINE.
func (g *group) awaitOnline(t *testing.T) []cluster.Member {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	members, err := g.AwaitOnline(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return members
}

// check runs the checks that end every test.
func (g *group) check(t *testing.T) uint64 {
	t.Helper()
	members := g.awaitOnline(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := cluster.Check(ctx, members)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// open is a pool of connections through a member.
func open(t *testing.T, target loadgen.Target, params string) *sql.DB {
	t.Helper()
	dsn := target.DSN()
	if params != "" {
		separator := "?"
		if strings.Contains(dsn, "?") {
			separator = "&"
		}
		dsn += separator + params
	}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func execAll(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}
