package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"cohort/internal/e2e/cluster"
	"cohort/internal/e2e/ledger"
	"cohort/internal/loadgen"
)

// writers are the two accounts of the sandbox: one with all privileges, one
// with none beyond its own schema.
var writers = []ledger.Account{{User: "app", Schema: "e2e_app"}, {User: "plain", Schema: "plain"}}

// everyKind is every kind of writer. noRows leaves out those whose rows are not
// wrapped in a transaction that the group decides on: a primary that dies between
// running such a statement and having it ordered comes back in state ERROR if the
// next primary has written the table meanwhile (docs/limits.md), and so writers that
// go on writing the same table would end the test by design.
var (
	everyKind = append([]ledger.Kind{ledger.User}, ledger.Kinds...)
	noRows    = slices.DeleteFunc(slices.Clone(everyKind), func(k ledger.Kind) bool { return k == ledger.Locked || k == ledger.Call })
)

// underFault writes without pause while faults come and go, and then holds
// every member to every answer that was given.
func underFault(t *testing.T, rounds int, kinds []ledger.Kind, fault func(ctx context.Context, g *group, round int) error) {
	t.Helper()
	g := startGroup(t)
	l := ledger.New(writers, kinds, len(g.Members))
	dial := func(ctx context.Context, w ledger.Writer) (loadgen.Target, error) {
		// A sandbox keeps the ports of its members.
		return g.Members[w.Member].Through(w.Account.User, ""), nil
	}
	prepareCtx, cancelPrepare := context.WithTimeout(t.Context(), patience)
	defer cancelPrepare()
	if err := l.Prepare(prepareCtx, dial); err != nil {
		t.Fatal(err)
	}
	stop := underLoad(t.Context(), l, dial)
	defer stop()
	for round := range rounds {
		awaitProgress(t, l, 3)
		faultCtx, cancel := context.WithTimeout(t.Context(), patience)
		err := fault(faultCtx, g, round)
		cancel()
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		g.awaitOnline(t)
	}
	awaitProgress(t, l, 3)
	stop()
	t.Log(l.Summary())

	n := g.check(t)
	t.Logf("group:1-%d", n)
	for _, m := range g.awaitOnline(t) {
		if err := l.Verify(t.Context(), m.Direct()); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
	}
}

// underLoad has the writers of l at work until stop is called, which waits for them and
// may be called again: deferred, it ends the load also when the test fails in between.
func underLoad(ctx context.Context, l *ledger.Ledger, dial ledger.Dialer) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx, dial)
	}()
	return func() {
		cancel()
		<-done
	}
}

// awaitProgress returns when every writer got the given number of further
// acknowledgements: the load reaches the group again, through every member.
func awaitProgress(t *testing.T, l *ledger.Ledger, more int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	from := l.Progress()
	for {
		var late []ledger.Writer
		now := l.Progress()
		for _, w := range l.Writers {
			if now[w.ID] < from[w.ID]+more {
				late = append(late, w)
			}
		}
		if len(late) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("writers got no answers: %+v; %s", late, l.Summary())
		}
	}
}

// fault is what happens again and again while clients write.
type fault struct {
	name      string
	rounds    int
	secondary bool // it hits a secondary only
	strike    func(ctx context.Context, g *group, round int) error
}

func faults() []fault {
	var all []fault
	// The faults of one member: its mysqld dies, its proxy dies, both do.
	for _, whom := range []string{"secondary", "primary"} {
		for _, part := range []cluster.Part{cluster.Mysqld, cluster.Proxy, cluster.Both} {
			f := fault{name: whom + "/" + partName(part), rounds: 3, secondary: whom == "secondary"}
			// The primary is another one after each of these faults.
			pick := cluster.Primary
			if f.secondary {
				pick = cluster.Secondary
			}
			f.strike = func(ctx context.Context, g *group, _ int) error {
				victim, err := g.now(ctx, pick)
				if err != nil {
					return err
				}
				if err := killAndRestart(ctx, g, victim.Name, part); err != nil {
					return err
				}
				return g.returned(ctx, victim)
			}
			all = append(all, f)
		}
	}
	// All processes of all members at once, as when the machine loses its power
	// (but for what the page cache holds).
	all = append(all, fault{name: "everything", rounds: 3, strike: func(ctx context.Context, g *group, _ int) error {
		return killAndRestart(ctx, g, "", cluster.Both)
	}})
	// All mysqlds at once, then all proxies at once.
	for _, part := range []cluster.Part{cluster.Mysqld, cluster.Proxy} {
		all = append(all, fault{name: "every " + partName(part), rounds: 2, strike: func(ctx context.Context, g *group, _ int) error {
			for _, m := range g.Members {
				if err := g.Kill(ctx, m.Name, part); err != nil {
					return err
				}
			}
			for _, m := range g.Members {
				if err := g.Restart(ctx, m.Name, part); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	// A different part of a different member each time.
	return append(all, fault{name: "in turn", rounds: 9, strike: func(ctx context.Context, g *group, round int) error {
		parts := []cluster.Part{cluster.Mysqld, cluster.Proxy, cluster.Both}
		return killAndRestart(ctx, g, g.Members[round%3].Name, parts[(round+round/3)%3])
	}})
}

func (f fault) kinds() []ledger.Kind {
	if f.secondary {
		return everyKind
	}
	return noRows
}

func partName(p cluster.Part) string {
	if p == cluster.Both {
		return "both"
	}
	return string(p)
}

// Each fault again and again on a group of its own; with -short each of them once,
// one after the other on one group for the same clients.
func TestKill(t *testing.T) {
	all := faults()
	if !testing.Short() {
		for _, f := range all {
			t.Run(f.name, func(t *testing.T) { underFault(t, f.rounds, f.kinds(), f.strike) })
		}
		return
	}
	all = all[:len(all)-1] // "in turn" has nothing new
	others := slices.IndexFunc(all, func(f fault) bool { return !f.secondary })
	for _, some := range [][]fault{all[:others], all[others:]} {
		t.Run(some[0].name+" and on", func(t *testing.T) {
			underFault(t, len(some), some[0].kinds(), func(ctx context.Context, g *group, round int) error {
				f := some[round]
				t.Log(f.name)
				if err := f.strike(ctx, g, 0); err != nil {
					return fmt.Errorf("%s: %w", f.name, err)
				}
				return nil
			})
		})
	}
}

func killAndRestart(ctx context.Context, g *group, member string, part cluster.Part) error {
	if err := g.Kill(ctx, member, part); err != nil {
		return err
	}
	return g.Restart(ctx, member, part)
}

// rounds is how often a fault is repeated: fewer in -short.
func rounds(t *testing.T, n int) int {
	t.Helper()
	if testing.Short() {
		return 1
	}
	return n
}
