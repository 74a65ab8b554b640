package proxy

import (
	"context"
	"testing"
	"time"

	"cohort/internal/wire"
)

func TestPartedAt(t *testing.T) {
	before, since, used := time.Unix(1, 0), time.Unix(2, 0), time.Unix(3, 0)
	primary, another := Backend{MemberUUID: "a", Epoch: 1}, Backend{MemberUUID: "b", Epoch: 2}
	own, ownPrimary := Backend{MemberUUID: "c", Local: true}, Backend{MemberUUID: "c", Local: true, Epoch: 1}
	var never time.Time
	for name, x := range map[string]struct {
		from, to     Backend
		parted, want time.Time
		late         bool
	}{
		"to the next primary":                  {primary, another, never, never, false},
		"from the primary":                     {primary, own, never, used, false},
		"from the primary, once more":          {primary, own, before, used, false},
		"the own server began anew":            {own, own, before, before, false},
		"the own server, which was all it had": {own, own, never, never, false},
		"the own server was the primary's":     {ownPrimary, own, never, never, false},
		"its last commit is on the next one's": {ownPrimary, own, never, since, true},
		"back to a primary":                    {own, primary, before, never, false},
		"the own server is the primary's":      {own, ownPrimary, before, never, false},
	} {
		if got := partedAt(x.from, x.to, x.parted, stay{since, used, x.late}); !got.Equal(x.want) {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
}

func TestLacking(t *testing.T) {
	early, at, late := time.Unix(1, 0), time.Unix(2, 0), time.Unix(3, 0)
	d := Departure{At: at, GTIDs: "g:1-7"}
	for name, x := range map[string]struct {
		parted time.Time
		d      Departure
		gtids  string
		known  bool
	}{
		"it never parted":               {time.Time{}, Departure{}, "", true},
		"its member did not leave":      {early, Departure{}, "", false},
		"before its member left":        {early, d, "g:1-7", true},
		"at that moment":                {at, d, "g:1-7", true},
		"it read on the primary later":  {late, d, "", false},
		"nothing was ordered by then":   {early, Departure{At: at}, "", true},
		"it never parted, a member did": {time.Time{}, d, "", true},
	} {
		if gtids, known := lacking(x.parted, x.d); gtids != x.gtids || known != x.known {
			t.Errorf("%s: %q %v", name, gtids, known)
		}
	}
}

// leave takes the member whose own server is the second one out of the group.
func (g *pairGroup) leave(d Departure) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.out, g.departure = true, d
}

// TestReadsOutOfTheGroup: a session that comes from the primary reads its member's own
// server only if that is proven to have all that it may have seen.
func TestReadsOutOfTheGroup(t *testing.T) {
	g := newPair(t, func(o *Options) { o.stuckAfter = time.Hour })
	g.reign(1, true)
	open := func() *rawClient {
		c := g.client(t, false, "plain", 0, 0)
		c.expect("1", "SELECT a FROM here")
		return c
	}
	c, prepared, late, again := open(), open(), open(), open()
	id := prepared.prepareStmt("SELECT a + ? FROM here")
	late.send(wire.ComQuery, []byte("SELECT a, SLEEP(IF(a=1, 600, 0)) FROM here"))
	g.atWork(t, "1")

	refused := func(c *rawClient, sql string) {
		t.Helper()
		if e := c.fails(sql); e == nil || e.Code != 1105 {
			t.Errorf("%s: %v", sql, e)
		}
	}
	g.pair.leave(Departure{})
	if g.srv.vacated() {
		t.Error("a statement runs on a server that sessions have to leave")
	}
	refused(c, "SELECT a FROM here")
	refused(c, "SELECT a FROM here") // not once only
	c.must("SET @a=1", "DO 1", "BEGIN", "COMMIT")
	c.expect("1", "SELECT @a")
	g.client(t, false, "plain", 0, 0).expect("2", "SELECT a FROM here")

	// It left in good order, and its server has yet to apply something.
	left := Departure{At: time.Now(), GTIDs: groupUUID + ":1-2"}
	g.pair.leave(left)
	refused(c, "SELECT a FROM here")
	if ps := prepared.executeStmt(id, 1, true); ps[0][0] != wire.HeaderERR {
		t.Errorf("a prepared statement: %q", ps)
	}
	for range 2 {
		if _, err := g.pair.solo[1].run(context.Background(), "BEGIN", "COMMIT"); err != nil {
			t.Fatal(err)
		}
	}
	c.must("BEGIN")
	c.expect("2", "SELECT a FROM here")
	c.must("COMMIT")
	if ps := prepared.executeStmt(id, 1, true); ps[0][0] == wire.HeaderERR {
		t.Errorf("a prepared statement: %q", ps)
	}

	// A statement that was on the primary's server still may have seen more.
	g.pair.unheard.Store(true)
	ps, err := late.read(wire.ComQuery, "")
	if err != nil || ps[0][0] != wire.HeaderERR {
		t.Fatalf("a late statement: %q %v", ps, err)
	}
	if e, err := wire.ParseERR(ps[0]); err != nil || e.Code != 1105 {
		t.Errorf("a late statement: %v %v", e, err)
	}
	if !g.srv.vacated() {
		t.Error("nothing runs there any more")
	}
	late.send(wire.ComResetConnection, nil) // a new session
	if ps, err := late.read(wire.ComResetConnection, ""); err != nil || ps[0][0] != 0 {
		t.Fatalf("reset: %q %v", ps, err)
	}
	late.must("USE plain")
	late.expect("2", "SELECT a FROM here")

	// Back in the group, and out again.
	g.pair.mu.Lock()
	g.pair.out, g.pair.epoch = false, 2
	g.pair.mu.Unlock()
	again.expect("1", "SELECT a FROM here")
	g.pair.leave(left)
	refused(again, "SELECT a FROM here")
	c.expect("2", "SELECT a FROM here") // it has not been there since
}
