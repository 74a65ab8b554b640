package failover

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/loadgen"
	"cohort/internal/mysqldtest"
)

// single is one server, which stands for a group of one: what is tested here is
// the measurement, not what is measured.
type single struct {
	t    *testing.T
	s    *mysqldtest.Server
	dead bool // a killed server is started again by heal only
}

func (g *single) Client(context.Context) (loadgen.Target, error) {
	return loadgen.Target{Network: "tcp", Addr: g.s.Addr, User: "app", Password: "app"}, nil
}

func (g *single) Strike(context.Context, Case) (func(context.Context) error, error) {
	g.s.Kill(g.t)
	if g.dead {
		return func(context.Context) error { g.s.Restart(g.t); return nil }, nil
	}
	g.s.Restart(g.t)
	return nil, nil
}

func (g *single) Await(context.Context) error { return nil }

func (g *single) Settle(context.Context) ([]Member, error) {
	return []Member{{"one", loadgen.Target{Network: "unix", Addr: g.s.Socket, User: "root"}}}, nil
}

func (g *single) Close(context.Context) error { return nil }

// A server that is killed and started at once gives a gap that holds its
// downtime; one that stays away gives a run without recovery, not a hang; and
// neither loses an acknowledged row.
func TestMeasure(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "CREATE USER app@'%' IDENTIFIED BY 'app'", "GRANT ALL ON *.* TO app@'%'")
	p := Plan{Runs: 2, Limit: 5 * time.Minute, Return: 5 * time.Minute, Logger: zerolog.Nop()}

	r := Measure(t.Context(), p, "x", &single{t: t, s: s}, Restart)
	if r.Bad() || len(r.Runs) != 2 || r.Audit == nil || r.Audit.Acked < 4*steadyWrites {
		t.Fatalf("%+v %+v", r, r.Audit)
	}
	if r.Dropped != 2 || r.Errors[lostConnection] != 2 || r.Audit.Unknown != 2 {
		t.Errorf("each kill ends one connection with one answer missing: %+v %+v", r, r.Audit)
	}
	for _, run := range r.Runs {
		if !run.Recovered || run.Gap == 0 {
			t.Errorf("%+v", run)
		}
	}

	p.Limit = 3 * time.Second // while the server is away for good
	r = Measure(t.Context(), p, "x", &single{t: t, s: s, dead: true}, Mysqld)
	if r.Bad() || len(r.Runs) != 2 || r.Audit == nil {
		t.Fatalf("%+v %+v", r, r.Audit)
	}
	for _, run := range r.Runs {
		if run.Recovered {
			t.Errorf("recovered without a server: %+v", run)
		}
	}
}
