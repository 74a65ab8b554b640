package recovery

import "testing"

// One group, the plain path: direct statements and transactions from every
// member end on all of them.
func TestWritesReachAllMembers(t *testing.T) {
	g := newGroup(t, 3, 0)
	g.ddl("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)", "CREATE USER u IDENTIFIED BY 'x'")
	for i, m := range g.all {
		g.write(m, "INSERT INTO d.t VALUES ("+string(rune('1'+i))+",0)")
	}
	g.write(g.all[2], "UPDATE d.t SET v=v+1")
	g.equal()
	for _, m := range g.all {
		if n := g.value(m, "SELECT SUM(v)+COUNT(*) FROM d.t"); n != "6" {
			t.Errorf("member %d: %s", m.id, n)
		}
		if n := g.value(m, "SELECT COUNT(*) FROM mysql.user WHERE user='u'"); n != "1" {
			t.Errorf("member %d: the account is missing", m.id)
		}
	}
}
