package bench

import (
	"context"
	"errors"

	"github.com/rs/zerolog"

	"cohort/internal/e2e/cluster"
	"cohort/internal/mysqld"
	"cohort/internal/peergr"
)

// Names of systems and endpoints in the tables.
const (
	NameSingle = "one mysqld"
	NamePeer   = "Group Replication"
	NameCohort = "cohort"

	EndpointDirect    = "direct"
	EndpointRouter    = "MySQL Router"
	EndpointPrimary   = "primary's member"
	EndpointSecondary = "secondary's member"
)

// Process groups of the CPU table.
const (
	groupPrimary     = "primary's mysqld"
	groupSecondaries = "secondaries' mysqlds"
	groupProxies     = "primary's cohort"
	groupOthers      = "secondaries' cohorts"
	groupRouter      = "MySQL Router"
)

// Single is one mysqld without any replication, binary log on.
func Single(in *mysqld.Installation, d Durability) System {
	return System{Name: NameSingle, Durability: d, Start: func(ctx context.Context, dir string) (*Running, error) {
		s, err := peergr.StartServer(ctx, in, dir, "single", d.Options()...)
		if err != nil {
			return nil, err
		}
		return &Running{
			Load:      s.App(),
			Endpoints: []Endpoint{{EndpointDirect, s.App()}},
			Members:   []Member{{s.Name, s.Root()}},
			GTIDKey:   s.UUID,
			Processes: []Process{{groupPrimary, s.Pid()}},
			Stop:      s.Close,
		}, nil
	}}
}

// Peer is Group Replication with its defaults, single-primary.
func Peer(in *mysqld.Installation, d Durability, logger zerolog.Logger) System {
	return System{Name: NamePeer, Durability: d, Start: func(ctx context.Context, dir string) (*Running, error) {
		g, err := peergr.Start(ctx, peergr.Options{
			Installation: in, Dir: dir, Settings: d.Options(), Router: true, Logger: logger,
		})
		if err != nil {
			return nil, err
		}
		r := &Running{
			Load:      g.Primary().App(),
			Endpoints: []Endpoint{{EndpointDirect, g.Primary().App()}, {EndpointRouter, g.Router.App()}},
			GTIDKey:   peergr.GroupName,
			Processes: []Process{{groupRouter, g.Router.Pid()}},
			Stop:      g.Close,
		}
		for i, s := range g.Servers {
			r.Members = append(r.Members, Member{s.Name, s.Root()})
			group := groupSecondaries
			if i == 0 {
				group = groupPrimary
			}
			r.Processes = append(r.Processes, Process{group, s.Pid()})
		}
		return r, nil
	}}
}

// Cohort is our group, started by its own sandbox.
func Cohort(program string, d Durability) System {
	return System{Name: NameCohort, Durability: d, Start: func(ctx context.Context, dir string) (*Running, error) {
		c, err := cluster.Start(ctx, cluster.Options{Program: program, Dir: dir, MysqldOptions: d.Options()})
		if err != nil {
			return nil, err
		}
		r, err := describeCohort(ctx, c)
		if err != nil {
			return nil, errors.Join(err, c.Destroy(context.WithoutCancel(ctx)))
		}
		return r, nil
	}}
}

func describeCohort(ctx context.Context, c *cluster.Cluster) (*Running, error) {
	members, err := c.AwaitOnline(ctx)
	if err != nil {
		return nil, err
	}
	primary, err := cluster.Primary(members)
	if err != nil {
		return nil, err
	}
	secondary, err := cluster.Secondary(members)
	if err != nil {
		return nil, err
	}
	r := &Running{
		Load: primary.Through("app", ""),
		Endpoints: []Endpoint{
			{EndpointPrimary, primary.Through("app", "")},
			{EndpointSecondary, secondary.Through("app", "")},
		},
		Stop: c.Destroy,
	}
	for _, m := range members {
		r.Members = append(r.Members, Member{m.Name, m.Direct()})
		mysqld, proxy := groupSecondaries, groupOthers
		if m.Name == primary.Name {
			mysqld, proxy = groupPrimary, groupProxies
		}
		r.Processes = append(r.Processes, Process{mysqld, m.MysqldPid}, Process{proxy, m.Pid})
	}
	r.GTIDKey, err = cluster.GroupName(ctx, primary)
	return r, err
}
