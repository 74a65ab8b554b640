package recovery

import (
	"fmt"
	"testing"

	"cohort/router"
)

// The limit counts from the next transaction on, and in later lives.
func TestTransactionSizeLimitChanges(t *testing.T) {
	g := newGroup(t, 2, 1)
	g.ddl("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v BLOB)")
	id := 0
	insert := func() router.Outcome {
		t.Helper()
		id++
		o, err := g.session(g.all[2]).commit(g.ctx(), fmt.Sprintf("INSERT INTO d.t VALUES (%d, REPEAT('x', 20000))", id))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	limit := func(m *testMember, bytes int64, refused bool) {
		t.Helper()
		m.member.SetTransactionSizeLimit(bytes)
		if o := insert(); o.Committed == refused || refused && o.Errno != 3100 {
			t.Errorf("limit %d: %+v", bytes, o)
		}
	}
	p, m := g.all[0], g.all[1]
	limit(p, 10000, true)
	limit(p, 100000, false)
	limit(p, 10000, true)
	limit(p, 0, false)
	// Another member's own counts once it is the primary.
	m.member.SetTransactionSizeLimit(10000)
	if o := insert(); !o.Committed {
		t.Errorf("a secondary's limit: %+v", o)
	}
	if err := m.member.SwitchPrimary(g.ctx(), m.uuid); err != nil {
		t.Fatal(err)
	}
	if o := insert(); o.Errno != 3100 {
		t.Errorf("the new primary's limit: %+v", o)
	}
	limit(m, 0, false)
	g.online(p)
	g.equal()
}
