// Package mysqldtest starts real, stock mysqlds for tests: fresh ones, with the
// settings that cohort requires, gone when the test ends. It must never be
// imported by code that is not a test, and never falls back to a fake.
package mysqldtest

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"cohort/internal/mysqld"
)

// smallSettings keep a test's server small and quick to start: half of what a start
// costs is memory that is touched.
var smallSettings = []string{
	"innodb_buffer_pool_size=64M",
	"innodb_redo_log_capacity=64M",
	"innodb_buffer_pool_dump_at_shutdown=OFF",
	"innodb_buffer_pool_load_at_startup=OFF",
	"max_connections=300",
	"table_open_cache=400",
	"innodb_log_buffer_size=8M",
	"performance_schema_max_table_instances=500",
	"performance_schema_digests_size=200",
	"performance_schema_users_size=0",
	"performance_schema_hosts_size=0",
	"performance_schema_accounts_size=0",
	"performance_schema_events_waits_history_long_size=10",
	"performance_schema_events_stages_history_long_size=10",
	"performance_schema_events_statements_history_long_size=10",
	"performance_schema_events_transactions_history_long_size=10",
}

var (
	findOnce  sync.Once
	found     *mysqld.Installation
	errFind   error
	serverIDs atomic.Uint32
)

// Installation returns the stock server that tests use. It fails the test, and
// never skips it, if there is none.
func Installation(t testing.TB) *mysqld.Installation {
	t.Helper()
	findOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		found, errFind = mysqld.Find(ctx, mysqld.FindOptions{Progress: os.Stderr})
	})
	if errFind != nil {
		t.Fatalf("mysqldtest: %v", errFind)
	}
	return found
}

// Server is a running mysqld. root@localhost has no password; connect over
// Socket, or over TCP as an account that the test creates.
type Server struct {
	// Socket is the unix socket, Addr host:port on the loopback interface.
	Socket, Addr string
	Port         int
	// Datadir, Dir and LogFile are paths; Dir holds everything.
	Datadir, Dir, LogFile string
	// Pid is the server's process id.
	Pid int
	// ServerID is its server_id.
	ServerID uint32

	opts mysqld.Options
	proc *mysqld.Process
	in   *mysqld.Installation

	mu sync.Mutex
	db *sql.DB
}

// Start starts a fresh mysqld whose my.cnf also has opts ("name=value"); it is
// killed when the test ends. It is writable unless opts say otherwise.
func Start(t testing.TB, opts ...string) *Server {
	t.Helper()
	return StartN(t, 1, opts...)[0]
}

// StartN starts n servers at a time; their server_ids and uuids differ.
func StartN(t testing.TB, n int, opts ...string) []*Server {
	t.Helper()
	in := Installation(t)
	servers := make([]*Server, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range servers {
		s := &Server{Dir: t.TempDir(), ServerID: serverIDs.Add(1), in: in}
		s.opts = mysqld.Options{
			Dir: s.Dir, ServerID: s.ServerID, KillWithParent: true,
			Settings: merge(smallSettings, opts),
		}
		servers[i] = s
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			if errs[i] = in.InitializeFromTemplate(ctx, s.opts); errs[i] == nil {
				errs[i] = s.start(ctx)
			}
		})
	}
	wg.Wait()
	t.Cleanup(func() {
		for _, s := range servers {
			s.cleanup(t)
		}
	})
	for _, err := range errs {
		if err != nil {
			t.Fatalf("mysqldtest: %v", err)
		}
	}
	return servers
}

// merge appends opts and drops the defaults that they replace.
func merge(defaults, opts []string) []string {
	given := map[string]bool{}
	for _, o := range opts {
		given[mysqld.SettingName(o)] = true
	}
	var all []string
	for _, d := range defaults {
		if !given[mysqld.SettingName(d)] {
			all = append(all, d)
		}
	}
	return append(all, opts...)
}

func (s *Server) start(ctx context.Context) error {
	p, err := s.in.Start(ctx, s.opts)
	if err != nil {
		return err
	}
	s.proc = p
	s.Socket, s.Addr, s.Port, s.Pid = p.Socket, p.Addr, p.Port, p.Pid
	s.Datadir, s.LogFile = p.Datadir, p.LogFile
	return nil
}

func (s *Server) cleanup(t testing.TB) {
	s.mu.Lock()
	if s.db != nil {
		_ = s.db.Close()
	}
	s.mu.Unlock()
	if s.proc == nil {
		return
	}
	if t.Failed() {
		if b, err := os.ReadFile(s.LogFile); err == nil {
			t.Logf("end of mysqld %d's log:\n%s", s.ServerID, b[max(0, len(b)-4000):])
		}
	}
	if err := s.proc.Kill(); err != nil {
		t.Errorf("mysqldtest: %v", err)
	}
	if s.proc.Alive() {
		t.Errorf("mysqldtest: mysqld %d is still there", s.Pid)
	}
}

// Kill ends the server as kill -9 does and waits until it is gone.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.proc.Kill(); err != nil {
		t.Fatalf("mysqldtest: %v", err)
	}
}

// Stop shuts the server down cleanly.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := s.proc.Stop(ctx); err != nil {
		t.Fatalf("mysqldtest: %v", err)
	}
}

// Restart starts a server that was stopped or killed, with the same port and
// socket; opts, if any, replace the extra settings of Start.
func (s *Server) Restart(t testing.TB, opts ...string) {
	t.Helper()
	if s.proc.Alive() {
		s.Stop(t)
	}
	if len(opts) > 0 {
		s.opts.Settings = merge(smallSettings, opts)
	}
	s.opts.Port = s.Port
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := s.start(ctx); err != nil {
		t.Fatalf("mysqldtest: %v", err)
	}
}

// DSN is root's, over the socket, for go-sql-driver/mysql. Parameters are
// added as given, e.g. "multiStatements=true".
func (s *Server) DSN(schema string, params ...string) string {
	d := fmt.Sprintf("root@unix(%s)/%s", s.Socket, schema)
	for i, p := range params {
		sep := "&"
		if i == 0 {
			sep = "?"
		}
		d += sep + p
	}
	return d
}

// DB is a pool of root's connections over the socket, closed at the test's end.
func (s *Server) DB(t testing.TB) *sql.DB {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		cfg := mysql.NewConfig()
		cfg.Net, cfg.Addr, cfg.User = "unix", s.Socket, "root"
		cfg.Logger = &mysql.NopLogger{} // a killed server's idle connections are no news
		c, err := mysql.NewConnector(cfg)
		if err != nil {
			t.Fatalf("mysqldtest: %v", err)
		}
		s.db = sql.OpenDB(c)
	}
	return s.db
}

// SQL runs statements one after the other on one connection as root. Any error
// fails the test.
func (s *Server) SQL(t testing.TB, stmts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c, err := s.DB(t).Conn(ctx)
	if err != nil {
		t.Fatalf("mysqldtest: %v", err)
	}
	defer func() { _ = c.Close() }()
	for _, q := range stmts {
		if _, err := c.ExecContext(ctx, q); err != nil {
			t.Fatalf("mysqldtest: %s: %v", q, err)
		}
	}
}

// Value returns the first column of the first row as text ("" for NULL).
func (s *Server) Value(t testing.TB, query string, args ...any) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var v sql.NullString
	rows, err := s.DB(t).QueryContext(ctx, query, args...)
	if err != nil {
		t.Fatalf("mysqldtest: %s: %v", query, err)
	}
	defer func() { _ = rows.Close() }()
	cols, err := rows.Columns()
	if err != nil {
		t.Fatalf("mysqldtest: %s: %v", query, err)
	}
	if !rows.Next() {
		t.Fatalf("mysqldtest: %s: no row (%v)", query, rows.Err())
	}
	dest := make([]any, len(cols))
	dest[0] = &v
	for i := 1; i < len(dest); i++ {
		dest[i] = new(sql.RawBytes)
	}
	if err := rows.Scan(dest...); err != nil {
		t.Fatalf("mysqldtest: %s: %v", query, err)
	}
	return v.String
}

// BinlogFiles returns the paths of the server's binary log files in order.
func (s *Server) BinlogFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Datadir, "binlog.[0-9]*"))
	if err != nil {
		t.Fatalf("mysqldtest: %v", err)
	}
	return files
}
