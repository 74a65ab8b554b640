package consensus

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/rs/zerolog"

	"cohort/consensus/state"
	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
)

// hangingLogDB is a log whose writes do not return while it is held.
type hangingLogDB struct {
	raftio.ILogDB
	hold *sync.RWMutex
}

func (l hangingLogDB) SaveRaftState(u []raftpb.Update, shard uint64) error {
	l.hold.RLock()
	defer l.hold.RUnlock()
	return l.ILogDB.SaveRaftState(u, shard)
}

// A log that stands still, in its writes or in what it applies, is no member any
// more: it says so and stops, and the others go on without it.
func TestStuckLogStopsTheMember(t *testing.T) {
	for _, where := range []string{"write", "apply"} {
		t.Run(where, func(t *testing.T) {
			var hold sync.RWMutex
			var fatal atomic.Pointer[error]
			c := newCluster(t, 3, func(cfg *Config) {
				if cfg.ReplicaID != 3 {
					return
				}
				cfg.StuckTimeout = 3 * time.Second
				cfg.OnFatal = func(err error) { fatal.CompareAndSwap(nil, &err) }
				if where == "write" {
					cfg.wrapLogDB = func(db raftio.ILogDB) raftio.ILogDB { return hangingLogDB{db, &hold} }
				}
			})
			c.found()
			stuck := c.members[2]
			if where == "apply" {
				stuck.rec.mu.Lock()
				stuck.rec.hook = func([]state.Decision) {
					hold.RLock()
					defer hold.RUnlock()
				}
				stuck.rec.mu.Unlock()
			}
			if err := stuck.node.Err(); err != nil {
				t.Fatal(err)
			}
			hold.Lock()
			if err := c.members[0].node.Submit(c.ctx(), proposal("x", 0, 1, []byte("body"))); err != nil {
				t.Fatal(err)
			}
			c.members[0].rec.verdict(t, "x")
			if where == "write" {
				stuck.wait(t, "a log that stands still", func() bool { return stuck.node.Stalled() > time.Second })
			}
			stuck.wait(t, "the end", func() bool { return fatal.Load() != nil })
			if err := *fatal.Load(); !errors.Is(err, ErrStuck) || !errors.Is(err, ErrFailed) {
				t.Error(err)
			}
			c.close(stuck) // does not wait for it
			hold.Unlock()
		})
	}
}

// The environment of TestFailedWriteEndsTheProcess's other process.
const failDir = "COHORT_TEST_FAILING_LOG"

// A write of the log that fails ends the process at once, whatever it was; the
// next start finds everything that was acknowledged. The kernel fails it: no file
// may grow beyond a limit (a full disk fails no write that was allocated before).
func TestFailedWriteEndsTheProcess(t *testing.T) {
	if dir := os.Getenv(failDir); dir != "" {
		writeUntilItFails(t, dir)
		return
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestFailedWriteEndsTheProcess$", "-test.v")
	cmd.Env = append(os.Environ(), failDir+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked, addr := 0, ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if a, ok := strings.CutPrefix(lines.Text(), "addr "); ok {
			addr = a
		}
		if n, ok := strings.CutPrefix(lines.Text(), "acked "); ok {
			if acked, err = strconv.Atoi(n); err != nil {
				t.Error(err)
			}
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("the process did not end by itself: %v", err)
	}
	if acked == 0 || !strings.Contains(stderr.String(), "file too large") || !strings.Contains(stderr.String(), "the log cannot be written") {
		t.Fatalf("%d acknowledged, and it said: %.2000s", acked, stderr.String())
	}
	n, store := openFailing(t, dir, addr, zerolog.Nop())
	defer store.Close()
	defer n.Close()
	if _, err := n.ReadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	if n.LastN() < uint64(acked) {
		t.Fatalf("%d were acknowledged, %d are there", acked, n.LastN())
	}
}

func openFailing(t *testing.T, dir, addr string, log zerolog.Logger) (*Node, *groupbinlog.Store) {
	t.Helper()
	store, err := groupbinlog.Open(filepath.Join(dir, "binlog"), groupbinlog.Options{GroupUUID: testGroup})
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{Dir: filepath.Join(dir, "log"), GroupName: testGroup, ReplicaID: 1, LocalAddress: addr,
		InitialMembers: map[uint64]string{1: addr}, Store: store, Logger: log, CompressionThreshold: -1,
		CheckpointInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return n, store
}

func writeUntilItFails(t *testing.T, dir string) {
	addr := freeAddr(t)
	if err := os.MkdirAll(filepath.Join(dir, "binlog"), 0o700); err != nil {
		t.Fatal(err)
	}
	n, _ := openFailing(t, dir, addr, zerolog.New(os.Stderr).Level(zerolog.ErrorLevel))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := n.Bootstrap(ctx, state.Bootstrap{Primary: 1}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.Join(ctx, state.MemberInfo{UUID: "uuid-1", ServerVersion: 90704}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("addr", addr)
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	event, err := binlog.AppendQuery(nil, 1, 0, &binlog.Query{Schema: []byte("s"), SQL: []byte("BEGIN")})
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat(event, 400) // the log has it before the group binlog does
	for i := 1; ; i++ {
		p := proposal(fmt.Sprint("x", i), 0, uint64(i), body)
		if err := n.Submit(ctx, p); err != nil {
			t.Fatal(err)
		}
		for {
			if o, ok := n.Verdict(p.XID); ok && o.Committed {
				break
			}
			if n.Err() != nil || ctx.Err() != nil {
				t.Fatal(errors.Join(n.Err(), ctx.Err()))
			}
			time.Sleep(time.Millisecond)
		}
		fmt.Println("acked", i)
	}
}
