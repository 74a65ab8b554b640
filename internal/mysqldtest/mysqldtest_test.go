package mysqldtest_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"cohort/internal/mysqldtest"
	"cohort/internal/proc"
)

func TestStartNServersAreFreshAndDistinct(t *testing.T) {
	var pids []int
	t.Run("servers", func(t *testing.T) {
		ss := mysqldtest.StartN(t, 2, "binlog_row_metadata=FULL")
		if a, b := ss[0].Value(t, "SELECT @@server_uuid"), ss[1].Value(t, "SELECT @@server_uuid"); a == b {
			t.Fatalf("both have uuid %s", a)
		}
		for _, s := range ss {
			pids = append(pids, s.Pid)
			if v := s.Value(t, "SELECT @@gtid_executed"); v != "" {
				t.Errorf("gtid_executed = %q in a fresh server", v)
			}
			if v := s.Value(t, "SELECT CONCAT_WS(',',@@gtid_mode,@@binlog_format,@@binlog_row_metadata,@@log_replica_updates,@@skip_replica_start)"); v != "ON,ROW,FULL,1,1" {
				t.Errorf("settings: %s", v)
			}
			s.SQL(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)")
		}
		ss[0].Kill(t)
		ss[0].Restart(t)
		if v := ss[0].Value(t, "SELECT COUNT(*) FROM d.t"); v != "1" {
			t.Errorf("after a restart: %s rows", v)
		}
		pids = append(pids, ss[0].Pid)
	})
	for _, pid := range pids {
		if _, err := proc.Of(pid); err == nil {
			t.Errorf("mysqld %d outlived its test", pid)
		}
	}
}

// The directory's path is far longer than a socket's address may be.
func TestStartWithAVeryLongTestName_0123456789_0123456789_0123456789_0123456789_0123456789(t *testing.T) {
	s := mysqldtest.Start(t)
	if len(s.Socket) > 100 {
		t.Errorf("socket path has %d bytes", len(s.Socket))
	}
	if v := s.Value(t, "SELECT @@datadir"); !strings.HasPrefix(v, s.Datadir) {
		t.Errorf("datadir %s, want %s", v, s.Datadir)
	}
}

const childEnv = "MYSQLDTEST_CHILD"

// TestChild is the process that TestAServerDiesWithItsTestProcess kills; by
// itself it tests nothing.
func TestChild(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		return
	}
	s := mysqldtest.Start(t)
	fmt.Printf("pid %d dir %s\n", s.Pid, s.Dir)
	<-t.Context().Done() // never
}

func TestAServerDiesWithItsTestProcess(t *testing.T) {
	dir, err := os.MkdirTemp("", "") // where long paths are shortened has a short one
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childEnv+"=1", "TMPDIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	lines := bufio.NewScanner(out)
	var pid int
	for pid == 0 && lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 1 && f[0] == "pid" {
			pid, _ = strconv.Atoi(f[1])
		}
	}
	id, err := proc.Of(pid)
	if err != nil {
		t.Fatalf("mysqld %d: %v", pid, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := id.Wait(ctx); err != nil {
		t.Error(err)
		_ = id.Kill()
	}
}
