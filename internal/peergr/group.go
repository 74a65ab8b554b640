package peergr

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"cohort/internal/mysqld"
)

// GroupName is the uuid under which the group numbers its transactions.
const GroupName = "9a7c1ba0-6f0c-4f0b-9c56-2d1f60c0ffee"

// Options describe a group.
type Options struct {
	Installation *mysqld.Installation
	Dir          string   // an empty directory
	Members      int      // 0 means 3
	Settings     []string // name=value, for every server
	Router       bool     // start MySQL Router too
	// RouterFollows has the router find the primary in the group's metadata, as
	// one that was set up by its own bootstrap does; otherwise its route is fixed.
	RouterFollows bool
	Logger        zerolog.Logger
}

// Group is a running Group Replication group. Servers[0] is its first primary.
type Group struct {
	Servers []*Server
	Router  *Router // nil unless asked for
}

// Primary is the server that takes writes as long as nothing happens to it.
func (g *Group) Primary() *Server { return g.Servers[0] }

// Start starts the servers, bootstraps the group on the first, creates the
// account app there, lets the others join and returns when all are ONLINE.
func Start(ctx context.Context, o Options) (_ *Group, err error) {
	if o.Members == 0 {
		o.Members = 3
	}
	g := &Group{Servers: make([]*Server, o.Members)}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close(context.WithoutCancel(ctx)))
		}
	}()
	seeds := make([]string, o.Members)
	for i := range seeds {
		port, err := mysqld.FreePort("127.0.0.1")
		if err != nil {
			return nil, err
		}
		seeds[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	var starting errgroup.Group
	starting.SetLimit(2)
	for i := range g.Servers {
		starting.Go(func() (err error) {
			name := fmt.Sprintf("gr%d", i+1)
			g.Servers[i], err = launch(ctx, o.Installation, filepath.Join(o.Dir, name), name, uint32(i+1), append([]string{
				"plugin_load_add=group_replication.so",
				"loose_group_replication_group_name=" + GroupName,
				"loose_group_replication_start_on_boot=OFF",
				"loose_group_replication_local_address=" + seeds[i],
				"loose_group_replication_group_seeds=" + strings.Join(seeds, ","),
				"loose_group_replication_recovery_get_public_key=ON",
				"loose_group_replication_ip_allowlist=127.0.0.1/32",
			}, o.Settings...))
			return err
		})
	}
	if err := starting.Wait(); err != nil {
		return nil, err
	}
	for i, s := range g.Servers {
		o.Logger.Debug().Str("member", s.Name).Int("pid", s.Pid()).Msg("joining")
		if err := g.join(ctx, s, i == 0); err != nil {
			return nil, err
		}
	}
	if o.Router {
		route := fixedRoute(g.Primary())
		if o.RouterFollows {
			if err := g.Primary().run(ctx, g.metadata()...); err != nil {
				return nil, err
			}
			route = g.followingRoute()
		}
		if g.Router, err = startRouter(ctx, o.Installation.Bin, filepath.Join(o.Dir, "router"), route); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// join adds a server whose own binary log holds nothing yet.
func (g *Group) join(ctx context.Context, s *Server, bootstrap bool) error {
	// Initialisation writes no GTIDs; this keeps it so whatever the version does.
	statements := []string{
		"SET sql_log_bin = 0",
		"CREATE USER IF NOT EXISTS repl@'%' IDENTIFIED BY 'repl'",
		"GRANT REPLICATION SLAVE, BACKUP_ADMIN, GROUP_REPLICATION_STREAM, CONNECTION_ADMIN ON *.* TO repl@'%'",
		"SET sql_log_bin = 1",
		"CHANGE REPLICATION SOURCE TO SOURCE_USER='repl', SOURCE_PASSWORD='repl' FOR CHANNEL 'group_replication_recovery'",
	}
	if bootstrap {
		statements = append(statements,
			"SET GLOBAL group_replication_bootstrap_group = ON",
			"START GROUP_REPLICATION",
			"SET GLOBAL group_replication_bootstrap_group = OFF")
	} else {
		statements = append(statements, "START GROUP_REPLICATION")
	}
	if err := s.run(ctx, statements...); err != nil {
		return err
	}
	if err := g.awaitOnline(ctx, s); err != nil {
		return err
	}
	if bootstrap {
		return s.run(ctx, appAccount...)
	}
	return nil
}

func (g *Group) awaitOnline(ctx context.Context, s *Server) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		state, err := s.ask(ctx, "SELECT CONCAT(MEMBER_STATE, IF(@@super_read_only, '', ' WRITABLE')) FROM performance_schema.replication_group_members WHERE MEMBER_ID = @@server_uuid")
		if err != nil {
			return err
		}
		// The primary is ONLINE a moment before it takes writes.
		if state == "ONLINE WRITABLE" || state == "ONLINE" && s != g.Primary() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("peergr: %s is %q: %w\n%s", s.Name, state, ctx.Err(), tail(s.proc.LogFile))
		}
	}
}

// Close stops the router and the servers and waits until they are gone. The
// directories stay.
func (g *Group) Close(ctx context.Context) error {
	var errs []error
	if g.Router != nil {
		errs = append(errs, g.Router.Close(ctx))
	}
	// Secondaries leave first: nobody is elected for nothing.
	for i := len(g.Servers) - 1; i >= 0; i-- {
		if g.Servers[i] != nil {
			errs = append(errs, g.Servers[i].Close(ctx))
		}
	}
	return errors.Join(errs...)
}
