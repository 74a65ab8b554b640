package battery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"cohort/internal/e2e/cluster"
	"cohort/internal/e2e/netlab"
	"cohort/internal/loadgen"
	"cohort/internal/mysqld"
	"cohort/internal/proc"
	"cohort/internal/sandbox"
)

// System is what is put under load and faults.
type System interface {
	// Clients are where clients connect; Direct where a member's own data are
	// read.
	Clients() []Target
	Direct() []Target
	// Faults are those that can be done to it.
	Faults() []Fault
	// Heal undoes every fault and starts what does not run.
	Heal(context.Context) error
	// Ready returns once everything runs and serves.
	Ready(context.Context) error
	// Check holds the members against each other. Nobody writes meanwhile.
	Check(context.Context) error
	// Close ends everything and, unless told to keep them, removes the data.
	Close(ctx context.Context, keep bool) error
}

// Fault is something that can be done to a system. Undo may be nil. One that is OnlyNamed
// is not among all faults: it has to be asked for by name.
type Fault struct {
	Name      string
	OnlyNamed bool
	Do        func(ctx context.Context, rng *rand.Rand) (what string, undo func(context.Context) error, err error)
}

// Group is a cohort group.
type Group struct {
	c       *cluster.Cluster
	members []cluster.Member
	net     *netlab.Lab // nil: no partitions
	disks   []*disk     // nil: no full disks
	slow    []*slowDisk
	clocks  []*wallClock // nil: no clock jumps
	leftMu  sync.Mutex
	left    map[int]bool // members that were told to leave and have yet to START
	missing []string     // faults that this machine does not allow, and why
}

// GroupOptions describe a group to start.
type GroupOptions struct {
	Program string // of cohort, "" for the usual one
	Dir     string
	Members int
	Net     bool // with networks that can be cut
	Disks   bool // with small disks that can be filled
	Clocks  bool // with clocks of the mysqlds that can be set
}

// StartGroup starts a group with as much as this machine allows of what is asked
// for.
func StartGroup(ctx context.Context, o GroupOptions) (*Group, error) {
	g := &Group{left: map[int]bool{}}
	ok := false
	defer func() {
		if !ok {
			_ = g.Close(context.WithoutCancel(ctx), false)
		}
	}()
	settings := sandbox.Settings{Members: o.Members}
	if o.Net {
		var err error
		if g.net, err = netlab.New(ctx, o.Members); err != nil {
			g.missing = append(g.missing, "partitions: "+err.Error())
			g.net = nil
		} else {
			settings.Hosts = g.net.Hosts()
		}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("battery: %w", err)
	}
	server := ""
	if o.Clocks {
		var err error
		if server, err = clockMysqld(ctx); err != nil {
			g.missing = append(g.missing, "clock jumps: "+err.Error())
		}
	}
	home := filepath.Join(o.Dir, "group")
	s, err := sandbox.OpenOrCreate(ctx, home, settings)
	if err != nil {
		return nil, err
	}
	for _, name := range s.Names() {
		if o.Disks {
			d, err := mountDisk(ctx, filepath.Join(o.Dir, name+".img"), filepath.Join(home, name))
			if err != nil {
				g.missing = append(g.missing, "full disks: "+err.Error())
				o.Disks = false
			} else {
				g.disks = append(g.disks, d)
			}
		}
		g.slow = append(g.slow, &slowDisk{dir: filepath.Join(home, name)})
		if server != "" {
			g.clocks = append(g.clocks, &wallClock{filepath.Join(home, name)})
		}
	}
	g.c, err = cluster.Start(ctx, cluster.Options{Program: o.Program, Mysqld: server, Dir: home, Members: o.Members, Net: g.net})
	if err != nil {
		return nil, err
	}
	if g.members, err = g.c.AwaitOnline(ctx); err != nil {
		return nil, err
	}
	ok = true
	return g, nil
}

// Missing are the faults that this machine does not allow.
func (g *Group) Missing() []string { return g.missing }

// Clients implements System.
func (g *Group) Clients() []Target {
	var all []Target
	for _, m := range g.members {
		all = append(all, Target{m.Name, m.Through("app", "")})
	}
	return all
}

// Direct implements System.
func (g *Group) Direct() []Target {
	var all []Target
	for _, m := range g.members {
		all = append(all, Target{m.Name, m.Direct()})
	}
	return all
}

// Heal implements System.
func (g *Group) Heal(ctx context.Context) error {
	var errs []error
	if g.net != nil {
		errs = append(errs, g.net.Heal(ctx))
	}
	for _, d := range g.disks {
		errs = append(errs, d.empty())
	}
	for _, d := range g.slow {
		d.stop()
	}
	for _, c := range g.clocks {
		errs = append(errs, c.set(0))
	}
	members, err := g.c.Status(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, m := range members {
		_ = send(syscall.SIGCONT, m.Pid, m.MysqldPid) // gone is fine
	}
	errs = append(errs, g.startDead(ctx))
	_ = g.rejoin(ctx) // if not now, then while the group gets ready
	return errors.Join(errs...)
}

// startDead starts the processes that are gone, also those that ended by
// themselves.
func (g *Group) startDead(ctx context.Context) error {
	members, err := g.c.Status(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, part := range []cluster.Part{cluster.Mysqld, cluster.Proxy} {
		for _, m := range members {
			if part == cluster.Mysqld && m.MysqldPid == 0 || part == cluster.Proxy && m.Pid == 0 {
				errs = append(errs, g.c.Restart(ctx, m.Name, part))
			}
		}
	}
	return errors.Join(errs...)
}

// Ready implements System. A process that ends by itself meanwhile is started
// again: a supervisor would.
func (g *Group) Ready(ctx context.Context) error {
	for {
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := g.c.AwaitOnline(short)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if err := g.startDead(ctx); err != nil && ctx.Err() != nil {
			return err
		}
		_ = g.rejoin(ctx)
	}
}

// Check implements System.
func (g *Group) Check(ctx context.Context) error {
	members, err := g.c.AwaitOnline(ctx)
	if err != nil {
		return err
	}
	_, err = cluster.Check(ctx, members)
	return err
}

// Close implements System.
func (g *Group) Close(ctx context.Context, keep bool) error {
	var errs []error
	for _, d := range g.slow {
		d.stop()
	}
	if g.c != nil {
		errs = append(errs, g.c.Kill(ctx, "", cluster.Both))
	}
	for _, d := range g.disks {
		if !keep {
			errs = append(errs, d.unmount(ctx))
		}
	}
	if g.net != nil {
		errs = append(errs, g.net.Close())
	}
	if g.c != nil && !keep {
		errs = append(errs, g.c.Destroy(ctx))
	}
	return errors.Join(errs...)
}

// send signals processes; those that are gone are left out, and 0 stands for
// one.
func send(sig syscall.Signal, pids ...int) error {
	var errs []error
	var ids []proc.ID
	for _, pid := range pids {
		id, err := proc.Of(pid)
		if pid > 0 && err == nil {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return proc.ErrGone
	}
	for _, id := range ids {
		if err := id.Signal(sig); err != nil && !errors.Is(err, proc.ErrGone) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Single is one stock mysqld: the control. What it shows is no anomaly.
type Single struct {
	in   *mysqld.Installation
	opts mysqld.Options
	mu   sync.Mutex
	p    *mysqld.Process
}

// StartSingle starts the control in a directory. Settings are lines for its
// my.cnf.
func StartSingle(ctx context.Context, in *mysqld.Installation, dir string, settings ...string) (*Single, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("battery: %w", err)
	}
	s := &Single{in: in, opts: mysqld.Options{Dir: dir, ServerID: 1, KillWithParent: true,
		Settings: slices.Concat([]string{"innodb_buffer_pool_size=128M"}, settings)}}
	if err := in.InitializeFromTemplate(ctx, s.opts); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Single) start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.p != nil && s.p.Alive() {
		return nil
	}
	p, err := s.in.Start(ctx, s.opts)
	if err == nil {
		s.p = p
		s.opts.Port = p.Port
	}
	return err
}

// Clients implements System.
func (s *Single) Clients() []Target { return s.Direct() }

// Direct implements System.
func (s *Single) Direct() []Target {
	return []Target{{"mysqld", loadgen.Target{Network: "unix", Addr: s.p.Socket, User: "root"}}}
}

// Faults implements System.
func (s *Single) Faults() []Fault {
	return []Fault{
		{Name: "kill mysqld", Do: func(ctx context.Context, _ *rand.Rand) (string, func(context.Context) error, error) {
			return "", s.start, s.p.Kill()
		}},
		{Name: "stop mysqld", Do: func(context.Context, *rand.Rand) (string, func(context.Context) error, error) {
			pid := s.p.Pid
			return "", func(context.Context) error { return send(syscall.SIGCONT, pid) }, send(syscall.SIGSTOP, pid)
		}},
	}
}

// Heal implements System.
func (s *Single) Heal(ctx context.Context) error {
	_ = send(syscall.SIGCONT, s.p.Pid)
	return s.start(ctx)
}

// Ready implements System.
func (s *Single) Ready(ctx context.Context) error { return s.start(ctx) }

// Check implements System: there is nobody to differ from.
func (*Single) Check(context.Context) error { return nil }

// Close implements System.
func (s *Single) Close(_ context.Context, keep bool) error {
	err := s.p.Kill()
	if !keep {
		err = errors.Join(err, os.RemoveAll(s.opts.Dir))
	}
	return err
}
