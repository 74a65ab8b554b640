package proc_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"cohort/internal/proc"
)

func ctxFor(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// child starts a shell; it is waited for at the end, not before, so that it is
// a zombie in between.
func child(t *testing.T, script string) proc.ID {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has set its traps
		t.Fatal(err)
	}
	id, err := proc.Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestStopEndsAWillingProcess(t *testing.T) {
	id := child(t, "echo x; exec sleep 100")
	if !id.Alive() {
		t.Fatal("not alive")
	}
	if err := id.Stop(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	if id.Alive() {
		t.Error("still alive")
	}
	if err := id.Wait(ctxFor(t)); err != nil {
		t.Error(err)
	}
	if err := id.Signal(syscall.SIGTERM); !errors.Is(err, proc.ErrGone) {
		t.Errorf("got %v", err)
	}
	if err := id.Kill(); err != nil {
		t.Errorf("killing what is gone: %v", err)
	}
	if _, err := proc.Of(id.Pid); !errors.Is(err, proc.ErrGone) {
		t.Errorf("a zombie counts as living: %v", err)
	}
}

func TestStopKillsAnUnwillingProcess(t *testing.T) {
	id := child(t, "trap '' TERM; echo x; while :; do sleep 0.1; done")
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := id.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if id.Alive() {
		t.Error("still alive")
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	id, err := proc.Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := id.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The id of this very process with another start time is another process.
func TestAnotherStartTimeIsAnotherProcess(t *testing.T) {
	id, err := proc.Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	id.Start++
	if id.Alive() {
		t.Error("taken for alive")
	}
	if err := id.Signal(syscall.SIGKILL); !errors.Is(err, proc.ErrGone) {
		t.Fatalf("got %v", err)
	}
	if err := id.Kill(); err != nil {
		t.Error(err)
	}
	if (proc.ID{}).Alive() || (proc.ID{Pid: -1}).Alive() {
		t.Error("an impossible id is alive")
	}
}
