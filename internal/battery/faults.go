package battery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"cohort/internal/e2e/cluster"
	"cohort/internal/loadgen"
)

// Faults implements System.
func (g *Group) Faults() []Fault {
	all := []Fault{
		{Name: "kill mysqld", Do: g.kill(cluster.Mysqld)},
		{Name: "kill proxy", Do: g.kill(cluster.Proxy)},
		{Name: "kill both", Do: g.kill(cluster.Both)},
		{Name: "stop mysqld", Do: g.stop(cluster.Mysqld)},
		{Name: "stop proxy", Do: g.stop(cluster.Proxy)},
		{Name: "stop both", Do: g.stop(cluster.Both)},
		{Name: "kill everything", Do: g.killAll(true, true)},
		{Name: "kill all mysqlds", Do: g.killAll(true, false)},
		{Name: "kill all proxies", Do: g.killAll(false, true)},
		{Name: "switchover", Do: g.switchover},
		{Name: "slow fsync", Do: g.slowFsync},
		{Name: "leave", OnlyNamed: true, Do: g.leave},
	}
	if len(g.disks) > 0 {
		all = append(all, Fault{Name: "full disk", Do: g.fullDisk})
	}
	if len(g.clocks) > 0 {
		all = append(all, Fault{Name: "clock", Do: g.clockJump})
	}
	if g.net != nil {
		all = append(all,
			Fault{Name: "isolate", Do: g.isolate},
			Fault{Name: "halves", Do: g.halves},
			Fault{Name: "mute", Do: g.oneWay(true)},
			Fault{Name: "deaf", Do: g.oneWay(false)},
			Fault{Name: "ring", Do: g.ring},
			Fault{Name: "one link", Do: g.oneLink},
		)
	}
	return all
}

// victim is the primary half of the time, otherwise any member.
func (g *Group) victim(ctx context.Context, rng *rand.Rand) (cluster.Member, int, error) {
	primary, other := rng.IntN(2) == 0, rng.IntN(len(g.members))
	members, err := g.c.Status(ctx)
	if err != nil {
		return cluster.Member{}, 0, err
	}
	for i, m := range members {
		if primary && m.Role == "PRIMARY" {
			return m, i, nil
		}
	}
	return members[other], other, nil
}

func name(m cluster.Member) string {
	if m.Role == "PRIMARY" {
		return m.Name + ", the primary"
	}
	return m.Name
}

type action = func(context.Context, *rand.Rand) (string, func(context.Context) error, error)

func pids(m cluster.Member, part cluster.Part) []int {
	switch part {
	case cluster.Mysqld:
		return []int{m.MysqldPid}
	case cluster.Proxy:
		return []int{m.Pid}
	}
	return []int{m.Pid, m.MysqldPid}
}

func (g *Group) kill(part cluster.Part) action {
	return func(ctx context.Context, rng *rand.Rand) (string, func(context.Context) error, error) {
		m, _, err := g.victim(ctx, rng)
		if err != nil {
			return "", nil, err
		}
		return name(m), g.startDead, send(syscall.SIGKILL, pids(m, part)...)
	}
}

func (g *Group) killAll(mysqlds, proxies bool) action {
	return func(ctx context.Context, _ *rand.Rand) (string, func(context.Context) error, error) {
		members, err := g.c.Status(ctx)
		if err != nil {
			return "", nil, err
		}
		var all []int
		for _, m := range members {
			if mysqlds {
				all = append(all, m.MysqldPid)
			}
			if proxies {
				all = append(all, m.Pid)
			}
		}
		return "", g.startDead, send(syscall.SIGKILL, all...)
	}
}

func (g *Group) stop(part cluster.Part) action {
	return func(ctx context.Context, rng *rand.Rand) (string, func(context.Context) error, error) {
		m, _, err := g.victim(ctx, rng)
		if err != nil {
			return "", nil, err
		}
		undo := func(context.Context) error {
			_ = send(syscall.SIGCONT, pids(m, part)...) // killed meanwhile is fine
			return nil
		}
		return name(m), undo, send(syscall.SIGSTOP, pids(m, part)...)
	}
}

// switchover appoints any member, through any member. In the midst of other
// faults it may well be refused.
func (g *Group) switchover(ctx context.Context, rng *rand.Rand) (string, func(context.Context) error, error) {
	to, at := g.members[rng.IntN(len(g.members))], g.members[rng.IntN(len(g.members))]
	what := fmt.Sprintf("to %s, through %s", to.Name, at.Name)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := loadgen.Dial(ctx, at.Through("app", ""))
	if err != nil {
		return what + ": not reached", nil, nil
	}
	defer func() { _ = c.Close() }()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	if _, err := c.Query("SELECT group_replication_set_as_primary('" + to.UUID + "')"); err != nil {
		what += ": " + err.Error()
	}
	return what, nil, nil
}

// runsAlready is START's error where the member is in the group, as one is that was
// killed and started meanwhile.
const runsAlready = 3093

// leave has a member STOP GROUP_REPLICATION and START it later. In the midst of other
// faults either may fail; the latter is tried again until the group is healed.
func (g *Group) leave(ctx context.Context, rng *rand.Rand) (string, func(context.Context) error, error) {
	m, i, err := g.victim(ctx, rng)
	if err != nil {
		return "", nil, err
	}
	what := name(m)
	if err := g.tell(ctx, i, "STOP GROUP_REPLICATION"); err != nil {
		what += ": " + err.Error()
	}
	g.leftMu.Lock()
	defer g.leftMu.Unlock()
	g.left[i] = true
	return what, func(ctx context.Context) error { _ = g.rejoin(ctx); return nil }, nil
}

// rejoin starts the members that left.
func (g *Group) rejoin(ctx context.Context) error {
	g.leftMu.Lock()
	defer g.leftMu.Unlock()
	var errs []error
	for i := range g.left {
		err := g.tell(ctx, i, "START GROUP_REPLICATION")
		var se *loadgen.ServerError
		if err == nil || errors.As(err, &se) && se.Number == runsAlready {
			delete(g.left, i)
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %w", g.members[i].Name, err))
	}
	return errors.Join(errs...)
}

// tell runs a statement through a member's own proxy.
func (g *Group) tell(ctx context.Context, i int, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := loadgen.Dial(ctx, g.members[i].Through("app", ""))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	_, err = c.Query(sql)
	return err
}

func (g *Group) slowFsync(ctx context.Context, rng *rand.Rand) (string, func(context.Context) error, error) {
	m, i, err := g.victim(ctx, rng)
	if err != nil {
		return "", nil, err
	}
	g.slow[i].start()
	return name(m), func(context.Context) error { g.slow[i].stop(); return nil }, nil
}

func (g *Group) fullDisk(ctx context.Context, rng *rand.Rand) (string, func(context.Context) error, error) {
	m, i, err := g.victim(ctx, rng)
	if err != nil {
		return "", nil, err
	}
	undo := func(ctx context.Context) error { return errors.Join(g.disks[i].empty(), g.startDead(ctx)) }
	return name(m), undo, g.disks[i].fill()
}

// clockJump sets the clock of a member's mysqld; undoing it is a jump, too. Set back,
// its binary log has timestamps that fall.
func (g *Group) clockJump(ctx context.Context, rng *rand.Rand) (string, func(context.Context) error, error) {
	by := jumps[rng.IntN(len(jumps))]
	m, i, err := g.victim(ctx, rng)
	if err != nil {
		return "", nil, err
	}
	what := fmt.Sprintf("%s, by %+.0f s", name(m), by.Seconds())
	return what, func(context.Context) error { return g.clocks[i].set(0) }, g.clocks[i].set(by)
}

func (g *Group) isolate(ctx context.Context, rng *rand.Rand) (string, func(context.Context) error, error) {
	m, i, err := g.victim(ctx, rng)
	if err != nil {
		return "", nil, err
	}
	return name(m), g.net.Heal, g.net.Isolate(ctx, i)
}

// halves is a group in two, as equal as can be.
func (g *Group) halves(ctx context.Context, rng *rand.Rand) (string, func(context.Context) error, error) {
	order := rng.Perm(len(g.members))
	small, large := order[:len(order)/2], order[len(order)/2:]
	var errs []error
	var names []string
	for _, a := range small {
		names = append(names, g.members[a].Name)
		for _, b := range large {
			errs = append(errs, g.net.Cut(ctx, a, b), g.net.Cut(ctx, b, a))
		}
	}
	return strings.Join(names, ", ") + " by themselves", g.net.Heal, errors.Join(errs...)
}

// oneWay loses what a member sends, or what is sent to it.
func (g *Group) oneWay(sends bool) action {
	return func(ctx context.Context, rng *rand.Rand) (string, func(context.Context) error, error) {
		m, i, err := g.victim(ctx, rng)
		if err != nil {
			return "", nil, err
		}
		var errs []error
		for j := range g.members {
			if sends {
				errs = append(errs, g.net.Cut(ctx, i, j))
			} else {
				errs = append(errs, g.net.Cut(ctx, j, i))
			}
		}
		return name(m), g.net.Heal, errors.Join(errs...)
	}
}

// ring leaves each member its two neighbours. Of three, where all are
// neighbours, two do not reach each other.
func (g *Group) ring(ctx context.Context, rng *rand.Rand) (string, func(context.Context) error, error) {
	order := rng.Perm(len(g.members))
	var errs []error
	n := len(order)
	for i := range order {
		for j := i + 1; j < n; j++ {
			if neighbours := j == i+1 || i == 0 && j == n-1; neighbours && !(n == 3 && i == 0 && j == 2) {
				continue
			}
			errs = append(errs, g.net.Cut(ctx, order[i], order[j]), g.net.Cut(ctx, order[j], order[i]))
		}
	}
	var names []string
	for _, i := range order {
		names = append(names, g.members[i].Name)
	}
	return strings.Join(names, "-"), g.net.Heal, errors.Join(errs...)
}

func (g *Group) oneLink(ctx context.Context, rng *rand.Rand) (string, func(context.Context) error, error) {
	pair := rng.Perm(len(g.members))[:2]
	what := g.members[pair[0]].Name + " to " + g.members[pair[1]].Name
	return what, g.net.Heal, g.net.Cut(ctx, pair[0], pair[1])
}
