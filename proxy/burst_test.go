package proxy

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestBurst: a statement in autocommit mode reaches mysqld in one write, and
// leaves nothing prepared whatever becomes of it.
func TestBurst(t *testing.T) {
	g, m := meddledRig(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY, b INT)",
		"CREATE FUNCTION tmp() RETURNS INT MODIFIES SQL DATA BEGIN CREATE TEMPORARY TABLE IF NOT EXISTS tt (a INT); INSERT INTO tt VALUES (1); RETURN 1; END")
	for _, tt := range []struct {
		sql             string
		writes          int
		code            uint16
		wrapped, direct int
	}{
		{"INSERT INTO t VALUES (1, 1), (2, 2)", 1, 0, 1, 0},
		{"UPDATE t SET b=b+1 WHERE a=1", 1, 0, 1, 0},
		{"INSERT IGNORE INTO t VALUES (1, 1), (3, 3)", 1, 0, 1, 0},
		{"INSERT INTO t VALUES (1, 1)", 2, 1062, 0, 0},
		{"INSERT INTO", 2, 1064, 0, 0},
		{"INSERT INTO nosuch VALUES (1)", 2, 1146, 0, 0},
		{"UPDATE t SET b=1 WHERE a=77", 3, 0, 0, 0}, // the question for the trackers, and XA COMMIT
		{"DELETE FROM t WHERE a=3", 1, 0, 1, 0},
		{"INSERT INTO t VALUES (9, tmp())", 3, 0, 0, 1},
		{"INSERT INTO t VALUES (10, 1)", 1, 0, 0, 1}, // now there is a temporary table
	} {
		w0, d0 := g.group.counts()
		seen := m.record(func() {
			if e := c.fails(tt.sql); e == nil && tt.code != 0 || e != nil && e.Code != tt.code {
				t.Errorf("%s: %v", tt.sql, e)
			}
		})
		if len(seen) != tt.writes {
			t.Errorf("%s: %d writes, want %d: %q", tt.sql, len(seen), tt.writes, seen)
		}
		if w, d := g.group.counts(); w-w0 != tt.wrapped || d-d0 != tt.direct {
			t.Errorf("%s: %d wrapped, %d direct; want %d, %d", tt.sql, w-w0, d-d0, tt.wrapped, tt.direct)
		}
		g.nothingPrepared(t)
	}
	// A long one goes the other way.
	c = g.client(t, false, "plain", 0, 0)
	seen := m.record(func() { c.must("INSERT INTO t VALUES (20, " + strings.Repeat(" ", maxBurst) + "1)") })
	if len(seen) < 2 {
		t.Errorf("a long statement: %d writes", len(seen))
	}
}

// TestBurstStartRefused: when XA START fails the statement has run by itself and
// is held like a direct one; its warnings are not lost.
func TestBurstStartRefused(t *testing.T) {
	g, m := meddledRig(t, nil)
	c := g.client(t, false, "plain", 0, 0)
	c.must("CREATE TABLE t (a INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
	m.say("XA START 'cohort", "XA STARX 'cohort")
	w0, d0 := g.group.counts()
	c.must("INSERT IGNORE INTO t VALUES (1), (2)")
	if v := c.value("SHOW COUNT(*) WARNINGS"); v != "1" {
		t.Errorf("%s warnings", v)
	}
	if w, d := g.group.counts(); w != w0 || d != d0+1 {
		t.Errorf("%d wrapped, %d direct", w-w0, d-d0)
	}
	if e := c.fails("INSERT INTO t VALUES (1)"); e == nil || e.Code != 1062 {
		t.Errorf("%v", e)
	}
	c.must("SELECT 1")
	g.nothingPrepared(t)
}

type ticketFunc func(context.Context) (Outcome, error)

func (f ticketFunc) Wait(ctx context.Context) (Outcome, error) { return f(ctx) }
func (ticketFunc) Cancel()                                     {}
func (ticketFunc) Prepared()                                   {}

// TestBurstLost: a session whose server went away in a burst is told what the
// group decided, as far as that answers it.
func TestBurstLost(t *testing.T) {
	g := newRig(t, func(o *Options) {
		o.LostWait = 5 * time.Second
		solo := o.Group.(*soloGroup)
		o.Group = abortingGroup{solo}
	})
	c := g.client(t, false, "plain", 0, 0)
	g.db.SQL(t, "CREATE TABLE plain.t (a INT PRIMARY KEY)")
	id := c.value("SELECT CONNECTION_ID()")
	c.send(3, []byte("INSERT INTO t SELECT 2 + SLEEP(100)"))
	eventually(t, "the statement runs", func() bool {
		return g.db.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '%SLEEP(100)%' AND ID="+id) == "1"
	})
	g.db.SQL(t, "KILL "+id)
	ps, err := c.read(3, "")
	if err != nil {
		t.Fatal(err)
	}
	if p := ps[len(ps)-1]; p[0] != 0xff || !strings.Contains(string(p), "40000") && !strings.Contains(string(p), "70100") {
		t.Errorf("%q", p)
	}
}

// abortingGroup decides that whatever it is asked for is aborted.
type abortingGroup struct{ *soloGroup }

func (abortingGroup) Expect(string) Ticket {
	return ticketFunc(func(context.Context) (Outcome, error) { return Outcome{}, nil })
}
