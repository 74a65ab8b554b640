package mysqld_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cohort/internal/mysqld"
	"cohort/internal/mysqldtest"
	"cohort/internal/mysqlversion"
	"cohort/internal/proc"
)

func TestFindNamesTheReason(t *testing.T) {
	_, err := mysqld.Find(ctxFor(t), mysqld.FindOptions{Path: "/no/such/mysqld"})
	if !errors.Is(err, mysqld.ErrNoServer) || !strings.Contains(err.Error(), "/no/such/mysqld: no such program") {
		t.Errorf("got %v", err)
	}
	in := mysqldtest.Installation(t)
	if p, err := in.Program("mysqldump"); err != nil || p != filepath.Join(in.Bin, "mysqldump") {
		t.Errorf("%s %v", p, err)
	}
	if _, err := in.Program("nosuchprogram"); err == nil {
		t.Error("a program that does not exist was found")
	}
}

// startMysqld starts a server outside of mysqldtest, on a copied template.
func startMysqld(t *testing.T, o mysqld.Options) (*mysqld.Process, error) {
	t.Helper()
	in := mysqldtest.Installation(t)
	o.KillWithParent = true
	if _, err := os.Stat(o.Datadir()); err != nil {
		if err := in.InitializeFromTemplate(ctxFor(t), o); err != nil {
			t.Fatal(err)
		}
	}
	p, err := in.Start(ctxFor(t), o)
	if err == nil {
		t.Cleanup(func() {
			if err := p.Kill(); err != nil {
				t.Error(err)
			}
		})
	}
	return p, err
}

func TestInitializeWithoutATemplate(t *testing.T) {
	in := mysqldtest.Installation(t)
	o := mysqld.Options{Dir: t.TempDir(), ReadOnly: true, Settings: []string{"lower_case_table_names=1", "innodb_buffer_pool_size=32M"}}
	if err := in.Initialize(ctxFor(t), o); err != nil {
		t.Fatal(err)
	}
	if err := in.Initialize(ctxFor(t), o); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a second time: %v", err)
	}
	p, err := startMysqld(t, o)
	if err != nil {
		t.Fatal(err)
	}
	db, err := mysqld.Open(p.Socket, "root", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	id, err := mysqld.ReadIdentity(ctxFor(t), db)
	if err != nil || id.LowerCaseTableNames != 1 || id.Port != p.Port || id.ServerUUID == "" || id.Number < mysqlversion.Oldest {
		t.Errorf("%+v %v", id, err)
	}
	// The same server, found by another process, stops in order.
	again, err := mysqld.Attach(o, p.ID, p.Port)
	if err != nil || again.Socket != p.Socket || again.Addr != p.Addr {
		t.Fatalf("%+v %v", again, err)
	}
	if err := again.Stop(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := mysqld.Attach(o, p.ID, p.Port); !errors.Is(err, proc.ErrGone) {
		t.Errorf("attached to a dead server: %v", err)
	}
	if log, err := os.ReadFile(p.LogFile); err != nil || !strings.Contains(string(log), "Shutdown complete") {
		t.Errorf("no clean shutdown (%v)", err)
	}
}

func TestInitializeReportsMysqldsOwnError(t *testing.T) {
	o := mysqld.Options{Dir: t.TempDir(), Settings: []string{"no_such_setting=1"}}
	err := mysqldtest.Installation(t).Initialize(ctxFor(t), o)
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(o.Datadir()); !os.IsNotExist(err) {
		t.Errorf("half a data directory is left: %v", err)
	}
}

func TestStartReportsAPortThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, portText, _ := net.SplitHostPort(l.Addr().String())
	port, _ := strconv.Atoi(portText)
	_, err = startMysqld(t, mysqld.Options{Dir: t.TempDir(), Port: port})
	if !errors.Is(err, mysqld.ErrStart) || !strings.Contains(err.Error(), "port") {
		t.Errorf("got %v", err)
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	in := mysqldtest.Installation(t)
	o := mysqld.Options{Dir: t.TempDir(), KillWithParent: true}
	if err := in.InitializeFromTemplate(ctxFor(t), o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctxFor(t), time.Millisecond)
	defer cancel()
	if p, err := in.Start(ctx, o); !errors.Is(err, mysqld.ErrStart) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v %v", p, err)
	}
}

// Ctrl-C goes to the terminal's process group: mysqld must not be in it, and
// the started process must be mysqld itself, not a shell around it.
func TestMysqldHasASessionOfItsOwn(t *testing.T) {
	p, err := startMysqld(t, mysqld.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	group, err := syscall.Getpgid(p.Pid)
	if err != nil || group != p.Pid {
		t.Errorf("process group %d of process %d, %v", group, p.Pid, err)
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(p.Config), "mysqld.pid"))
	if err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(p.Pid) {
		t.Errorf("mysqld's own pid file says %q, the process is %d (%v)", text, p.Pid, err)
	}
}
