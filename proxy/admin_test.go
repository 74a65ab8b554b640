package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"cohort/internal/wire"
)

func TestNewAccount(t *testing.T) {
	a := NewAccount("u@%", []string{
		"GRANT SELECT, SUPER ON *.* TO `u`@`%` WITH GRANT OPTION",
		"GRANT XA_RECOVER_ADMIN,GROUP_REPLICATION_ADMIN ON *.* TO `u`@`%`",
		"GRANT INSERT ON `d`.* TO `u`@`%`", "GRANT `PROCESS`@`%` TO `u`@`%`", "REVOKE UPDATE ON `d`.* FROM `u`@`%`",
	})
	for _, p := range []string{"SELECT", "SUPER", "XA_RECOVER_ADMIN", "GROUP_REPLICATION_ADMIN"} {
		if !a.Has("NONE", p) {
			t.Errorf("has no %s", p)
		}
	}
	for _, p := range []string{"INSERT", "PROCESS", "UPDATE", "`PROCESS`@`%`"} {
		if a.Has(p) {
			t.Errorf("has %s", p)
		}
	}
}

// The group's functions are run once, with what their arguments stand for, and
// answered under the names that MySQL gives.
func TestGroupFunctions(t *testing.T) {
	admin := &testAdmin{}
	g := newRig(t, func(o *Options) { o.Admin = admin })
	c := g.client(t, false, "root", wire.MultiStatements, 0)
	c.must("SET @id = 'by variable', @n = 7")
	for _, x := range []struct{ sql, column, value, called string }{
		{"SELECT group_replication_f('a''b', -1)", "group_replication_f('a''b', -1)", "it's 2", "group_replication_f[{4 a'b} {2 -1}] false false"},
		{"SELECT Group_Replication_F() AS x", "x", "it's 0", "group_replication_f[] false false"},
		{"SELECT group_replication_f(@id, @n, NULL, 1.5)", "group_replication_f(@id, @n, NULL, 1.5)", "it's 4", "group_replication_f[{4 by variable} {2 7} {0 NULL} {3 1.5}] false false"},
		{"SELECT group_replication_f((SELECT MEMBER_ID FROM performance_schema.replication_group_members LIMIT 1)) x", "x", "it's 1", "group_replication_f[{4 11111111-1111-4111-8111-111111111111}] false false"},
		{"SELECT CONCAT(1, 2), group_replication_f(1)", "CONCAT(1, 2)", "12", "group_replication_f[{2 1}] false false"},
	} {
		admin.started = nil
		ps := c.query(x.sql)
		col, err := wire.ParseColumn(ps[1])
		if err != nil || col.Name != x.column {
			t.Errorf("%s: column %q (%v)", x.sql, col.Name, err)
		}
		if !slices.Equal(admin.started, []string{x.called}) {
			t.Errorf("%s: called %q", x.sql, admin.started)
		}
		admin.started = nil
		if v := c.value(x.sql); v != x.value {
			t.Errorf("%s: %q", x.sql, v)
		}
	}
	c.must("DO group_replication_f(1)", "SET @r = group_replication_f(1)")
	if v := c.value("SELECT @r"); v != "it's 1" {
		t.Errorf("SET: %q", v)
	}
	admin.started = nil
	for sql, code := range map[string]uint16{
		"SELECT IF(0, group_replication_f(), 1)":                     1235,
		"SELECT group_replication_f(1) FROM mysql.user":              1235,
		"EXPLAIN SELECT group_replication_f(1)":                      1235,
		"INSERT INTO t VALUES (group_replication_f(1))":              1235,
		"SELECT group_replication_f(nosuch)":                         1054,
		"SELECT group_replication_f(f(1))":                           1235,
		"SELECT group_replication_nosuch()":                          1305,
		"PREPARE s FROM 'SELECT group_replication_f(1)'":             1295,
		"PREPARE s FROM 'START GROUP_REPLICATION'":                   1295,
		"START GROUP_REPLICATION FOO":                                1064,
		"SET GLOBAL group_replication_a = 1, GLOBAL max_connections": 0,
	} {
		e := c.fails(sql)
		if e == nil || code != 0 && e.Code != code {
			t.Errorf("%s: %v", sql, e)
		}
	}
	if len(admin.started) > 0 {
		t.Errorf("called: %q", admin.started)
	}
}

// SHOW VARIABLES has the group's variables among the server's.
func TestShowGroupVariables(t *testing.T) {
	g := newRig(t, func(o *Options) { o.Admin = &testAdmin{} })
	c := g.client(t, false, "root", wire.MultiStatements, 0)
	c.must("SET NAMES latin1 COLLATE latin1_german1_ci")
	for sql, want := range map[string]string{
		"SHOW VARIABLES LIKE 'group\\_replication\\_start%'":                                                           "group_replication_start_on_boot=ON",
		"SHOW GLOBAL VARIABLES LIKE 'GROUP_replication%'":                                                              "group_replication_group_name=" + groupUUID + " group_replication_group_seeds= group_replication_start_on_boot=ON",
		"SHOW VARIABLES WHERE Variable_name IN ('port_open_timeout', 'group_replication_start_on_boot', 'autocommit')": "autocommit=ON group_replication_start_on_boot=ON",
		"SHOW VARIABLES WHERE Value = 'group_none'":                                                                    "",
		"SHOW VARIABLES LIKE 'autocommit'":                                                                             "autocommit=ON",
		"SHOW VARIABLES LIKE '%uto%commit'":                                                                            "autocommit=ON",
	} {
		rs, err := c.cl.Query(t.Context(), sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		var got []string
		for i := range rs.Rows {
			got = append(got, rs.Str(i, 0)+"="+rs.Str(i, 1))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", sql, s, want)
		}
	}
	for pattern, name := range map[string]string{"a%": "abc", "%c": "abc", "a_c": "abc", `a\_c`: "a_c", "%": "", "a%b%c": "axxbxxc"} {
		if !likeMatch(pattern, name) || likeMatch(pattern, "zz") && pattern != "%" {
			t.Errorf("LIKE %q", pattern)
		}
	}
	if likeMatch(`a\_c`, "abc") || likeMatch("a", "ab") || likeMatch("a_", "a") {
		t.Error("LIKE matches too much")
	}
}

// What mysqld says about a session's privileges counts, active roles included.
func TestGroupFunctionPrivileges(t *testing.T) {
	admin := &testAdmin{}
	g := newRig(t, func(o *Options) { o.Admin = admin })
	g.db.SQL(t, "CREATE USER manager IDENTIFIED BY 'manager'", "CREATE ROLE boss", "GRANT GROUP_REPLICATION_ADMIN ON *.* TO boss", "GRANT boss TO manager", "GRANT SELECT ON plain.* TO manager")
	c := g.client(t, false, "manager", wire.MultiStatements, 0)
	if e := c.fails("SELECT group_replication_f()"); e == nil || e.Message != "manager@% may not" {
		t.Errorf("without the role: %v", e)
	}
	c.must("SET ROLE boss", "SELECT group_replication_f()")
	c.must("BEGIN", "SELECT group_replication_f()", "ROLLBACK")
	want := []string{"group_replication_f[] false false", "group_replication_f[] false true"}
	if !slices.Equal(admin.started, want) {
		t.Errorf("called %s", fmt.Sprintf("%q", admin.started))
	}
}
