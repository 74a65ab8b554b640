package e2e

import (
	"context"
	"testing"

	"cohort/internal/e2e/cluster"
	"cohort/internal/e2e/ledger"
	"cohort/internal/loadgen"
)

// The primary changes as planned again and again, under clients of every member that
// write by single statements and by short transactions: none sees an error, and
// none loses its connection.
func TestSwitchoversAreNotSeen(t *testing.T) {
	g := startGroup(t)
	account := ledger.Account{User: "app", Schema: "switchover"}
	kinds := []ledger.Kind{ledger.Autocommit, ledger.Prepared, ledger.Multi}
	l := ledger.New([]ledger.Account{account}, kinds, len(g.Members))
	l.Stay = true
	dial := func(_ context.Context, w ledger.Writer) (loadgen.Target, error) {
		return g.Members[w.Member].Through(w.Account.User, ""), nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if err := l.Prepare(ctx, dial); err != nil {
		t.Fatal(err)
	}
	stop := underLoad(t.Context(), l, dial)
	defer stop()
	for range max(2, rounds(t, 5)) { // there and back
		awaitProgress(t, l, 10)
		was, err := g.now(ctx, cluster.Primary)
		if err != nil {
			t.Fatal(err)
		}
		if err := switchOver(ctx, g, was); err != nil {
			t.Fatal(err)
		}
		awaitProgress(t, l, 10)
		if err := g.returned(ctx, was); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	t.Log(l.Summary())
	for _, k := range kinds {
		for _, err := range append(l.Losses(k), l.Errors(k)...) {
			t.Errorf("%s: a client saw %v", k, err)
		}
	}
	t.Logf("group:1-%d", g.check(t))
	for _, m := range g.awaitOnline(t) {
		if err := l.Verify(t.Context(), m.Direct()); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
	}
}
