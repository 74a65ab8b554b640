package ledger

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"cohort/internal/loadgen"
	"cohort/internal/mysqldtest"
)

var accounts = []Account{{"app", "e2e"}, {"plain", "plain"}}

func server(t *testing.T) (*mysqldtest.Server, Dialer) {
	t.Helper()
	s := mysqldtest.Start(t)
	s.SQL(t, "CREATE USER app@'%' IDENTIFIED BY 'app'", "GRANT ALL ON *.* TO app@'%'", "CREATE DATABASE plain",
		"CREATE USER plain@'%' IDENTIFIED BY 'plain'", "GRANT ALL ON plain.* TO plain@'%'")
	addr := s.Addr // a restart keeps it
	return s, func(_ context.Context, w Writer) (loadgen.Target, error) {
		return loadgen.Target{Network: "tcp", Addr: addr, User: w.Account.User, Password: w.Account.User}, nil
	}
}

func root(s *mysqldtest.Server) loadgen.Target {
	return loadgen.Target{Network: "unix", Addr: s.Socket, User: "root"}
}

// await waits until every kind has n acknowledged writes.
func await(t *testing.T, l *Ledger, kinds []Kind, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		late := 0
		for _, k := range kinds {
			if l.Acked(k) < n {
				late++
			}
		}
		if late == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("too few answers: %s", l.Summary())
		}
	}
}

// A server at full durability that is killed keeps what it acknowledged: the
// ledger agrees with one that is right.
func TestVerifyAfterKill(t *testing.T) {
	s, dial := server(t)
	kinds := append([]Kind{User}, Kinds...)
	l := New(accounts, kinds, 2)
	if err := l.Prepare(t.Context(), dial); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx, dial) }()
	await(t, l, kinds, 3)
	s.Kill(t)
	s.Restart(t)
	await(t, l, kinds, l.Acked(Large)+2)
	stop()
	<-done
	t.Log(l.Summary())
	if err := l.Verify(t.Context(), root(s)); err != nil {
		t.Error(err)
	}
}

// Every way in which data can be wrong is found.
func TestVerifyFindsDamage(t *testing.T) {
	s, dial := server(t)
	kinds := append([]Kind{User}, Kinds...)
	l := New(accounts, kinds, 1)
	if err := l.Prepare(t.Context(), dial); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx, dial) }()
	await(t, l, kinds, 3)
	stop()
	<-done
	if err := l.Verify(t.Context(), root(s)); err != nil {
		t.Fatal(err)
	}
	writer := map[Kind]Writer{}
	for _, w := range l.Writers {
		if w.Account == accounts[0] {
			writer[w.Kind] = w
		}
	}
	id := func(k Kind) int { return writer[k].ID }
	for name, d := range map[string]struct{ damage, want string }{
		"lost autocommit": {fmt.Sprintf("DELETE FROM e2e.ledger WHERE w = %d AND seq = 2", id(Autocommit)), "autocommit by app"},
		"doubled":         {fmt.Sprintf("INSERT INTO e2e.ledger (w, seq, part) VALUES (%d, 1, 1)", id(Autocommit)), "more than once"},
		"torn":            {fmt.Sprintf("DELETE FROM e2e.ledger WHERE w = %d AND seq = 1 AND part = 2", id(Multi)), "in part"},
		"counter":         {fmt.Sprintf("UPDATE e2e.counters SET n = n + 1 WHERE w = %d", id(Multi)), "its counter says"},
		"large in part":   {fmt.Sprintf("DELETE FROM e2e.ledger WHERE w = %d AND seq = 1 AND part = 3", id(Large)), "large by app"},
		"short body":      {fmt.Sprintf("UPDATE e2e.ledger SET body = LEFT(body, 1000) WHERE w = %d AND seq = 1 AND part = 1", id(Large)), "wrong length"},
		"lost table":      {fmt.Sprintf("DROP TABLE e2e.made_%d_1", id(DDL)), "ddl by app"},
		"lost under lock": {fmt.Sprintf("DELETE FROM e2e.locked_%d WHERE seq = 1", id(Locked)), "locked by app"},
		"lost call":       {fmt.Sprintf("DELETE FROM e2e.ledger WHERE w = %d AND seq = 1", id(Call)), "call by app"},
		"lost user":       {fmt.Sprintf("DROP USER ledger_%d_1", id(User)), "user by app"},
		"from nowhere":    {"INSERT INTO e2e.ledger (w, seq, part) VALUES (999, 1, 1)", "was never made"},
	} {
		s.SQL(t, d.damage)
		if err := l.Verify(t.Context(), root(s)); err == nil || !strings.Contains(err.Error(), d.want) {
			t.Errorf("%s: not found: %v", name, err)
		}
	}
}

func TestClassify(t *testing.T) {
	for number, want := range map[uint16]Outcome{3101: Refused, 1213: Refused, 3100: Refused, 2013: Unknown, 1053: Unknown, 1205: Unknown} {
		if got := classify(&loadgen.ServerError{Number: number}); got != want {
			t.Errorf("%d: %v", number, got)
		}
	}
	if classify(context.DeadlineExceeded) != Unknown {
		t.Error("no answer settles nothing")
	}
}

// A writer that stays keeps its connection through an answered error, and only
// then; what ends a connection is counted.
func TestStay(t *testing.T) {
	s, dial := server(t)
	kinds := []Kind{Autocommit, Prepared, Multi}
	l := New(accounts[:1], kinds, 2)
	l.Stay = true
	if err := l.Prepare(t.Context(), dial); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx, dial) }()
	defer func() { stop(); <-done }()
	await(t, l, kinds, 3)
	s.SQL(t, "RENAME TABLE e2e.ledger TO e2e.away")
	failed := func(errs func(Kind) []error, what string) {
		t.Helper()
		deadline := time.Now().Add(3 * time.Minute)
		for _, k := range kinds {
			for len(errs(k)) == 0 {
				if time.Now().After(deadline) {
					t.Fatalf("%s: %s; %s", k, what, l.Summary())
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	failed(l.Errors, "no error without the table")
	s.SQL(t, "RENAME TABLE e2e.away TO e2e.ledger")
	for _, k := range kinds {
		await(t, l, []Kind{k}, l.Acked(k)+3)
		if losses := l.Losses(k); len(losses) > 0 {
			t.Errorf("%s: an answered error ended the connection: %v", k, losses)
		}
	}
	s.Kill(t)
	failed(l.Losses, "no connection lost with the server")
	s.Restart(t)
	for _, k := range kinds {
		await(t, l, []Kind{k}, l.Acked(k)+3)
	}
	stop()
	<-done
	if err := l.Verify(t.Context(), root(s)); err != nil {
		t.Error(err)
	}
}
