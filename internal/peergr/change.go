package peergr

import (
	"context"
	"errors"
	"fmt"
)

// Elected asks the servers for the present primary, and returns it once it takes
// writes by its own account.
func (g *Group) Elected(ctx context.Context) (*Server, error) {
	errs := []error{errors.New("peergr: no server is the primary and writable")}
	for _, s := range g.Servers {
		mine, err := s.ask(ctx, "SELECT COUNT(*) FROM performance_schema.replication_group_members "+
			"WHERE MEMBER_ID = @@server_uuid AND MEMBER_STATE = 'ONLINE' AND MEMBER_ROLE = 'PRIMARY' AND NOT @@super_read_only")
		if err == nil && mine == "1" {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// AllOnline says which server does not see all of them ONLINE.
func (g *Group) AllOnline(ctx context.Context) error {
	var errs []error
	for _, s := range g.Servers {
		n, err := s.ask(ctx, "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE = 'ONLINE'")
		if err == nil && n != fmt.Sprint(len(g.Servers)) {
			err = fmt.Errorf("peergr: %s sees %s members ONLINE", s.Name, n)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Rejoin starts a server that was killed and has it join the group again.
func (g *Group) Rejoin(ctx context.Context, s *Server) error {
	if err := s.restart(ctx); err != nil {
		return err
	}
	return s.run(ctx, "START GROUP_REPLICATION")
}

// Synchronise waits until every server executed all that the primary has.
func (g *Group) Synchronise(ctx context.Context) error {
	primary, err := g.Elected(ctx)
	if err != nil {
		return err
	}
	executed, err := primary.ask(ctx, "SELECT @@GLOBAL.gtid_executed")
	if err != nil {
		return err
	}
	for _, s := range g.Servers {
		late, err := s.ask(ctx, "SELECT WAIT_FOR_EXECUTED_GTID_SET('"+executed+"', 60)")
		if err == nil && late != "0" {
			err = fmt.Errorf("peergr: %s has not executed %s", s.Name, executed)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
