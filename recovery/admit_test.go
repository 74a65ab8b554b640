package recovery

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"cohort/internal/mysqld"
	"cohort/internal/mysqldtest"
)

// The data set that the founding member brought is everyone's beginning: who
// lacks a part of it is refused, and who has it joins.
func TestFoundersDataSetIsRequired(t *testing.T) {
	g := newGroup(t, 0, 3) // not founded, since its founder has no mysqld yet
	dbs := mysqldtest.StartN(t, 2)
	p, m := g.all[0], g.all[1]
	base := []string{"CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)", "INSERT INTO d.t VALUES (0,0)"}
	dbs[0].SQL(t, base...)
	for i, x := range []*testMember{p, m} {
		g.stop(x)
		x.db, x.socket = dbs[i], dbs[i].Socket
	}
	provision := func(stmts []string, from int) {
		m.db.SQL(t, "SET GLOBAL super_read_only=OFF")
		for i, x := range stmts {
			m.db.SQL(t, fmt.Sprintf("SET gtid_next='%s:%d'", g.uuid(p), from+i), x, "SET gtid_next='AUTOMATIC'")
		}
	}
	g.start(p)
	g.online(p)
	if b := p.node.View().Base; !strings.Contains(b, g.uuid(p)+":1-3") {
		t.Fatalf("the founder brought %q", b)
	}
	// Everything but the last transaction.
	provision(base[:2], 1)
	g.start(m)
	until(t, "it gives up", func() bool { return m.member.gaveUp.Load() || m.member.Ready() })
	if err := m.member.LastError(); !errors.Is(err, ErrDiverged) || m.member.Ready() {
		t.Fatalf("ready %v, %v", m.member.Ready(), err)
	}
	if v, known := p.node.View().Member(m.id); known {
		t.Errorf("the group knows it: %+v", v)
	}
	g.stop(m)
	provision(base[2:], 3)
	g.start(m)
	g.online(m)
	if err := m.member.LastError(); err != nil {
		t.Errorf("it did not join at once: %v", err)
	}
	g.write(g.all[2], "INSERT INTO d.t VALUES (1,0)")
	g.equal()
	g.rows("0,1")
}

// One mysqld under two members: the second is refused before it fences anything,
// whether it knew the group already or starts for the first time.
func TestOneMysqldUnderTwoMembers(t *testing.T) {
	for _, knows := range []string{"the group", "nothing"} {
		t.Run("knows "+knows, func(t *testing.T) {
			// All begin again with an empty log, but one that has never been there.
			g := newGroup(t, 0, 3)
			for _, m := range g.all {
				g.stop(m)
				m.dir = t.TempDir()
			}
			p, second := g.primary(), g.all[1]
			p.db = mysqldtest.Start(t)
			p.socket = p.db.Socket
			g.start(p)
			g.start(g.all[2])
			if knows == "the group" {
				g.start(second)
			}
			g.online(p)
			g.ddl("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)", "INSERT INTO d.t VALUES (0,0)")
			if knows == "the group" {
				until(t, "it knows of the group", func() bool { return second.node.LastN() >= 3 })
				g.stop(second)
			}
			life := g.incarnation(p)
			idle, busy := g.session(g.all[2]), g.session(p)
			for _, x := range []string{"BEGIN", "SELECT * FROM d.t WHERE id=0 FOR UPDATE"} {
				if _, err := idle.Exec(g.ctx(), x); err != nil {
					t.Fatal(err)
				}
			}
			second.db = p.db
			g.start(second)
			until(t, "it is refused", func() bool { return second.member.LastError() != nil })
			if err := second.member.LastError(); !errors.Is(err, mysqld.ErrSettings) || second.member.Ready() {
				t.Errorf("ready %v, %v", second.member.Ready(), err)
			}
			if _, err := idle.Exec(g.ctx(), "SELECT * FROM d.t"); err != nil {
				t.Errorf("a session of the first member: %v", err)
			}
			if _, err := idle.Exec(g.ctx(), "ROLLBACK"); err != nil {
				t.Errorf("a session of the first member: %v", err)
			}
			if o, err := busy.commit(g.ctx(), "INSERT INTO d.t VALUES (1,0)"); err != nil || !o.Committed {
				t.Errorf("the first member's mysqld takes no writes: %+v, %v", o, err)
			}
			g.stop(second)
			second.db = nil
			if now := g.incarnation(p); now != life || !p.member.Ready() {
				t.Errorf("the first member had to start again: %v", p.member.LastError())
			}
			g.equal()
			g.rows("0,1")
		})
	}
}
