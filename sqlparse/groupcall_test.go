package sqlparse

import (
	"fmt"
	"strings"
	"testing"
)

func TestGroupCalls(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT group_replication_set_as_primary('a', 5)":            "set_as_primary['a'|5] alone group_replication_set_as_primary('a', 5)",
		"select Group_Replication_Set_As_Primary ( 'a,b' ) ;":        "set_as_primary['a,b'] alone Group_Replication_Set_As_Primary ( 'a,b' )",
		"SELECT group_replication_set_as_primary() AS `a``b`":        "set_as_primary[] alone a`b",
		"SELECT group_replication_set_as_primary('a') x":             "set_as_primary['a'] alone x",
		"SELECT group_replication_set_as_primary('a') 'x''y'":        "set_as_primary['a'] alone x'y",
		"SELECT group_replication_set_as_primary('a'), 1":            "set_as_primary['a']",
		"SELECT group_replication_set_as_primary('a') FROM DUAL":     "set_as_primary['a']",
		"DO group_replication_set_as_primary('a')":                   "set_as_primary['a']",
		"SET @a = group_replication_set_as_primary('a')":             "set_as_primary['a']",
		"SELECT IF(1, group_replication_set_as_primary('a'), 2)":     "set_as_primary['a'] deep",
		"SELECT group_replication_set_as_primary((SELECT a FROM b))": "set_as_primary[(SELECT a FROM b)] alone group_replication_set_as_primary((SELECT a FROM b))",
		"SELECT group_replication_set_as_primary(a) FROM b":          "set_as_primary[a] not",
		"SELECT group_replication_set_as_primary('a') LIMIT 0":       "set_as_primary['a'] not",
		"EXPLAIN SELECT group_replication_set_as_primary('a')":       "set_as_primary['a'] not",
		"INSERT INTO t VALUES (group_replication_set_as_primary())":  "set_as_primary[] deep not",
		"SELECT d.group_replication_set_as_primary('a')":             "",
		"SELECT 'group_replication_set_as_primary(1)'":               "",
		"SELECT group_replication_x(1), group_replication_y(2)":      "x[1] y[2]",
		"SELECT group_replication_x(1":                               "",
	} {
		calls, runs := GroupCalls([]byte(sql), Mode{})
		var got []string
		for _, c := range calls {
			var args []string
			for _, a := range c.Args {
				args = append(args, string(a.Of([]byte(sql))))
			}
			got = append(got, strings.TrimPrefix(c.Name, "group_replication_")+"["+strings.Join(args, "|")+"]")
			if c.Depth > 0 {
				got = append(got, "deep")
			}
			if c.Alone {
				got = append(got, "alone", c.Title)
			}
		}
		if len(calls) > 0 && !runs {
			got = append(got, "not")
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s\n got %s\nwant %s", sql, s, want)
		}
		// d.f() is a stored function; that it is looked at costs nothing.
		if st := Classify([]byte(sql), Mode{}); len(calls) > 0 && !st.Has(FlagGroupFunc) {
			t.Errorf("%s: flags %x", sql, st.Flags)
		}
	}
}

func TestReplaceCalls(t *testing.T) {
	sql := []byte("SELECT group_replication_x(1), group_replication_y(2) b, 3")
	calls, _ := GroupCalls(sql, Mode{})
	const want = "SELECT 'X' AS `group_replication_x(1)`, 'Y' b, 3"
	if got := string(ReplaceCalls(sql, Mode{}, calls, []string{"'X'", "'Y'"})); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAssignments(t *testing.T) {
	for sql, want := range map[string]string{
		"SET GLOBAL group_replication_member_weight = 5":           "[GLOBAL group_replication_member_weight 5]",
		"SET @@GLOBAL.`a` := 'x,y', SESSION b=f(1,2), c = 1 + 2 ;": "[GLOBAL a 'x,y][SESSION b f(1,2)][ c 1 + 2]",
		"SET PERSIST a=1, @@persist_only.b=2, @@local.c=3, @u=4":   "[PERSIST a 1][PERSIST_ONLY b 2][SESSION c 3][  4]",
		"SET a=DEFAULT":  "[ a DEFAULT]",
		"SET GLOBAL = 1": "[ GLOBAL 1]",
		"SET":            "[  ]",
		"SELECT 1":       "",
	} {
		var got string
		for _, a := range Assignments([]byte(sql), Mode{}) {
			got += fmt.Sprintf("[%s %s %s]", a.Scope, a.Name, a.Value.Of([]byte(sql)))
		}
		want = strings.ReplaceAll(want, "'x,y", "'x,y'")
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", sql, got, want)
		}
	}
}

func TestGroupStatement(t *testing.T) {
	for sql, want := range map[string]string{
		"START GROUP_REPLICATION":  "",
		"START GROUP_REPLICATION;": "",
		"START GROUP_REPLICATION USER='a', PASSWORD=\"b\", DEFAULT_AUTH = 'c' ;": "user='a' password=\"b\" auth='c'",
		"start group_replication password='b', user=''":                          "user='' password='b'",
		"START GROUP_REPLICATION USER='a' PASSWORD='b'":                          "user='a' near PASSWORD='b'",
		"START GROUP_REPLICATION FOO":                                            "near FOO",
		"START GROUP_REPLICATION USER=a":                                         "near a",
		"START GROUP_REPLICATION USER 'a'":                                       "near 'a'",
		"START GROUP_REPLICATION USER='a',":                                      "user='a' near ",
		"START GROUP_REPLICATION USER":                                           "near ",
		"STOP GROUP_REPLICATION":                                                 "",
		"STOP GROUP_REPLICATION USER='a'":                                        "near USER='a'",
	} {
		o := GroupStatement([]byte(sql), Mode{})
		var got []string
		for _, x := range []struct {
			name string
			span *Span
		}{{"user", o.User}, {"password", o.Password}, {"auth", o.DefaultAuth}} {
			if x.span != nil {
				got = append(got, x.name+"="+string(x.span.Of([]byte(sql))))
			}
		}
		if o.Near >= 0 {
			got = append(got, "near "+sql[o.Near:])
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s\n got %s\nwant %s", sql, s, want)
		}
	}
}

func FuzzGroupStatements(f *testing.F) {
	for _, s := range []string{"SELECT group_replication_x(1, (2)) AS `a`, 3", "DO group_replication_x(", "SELECT group_replication_x() '",
		"SET GLOBAL a=1, @@persist.b := (1,2)", "SET a", "START GROUP_REPLICATION USER='a', PASSWORD='b'", "STOP GROUP_REPLICATION x",
		"SHOW VARIABLES LIKE 'a%'", "SHOW GLOBAL VARIABLES WHERE a"} {
		f.Add([]byte(s), byte(0))
	}
	f.Fuzz(func(t *testing.T, sql []byte, m byte) {
		mode := Mode{ANSIQuotes: m&1 != 0, NoBackslashEscapes: m&2 != 0, Charset: Charset(m >> 2 % 5)}
		calls, _ := GroupCalls(sql, mode)
		texts := make([]string, len(calls))
		for i, c := range calls {
			for _, a := range append(c.Args, c.Span) {
				_ = a.Of(sql)
			}
			texts[i] = "x"
		}
		ReplaceCalls(sql, mode, calls, texts)
		for _, a := range Assignments(sql, mode) {
			_ = a.Value.Of(sql)
		}
		if _, filter, like, ok := ShowVariables(sql, mode); ok {
			_, _ = filter.Of(sql), like.Of(sql)
		}
		o := GroupStatement(sql, mode)
		for _, p := range []*Span{o.User, o.Password, o.DefaultAuth} {
			if p != nil {
				_ = p.Of(sql)
			}
		}
		if o.Near > len(sql) {
			t.Fatalf("near %d of %q", o.Near, sql)
		}
	})
}
