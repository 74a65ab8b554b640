package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/config"
	"cohort/internal/httpapi"
	"cohort/internal/mysqld"
	"cohort/internal/mysqldtest"
	"cohort/internal/proc"
	"cohort/internal/sandbox"
)

// TestMain makes the test binary stand for the cohort program: what is tested
// here is the handling of processes and files, with real mysqlds. The real
// member is tested end to end elsewhere.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := standIn(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "stand-in:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// standIn reads the configuration as a member does and reports what it says.
// With cohort_log_level=error it fails at once, with warn it stays RECOVERING.
func standIn(args []string) error {
	c, err := config.Load(args, os.Environ())
	if err != nil {
		return err
	}
	if err := c.Validate(); err != nil {
		return err
	}
	if c.LogLevel == "error" {
		return errors.New("told to fail")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	db, err := mysqld.Open(c.MysqldSocket, c.AdminUser, c.AdminPassword)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	id, err := mysqld.ReadIdentity(ctx, db)
	if err != nil {
		return err
	}
	st := httpapi.Status{Self: httpapi.Self{MemberID: id.ServerUUID, State: "ONLINE", Role: "SECONDARY"}, Serving: true}
	if c.BootstrapGroup {
		st.Self.Role = "PRIMARY"
	}
	if c.LogLevel == "warn" {
		st.Self.State, st.Self.Role, st.Reason = "RECOVERING", "", "told to recover for ever"
	}
	srv, err := httpapi.New(httpapi.Options{Addr: c.HTTPAddress, Status: func() httpapi.Status { return st }, Logger: zerolog.Nop()})
	if err != nil {
		return err
	}
	return srv.Run(ctx)
}

func ctxFor(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

var small = []string{"innodb_buffer_pool_size=32M", "max_connections=50", "performance_schema_max_table_instances=200"}

// open returns a sandbox that is gone at the end of the test.
func open(t *testing.T, dir string, o sandbox.Settings) *sandbox.Sandbox {
	t.Helper()
	o.MysqldOptions = append(small, o.MysqldOptions...)
	s, err := sandbox.OpenOrCreate(ctxFor(t), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(dir, "sandbox.json")); err == nil {
			if err := s.Destroy(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

func start(t *testing.T, s *sandbox.Sandbox, name string, part sandbox.Part) []sandbox.Started {
	t.Helper()
	started, err := s.Start(ctxFor(t), name, part, sandbox.StartOptions{Installation: mysqldtest.Installation(t)})
	if err != nil {
		t.Fatal(err)
	}
	return started
}

func value(t *testing.T, m sandbox.Member, user, query string) string {
	t.Helper()
	password := user
	if user == "root" {
		password = ""
	}
	db, err := mysqld.Open(m.MysqldSocket, user, password)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var v string
	if err := db.QueryRowContext(ctxFor(t), query).Scan(&v); err != nil {
		t.Fatalf("%s: %s: %v", m.Name, query, err)
	}
	return v
}

func TestLifeOfASandbox(t *testing.T) {
	ctx := ctxFor(t)
	dir := filepath.Join(t.TempDir(), "box")
	s := open(t, dir, sandbox.Settings{Members: 2, MysqldOptions: []string{"binlog_row_metadata=FULL"}})
	if got := len(start(t, s, "", sandbox.Both)); got != 4 {
		t.Errorf("%d processes were started", got)
	}
	if err := s.WaitOnline(ctx, "", nil); err != nil {
		t.Fatal(err)
	}
	before := s.Status(ctx)
	if before[0].Role != "PRIMARY" || before[1].Role != "SECONDARY" || before[0].UUID == before[1].UUID {
		t.Errorf("%+v", before)
	}
	for i, m := range before {
		if m.Name != fmt.Sprintf("m%d", i+1) || m.State != "ONLINE" || m.Pid == 0 || m.MysqldPid == 0 || m.Port == 0 {
			t.Errorf("%+v", m)
		}
		if v := value(t, m, "root", "SELECT CONCAT_WS(' ', @@super_read_only, @@server_id, @@port, @@gtid_executed, @@binlog_row_metadata, @@server_uuid)"); v != fmt.Sprintf("1 %d %d  FULL %s", i+1, m.MysqldPort, m.UUID) {
			t.Errorf("%s: %s", m.Name, v)
		}
		if v := value(t, m, "app", "SELECT COUNT(*) FROM mysql.user WHERE user IN ('app','plain')"); v != "2" {
			t.Errorf("%s: %s accounts", m.Name, v)
		}
		if v := value(t, m, "plain", "SELECT GROUP_CONCAT(schema_name) FROM information_schema.schemata WHERE schema_name NOT LIKE '%schema'"); v != "plain" {
			t.Errorf("%s: the account plain sees %s", m.Name, v)
		}
	}

	// Another process finds the same group, and starts nothing twice.
	s, err := sandbox.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again := start(t, s, "", sandbox.Both); len(again) != 0 {
		t.Errorf("started again: %v", again)
	}

	if err := s.Kill(ctx, "m2", sandbox.Proxy); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(ctx, "m1", sandbox.Mysqld); err != nil {
		t.Fatal(err)
	}
	ms := s.Status(ctx)
	if ms[1].Pid != 0 || ms[1].State != "OFFLINE" || ms[1].Role != "" || ms[1].MysqldPid != before[1].MysqldPid || ms[0].MysqldPid != 0 || ms[0].Pid != before[0].Pid {
		t.Errorf("after the kills: %+v", ms)
	}
	if err := s.WaitOnline(ctx, "", nil); !errors.Is(err, sandbox.ErrNotOnline) || !strings.Contains(err.Error(), "m2 is OFFLINE: its process does not run") {
		t.Errorf("got %v", err)
	}
	if got := start(t, s, "m2", sandbox.Both); len(got) != 1 || got[0] != (sandbox.Started{Member: "m2", Part: sandbox.Proxy}) {
		t.Errorf("started %v", got)
	}
	start(t, s, "m1", sandbox.Mysqld)
	if err := s.WaitOnline(ctx, "m2", nil); err != nil {
		t.Error(err)
	}
	after := s.Status(ctx)
	for i, m := range after {
		if m.UUID != before[i].UUID || m.Port != before[i].Port || m.MysqldPort != before[i].MysqldPort {
			t.Errorf("before %+v, after %+v", before[i], m)
		}
	}

	if err := s.Stop(ctx, "", sandbox.Both); err != nil {
		t.Fatal(err)
	}
	for _, m := range append(before, after...) {
		for _, pid := range []int{m.Pid, m.MysqldPid} {
			if _, err := proc.Of(pid); err == nil {
				t.Errorf("process %d of %s still runs", pid, m.Name)
			}
		}
	}
	if err := s.Destroy(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	if _, err := sandbox.Open(dir); !errors.Is(err, sandbox.ErrNoSandbox) {
		t.Errorf("got %v", err)
	}
}

func TestMembersThatDoNotComeUpAreNamedWithTheReason(t *testing.T) {
	for level, want := range map[string]string{
		"error": "m1 is OFFLINE: its process does not run: stand-in: told to fail",
		"warn":  "m1 is RECOVERING: the member is RECOVERING: told to recover for ever",
	} {
		t.Run(level, func(t *testing.T) {
			s := open(t, t.TempDir(), sandbox.Settings{Members: 1, MemberOptions: []string{"cohort_log_level=" + level}})
			start(t, s, "", sandbox.Both)
			ctx, cancel := context.WithCancel(ctxFor(t))
			defer cancel()
			err := s.WaitOnline(ctx, "", func(ms []sandbox.Member) {
				if ms[0].State == "RECOVERING" {
					cancel() // stands for a deadline
				}
			})
			if !errors.Is(err, sandbox.ErrNotOnline) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A record whose process id is another's by now must protect that other.
func TestARecycledProcessIdIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, sandbox.Settings{Members: 1})
	if err := os.MkdirAll(filepath.Join(dir, "m1"), 0o700); err != nil {
		t.Fatal(err)
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	record := fmt.Sprintf(`{"pid":%d,"start_time":1,"boot_id":%q}`, os.Getpid(), strings.TrimSpace(string(boot)))
	if err := os.WriteFile(filepath.Join(dir, "m1", "proxy.pid.json"), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(ctxFor(t), "", sandbox.Both); err != nil {
		t.Fatal(err)
	}
	if ms := s.Status(ctxFor(t)); ms[0].Pid != 0 {
		t.Errorf("%+v", ms[0])
	}
}

func TestAnInterruptedInitialisationIsBegunAnew(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, sandbox.Settings{Members: 1})
	for _, d := range []string{"m1/data", "m1/data/half"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "m1/.new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, s, "", sandbox.Mysqld)
	if v := value(t, s.Status(ctxFor(t))[0], "app", "SELECT 1"); v != "1" {
		t.Error(v)
	}
}

// Sockets of a directory with a long path have a short name elsewhere, which
// must go with the sandbox.
func TestADirectoryWithALongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 20), "box")
	s := open(t, dir, sandbox.Settings{Members: 1})
	start(t, s, "", sandbox.Mysqld)
	m := s.Status(ctxFor(t))[0]
	if v := value(t, m, "plain", "SELECT 1"); v != "1" {
		t.Error(v)
	}
	link := filepath.Dir(m.MysqldSocket)
	if to, err := os.Readlink(link); err != nil || to != m.Dir {
		t.Errorf("%s leads to %q, %v", link, to, err)
	}
	if err := s.Destroy(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(link); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", link, err)
	}
}

func TestOpenOrCreateRefuses(t *testing.T) {
	ctx := ctxFor(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sandbox.OpenOrCreate(ctx, dir, sandbox.Settings{}); err == nil {
		t.Error("a directory with other contents was taken")
	}
	dir = t.TempDir()
	if _, err := sandbox.OpenOrCreate(ctx, dir, sandbox.Settings{Members: 10}); err == nil {
		t.Error("10 members were accepted")
	}
	if _, err := sandbox.OpenOrCreate(ctx, dir, sandbox.Settings{MysqldOptions: []string{"a=1\n[client]"}}); err == nil {
		t.Error("an option with a line break was accepted")
	}
	s := open(t, dir, sandbox.Settings{Members: 2, MemberOptions: []string{"cohort_log_level=debug"}})
	if _, err := sandbox.OpenOrCreate(ctx, dir, sandbox.Settings{Members: 3}); err == nil {
		t.Error("the number of members changed")
	}
	if err := s.Stop(ctx, "m3", sandbox.Both); !errors.Is(err, sandbox.ErrNoMember) {
		t.Errorf("got %v", err)
	}
	if err := s.Kill(ctx, "m1", "server"); err == nil {
		t.Error("an unknown part was accepted")
	}
}

func TestTableSaysEachChangeOnce(t *testing.T) {
	s := open(t, t.TempDir(), sandbox.Settings{Members: 2})
	var b bytes.Buffer
	table := sandbox.NewTable(&b, s)
	table.Doing("m1", "starting mysqld")
	ms := s.Status(ctxFor(t))
	ms[0].State, ms[0].Role, ms[0].Pid, ms[0].MysqldPid = "ONLINE", "PRIMARY", 1, 2
	table.Seen(ms)
	table.Seen(ms)
	table.Final(ms)
	text := b.String()
	if strings.Count(text, "m1: ONLINE PRIMARY\n") != 1 || !strings.Contains(text, "m1: starting mysqld\n") ||
		!strings.Contains(text, "m2: OFFLINE: its process does not run\n") || !strings.Contains(text, "MEMBER  STATE") || !strings.Contains(text, ms[0].DSN("app", "app", "")) {
		t.Errorf("got:\n%s", text)
	}
}

// Members with addresses of their own say so everywhere.
func TestHosts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	if _, err := sandbox.OpenOrCreate(ctxFor(t), dir, sandbox.Settings{Members: 3, Hosts: []string{"127.0.0.2"}}); err == nil {
		t.Error("one host for three members")
	}
	hosts := []string{"127.0.0.2", "127.0.0.3"}
	s, err := sandbox.OpenOrCreate(ctxFor(t), dir, sandbox.Settings{Members: 2, Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range s.Status(ctxFor(t)) {
		if m.Host != hosts[i] || !strings.Contains(m.HTTP, hosts[i]+":") {
			t.Errorf("%+v", m)
		}
	}
}
