package failover

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/loadgen"
	"cohort/internal/mysqld"
	"cohort/internal/pause"
	"cohort/internal/peergr"
)

// Peer is Group Replication with MySQL Router, both with their defaults.
func Peer(in *mysqld.Installation, logger zerolog.Logger) System {
	return System{
		Name: "Group Replication, MySQL Router",
		NotRun: func(c Case) string {
			if c != Mysqld && c != Switchover {
				return "only the kill of the primary's mysqld and the switchover are compared"
			}
			return ""
		},
		Start: func(ctx context.Context, dir string) (Group, error) {
			g, err := peergr.Start(ctx, peergr.Options{Installation: in, Dir: dir, Router: true, RouterFollows: true, Logger: logger})
			if err != nil {
				return nil, err
			}
			return &peer{g}, nil
		},
	}
}

type peer struct{ *peergr.Group }

func (g *peer) Client(context.Context) (loadgen.Target, error) { return g.Router.App(), nil }

func (g *peer) Strike(ctx context.Context, c Case) (func(context.Context) error, error) {
	primary, err := g.Elected(ctx)
	if err != nil {
		return nil, err
	}
	switch c {
	case Mysqld:
		restart := func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			return g.Rejoin(ctx, primary)
		}
		return restart, signal(syscall.SIGKILL, primary.Pid())
	case Switchover:
		for _, s := range g.Servers {
			if s != primary {
				return nil, appoint(ctx, s.Root(), s.UUID)
			}
		}
	}
	return nil, fmt.Errorf("failover: %s: no such fault of Group Replication", c)
}

func (g *peer) Await(ctx context.Context) error {
	var last error
	for ctx.Err() == nil {
		if _, last = g.Elected(ctx); last == nil {
			if last = g.AllOnline(ctx); last == nil {
				return nil
			}
		}
		_ = pause.For(ctx, 100*time.Millisecond)
	}
	return errors.Join(last, ctx.Err())
}

// Settle waits until all servers executed what the primary did.
func (g *peer) Settle(ctx context.Context) ([]Member, error) {
	if err := g.Await(ctx); err != nil {
		return nil, err
	}
	var all []Member
	for _, s := range g.Servers {
		all = append(all, Member{s.Name, s.Root()})
	}
	return all, g.Synchronise(ctx)
}
