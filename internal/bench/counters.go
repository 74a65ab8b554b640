package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"cohort/internal/e2e/cluster"
	"cohort/internal/loadgen"
)

// clockTick is the unit of the CPU times in /proc: USER_HZ is 100 on every
// architecture that Linux and Go share.
const clockTick = time.Second / 100

// cpuTime is the user and system time that a process has used so far.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The command name may hold spaces and brackets: fields count from the last one.
	text := string(b)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("bench: /proc/%d/stat has %d fields", pid, len(fields))
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// busyTime is the CPU time that everything on the machine has used so far.
func busyTime() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return 0, fmt.Errorf("bench: /proc/stat has %d fields", len(fields))
	}
	var busy int64
	for i, f := range fields[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("bench: /proc/stat: %w", err)
		}
		if i != 3 && i != 4 {
			busy += n
		}
	}
	return time.Duration(busy) * clockTick, nil
}

// edge is what was read at one edge of a window.
type edge struct {
	applied []uint64 // by member: transactions executed
	cpu     map[string]time.Duration
	busy    time.Duration // of the whole machine
}

// foreign is the CPU time that processes of nobody in the comparison used
// between two edges.
func foreign(start, end edge) time.Duration {
	used := end.busy - start.busy
	for group, t := range end.cpu {
		used -= t - start.cpu[group]
	}
	return max(used, 0)
}

func (e edge) least() uint64 {
	least := e.applied[0]
	for _, n := range e.applied[1:] {
		least = min(least, n)
	}
	return least
}

func (e edge) most() uint64 {
	most := e.applied[0]
	for _, n := range e.applied[1:] {
		most = max(most, n)
	}
	return most
}

// backlog is how far the slowest member is behind the fastest.
func (e edge) backlog() uint64 { return e.most() - e.least() }

// counters reads a system's counters over connections that it keeps.
type counters struct {
	running *Running
	conns   []*loadgen.Conn
}

func openCounters(ctx context.Context, r *Running) (*counters, error) {
	c := &counters{running: r}
	for _, m := range r.Members {
		conn, err := loadgen.Dial(ctx, m.Admin)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("bench: member %s: %w", m.Name, err)
		}
		c.conns = append(c.conns, conn)
	}
	return c, nil
}

func (c *counters) close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// read asks all members at once, so that the counts belong together.
func (c *counters) read(context.Context) (edge, error) {
	e := edge{applied: make([]uint64, len(c.conns)), cpu: map[string]time.Duration{}}
	errs := make([]error, len(c.conns))
	var wg sync.WaitGroup
	for i, conn := range c.conns {
		wg.Go(func() {
			text, err := conn.QueryString("SELECT @@GLOBAL.gtid_executed")
			if err != nil {
				errs[i] = err
				return
			}
			set, err := cluster.ParseGTIDSet(text)
			e.applied[i], errs[i] = set.Count(c.running.GTIDKey), err
		})
	}
	wg.Wait()
	for _, p := range append([]Process{{"load generator", os.Getpid()}}, c.running.Processes...) {
		t, err := cpuTime(p.Pid)
		if err != nil {
			return e, fmt.Errorf("bench: CPU time of %s: %w", p.Group, err)
		}
		e.cpu[p.Group] += t
	}
	var err error
	e.busy, err = busyTime()
	return e, errors.Join(append(errs, err)...)
}

// drain waits until all members have applied the same.
func (c *counters) drain(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		e, err := c.read(ctx)
		if err != nil {
			return err
		}
		if e.backlog() == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("bench: %d transactions are still to be applied: %w", e.backlog(), ctx.Err())
		}
	}
}
