package failover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"cohort/internal/e2e/cluster"
	"cohort/internal/e2e/netlab"
	"cohort/internal/loadgen"
	"cohort/internal/proc"
)

// groupSize is the number of members.
const groupSize = 3

// Cohort is our group of three, started by its own sandbox: each member on a
// network of its own where that is permitted, otherwise on the loopback interface.
// name is how the table calls it, options are settings of the members, name=value.
func Cohort(name, program string, options ...string) System {
	return System{
		Name: name,
		NotRun: func(c Case) string {
			if c != Cut {
				return ""
			}
			lab, err := netlab.New(context.Background(), 1)
			if err == nil {
				err = lab.Close()
			}
			if err != nil {
				return err.Error()
			}
			return ""
		},
		Start: func(ctx context.Context, dir string) (Group, error) {
			lab, err := netlab.New(ctx, groupSize)
			if err != nil && !errors.Is(err, netlab.ErrNotPermitted) {
				return nil, err
			}
			c, err := cluster.Start(ctx, cluster.Options{Program: program, Dir: dir, Members: groupSize, MemberOptions: options, Net: lab})
			if err != nil {
				if lab != nil {
					err = errors.Join(err, lab.Close())
				}
				return nil, err
			}
			return &cohort{c, lab}, nil
		},
	}
}

type cohort struct {
	*cluster.Cluster
	lab *netlab.Lab // nil: no networks of their own
}

// role asks for the members and picks the first of a role. What a member that
// is about to be replaced says of itself passes: Await has gone before.
func (g *cohort) role(ctx context.Context, pick func([]cluster.Member) (cluster.Member, error)) (cluster.Member, error) {
	members, err := g.Status(ctx)
	if err != nil {
		return cluster.Member{}, err
	}
	return pick(members)
}

func (g *cohort) Client(ctx context.Context) (loadgen.Target, error) {
	m, err := g.role(ctx, cluster.Secondary)
	if err != nil {
		return loadgen.Target{}, err
	}
	return m.Through("app", ""), nil
}

// signal reaches all processes at one moment, as far as that can be. It does not
// wait until killed ones are gone.
func signal(sig syscall.Signal, pids ...int) error {
	var ids []proc.ID
	for _, pid := range pids {
		id, err := proc.Of(pid)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, id.Signal(sig))
	}
	return errors.Join(errs...)
}

func (g *cohort) Strike(ctx context.Context, c Case) (func(context.Context) error, error) {
	m, err := g.role(ctx, cluster.Primary)
	if err != nil {
		return nil, err
	}
	restart := func(part cluster.Part) func(context.Context) error {
		return func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			// What was killed is to be gone for the sandbox too.
			return errors.Join(g.Kill(ctx, m.Name, part), g.Restart(ctx, m.Name, part))
		}
	}
	switch c {
	case Mysqld:
		return restart(cluster.Mysqld), signal(syscall.SIGKILL, m.MysqldPid)
	case Proxy:
		return restart(cluster.Proxy), signal(syscall.SIGKILL, m.Pid)
	case Both:
		return restart(cluster.Both), signal(syscall.SIGKILL, m.Pid, m.MysqldPid)
	case Restart:
		err := signal(syscall.SIGKILL, m.Pid, m.MysqldPid)
		return nil, errors.Join(err, restart(cluster.Both)(ctx))
	case Stop:
		goOn := func(context.Context) error { return signal(syscall.SIGCONT, m.MysqldPid, m.Pid) }
		return goOn, signal(syscall.SIGSTOP, m.Pid, m.MysqldPid)
	case Cut:
		// From the other members only: the measurement itself still sees it.
		host, err := g.host(ctx, m)
		if err != nil {
			return nil, err
		}
		return g.lab.Heal, g.lab.Isolate(ctx, host)
	case Switchover:
		return nil, g.switchOver(ctx)
	}
	return nil, fmt.Errorf("failover: %s: no such fault of a cohort group", c)
}

// host is the member's place in the lab.
func (g *cohort) host(ctx context.Context, m cluster.Member) (int, error) {
	if g.lab == nil {
		return 0, netlab.ErrNotPermitted
	}
	all, err := g.Status(ctx)
	if err != nil {
		return 0, err
	}
	return slices.IndexFunc(all, func(o cluster.Member) bool { return o.Name == m.Name }), nil
}

func (g *cohort) switchOver(ctx context.Context) error {
	to, err := g.role(ctx, cluster.Secondary)
	if err != nil {
		return err
	}
	return appoint(ctx, to.Through("app", ""), to.UUID)
}

// appoint asks a member to make the one with the uuid the primary.
func appoint(ctx context.Context, at loadgen.Target, uuid string) error {
	c, err := dial(ctx, at)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	_, err = c.Query("SELECT group_replication_set_as_primary('" + uuid + "')")
	return err
}

func (g *cohort) Await(ctx context.Context) error {
	_, err := g.AwaitOnline(ctx)
	return err
}

func (g *cohort) Settle(ctx context.Context) ([]Member, error) {
	members, err := g.AwaitOnline(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := cluster.Check(ctx, members); err != nil {
		return nil, err
	}
	var all []Member
	for _, m := range members {
		all = append(all, Member{m.Name, m.Direct()})
	}
	return all, nil
}

func (g *cohort) Close(ctx context.Context) error {
	err := g.Destroy(ctx)
	if g.lab != nil {
		err = errors.Join(err, g.lab.Close())
	}
	return err
}
