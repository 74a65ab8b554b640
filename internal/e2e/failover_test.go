package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"cohort/internal/e2e/cluster"
	"cohort/internal/e2e/ledger"
	"cohort/internal/loadgen"
)

// steady are the kinds of clients that stay connected when the primary changes,
// and the errors that they may see: a transaction of several statements that was
// open on the old primary is lost, one statement by itself is not. Where the change
// is planned they see none.
var steady = map[ledger.Kind][]uint16{
	ledger.Autocommit: nil,
	ledger.Prepared:   nil,
	ledger.Multi:      {1213, 3101},
}

// failover is something that makes another member the primary.
type failover struct {
	name string
	// strike hits the primary. heal, if any, brings back what was hit.
	strike, heal func(ctx context.Context, g *group, primary cluster.Member) error
	// planned: the old primary serves clients all the time.
	planned bool
}

func failovers() []failover {
	kill := func(name string, part cluster.Part) failover {
		return failover{
			name:   name,
			strike: func(ctx context.Context, g *group, m cluster.Member) error { return g.Kill(ctx, m.Name, part) },
			heal:   func(ctx context.Context, g *group, m cluster.Member) error { return g.Restart(ctx, m.Name, part) },
		}
	}
	signal := func(sig syscall.Signal) func(context.Context, *group, cluster.Member) error {
		return func(_ context.Context, _ *group, m cluster.Member) error {
			return errors.Join(syscall.Kill(m.Pid, sig), syscall.Kill(m.MysqldPid, sig))
		}
	}
	return []failover{
		kill("kill mysqld", cluster.Mysqld),
		kill("kill proxy", cluster.Proxy),
		kill("kill both", cluster.Both),
		{name: "stop both", strike: signal(syscall.SIGSTOP), heal: signal(syscall.SIGCONT)},
		{name: "switchover", strike: switchOver, planned: true},
	}
}

// switchOver appoints the first secondary, through that secondary's own member.
func switchOver(ctx context.Context, g *group, _ cluster.Member) error {
	to, err := g.now(ctx, cluster.Secondary)
	if err != nil {
		return err
	}
	c, err := loadgen.Dial(ctx, to.Through("app", ""))
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	if _, err := c.Query(fmt.Sprintf("SELECT group_replication_set_as_primary('%s')", to.UUID)); err != nil {
		return fmt.Errorf("switch over to %s: %w", to.Name, err)
	}
	return nil
}

// The primary fails, or hands over: clients of the other members stay connected,
// another member is the primary, the old one comes back as a secondary, and
// nothing that was acknowledged is lost or there twice.
func TestFailover(t *testing.T) {
	if testing.Short() {
		g := startGroup(t)
		for i, f := range failovers() {
			if !t.Run(f.name, func(t *testing.T) { failOver(t, g, f, i) }) {
				return // the group is in no state for another one
			}
		}
		return
	}
	for _, f := range failovers() {
		t.Run(f.name, func(t *testing.T) {
			g := startGroup(t)
			for round := range 3 {
				failOver(t, g, f, round)
			}
		})
	}
}

// failOver makes one failover under load. Rounds on one group differ in the
// number, which names the schema.
func failOver(t *testing.T, g *group, f failover, round int) {
	t.Helper()
	members := g.awaitOnline(t)
	primary, err := cluster.Primary(members)
	if err != nil {
		t.Fatal(err)
	}
	// A client of the member that is hit loses its connection with it.
	through := slices.DeleteFunc(slices.Clone(members), func(m cluster.Member) bool { return !f.planned && m.Name == primary.Name })
	account := ledger.Account{User: "app", Schema: fmt.Sprintf("failover_%d", round)}
	kinds := []ledger.Kind{ledger.Autocommit, ledger.Prepared, ledger.Multi}
	l := ledger.New([]ledger.Account{account}, kinds, len(through))
	l.Stay = true
	dial := func(_ context.Context, w ledger.Writer) (loadgen.Target, error) {
		return through[w.Member].Through(w.Account.User, ""), nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.Prepare(ctx, dial); err != nil {
		t.Fatal(err)
	}
	stop := underLoad(t.Context(), l, dial)
	defer stop()
	awaitProgress(t, l, 10)

	healed := f.heal == nil
	heal := func() {
		if healed {
			return
		}
		healed = true
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := f.heal(ctx, g, primary); err != nil {
			t.Errorf("%s: bring %s back: %v", f.name, primary.Name, err)
		}
	}
	// A stopped process would keep the group from being taken down in order.
	defer heal()
	if err := f.strike(ctx, g, primary); err != nil {
		t.Fatal(err)
	}
	if err := g.awaitStatus(ctx, func(now []cluster.Member) error { return replaced(now, primary) }); err != nil {
		t.Fatalf("%s of %s: no other primary: %v; %s", f.name, primary.Name, err, l.Summary())
	}
	awaitProgress(t, l, 10)
	heal()
	if err := g.returned(ctx, primary); err != nil {
		t.Fatal(err)
	}
	awaitProgress(t, l, 10)
	stop()
	t.Log(l.Summary())

	for _, k := range kinds {
		for _, err := range l.Losses(k) {
			t.Errorf("%s: a client lost its connection: %v", k, err)
		}
		for _, err := range l.Errors(k) {
			var se *loadgen.ServerError
			if f.planned || !errors.As(err, &se) || !slices.Contains(steady[k], se.Number) {
				t.Errorf("%s: a client saw %v", k, err)
			}
		}
	}
	t.Logf("group:1-%d", g.check(t))
	for _, m := range g.awaitOnline(t) {
		if err := l.Verify(t.Context(), m.Direct()); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
	}
}

// replaced says whether another member than the one that was primary is ONLINE
// as such. What the one that was hit says of itself does not count.
func replaced(now []cluster.Member, was cluster.Member) error {
	others := slices.DeleteFunc(slices.Clone(now), func(m cluster.Member) bool { return m.Name == was.Name })
	primary, err := cluster.Primary(others)
	if err != nil {
		return err
	}
	if primary.State != "ONLINE" {
		return fmt.Errorf("the new primary, %s, is %s", primary.Name, primary.State)
	}
	return nil
}
