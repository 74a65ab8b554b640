package proxy

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"strings"

	"cohort/internal/sysvar"
	"cohort/internal/wire"
	"cohort/sqlparse"
)

// replacer answers sqlparse.Rewrite from a session's knowledge and the Admin.
type replacer struct {
	ctx   context.Context
	admin Admin
	who   SessionInfo
	// consistency is the session's own, "" for none.
	consistency string
	diag        *diagnostics // nil: the server's own are true
	// err is why the statement cannot run.
	err error
}

// RowCount implements sqlparse.Replacer.
func (r *replacer) RowCount() string {
	if r.diag == nil {
		return ""
	}
	return "CAST(" + strconv.FormatInt(r.diag.rowCount, 10) + " AS SIGNED)"
}

// Variable implements sqlparse.Replacer.
func (r *replacer) Variable(scope, name string) string {
	if r.diag != nil && scope != "global" {
		switch name {
		case "warning_count":
			return nullable(r.diag.total)
		case "error_count":
			return nullable(r.diag.errors())
		}
	}
	if r.admin == nil || !strings.HasPrefix(name, "group_replication_") {
		return ""
	}
	v, numeric, ok := r.admin.Variable(r.ctx, r.who, name)
	x, known := sysvar.Find(name)
	switch session := scope == "session" || scope == "local"; {
	case !ok || !known:
	case x.HasSession() && scope != "global" && r.consistency != "":
		v = r.consistency
	case session && !x.HasSession():
		r.err = wire.NewError(1238, "HY000", "Variable '%s' is a GLOBAL variable", name)
	}
	switch {
	case !ok:
		return ""
	case numeric:
		return "CAST(" + r.literal(v) + " AS SIGNED)"
	}
	return "CAST(" + r.literal(v) + " AS CHAR(" + strconv.Itoa(max(1, len(v))) + "))"
}

// Table implements sqlparse.Replacer.
func (r *replacer) Table(name string) string {
	if r.admin == nil {
		return ""
	}
	t, ok := r.admin.Table(r.ctx, r.who, name)
	if !ok || len(t.Columns) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteByte('(')
	rows := t.Rows
	if t.Beside {
		// Its columns and types are those of all rows.
		b.WriteString("SELECT ")
		for j, c := range t.Columns {
			if j > 0 {
				b.WriteString(", ")
			}
			b.WriteString("`" + c.Name + "`")
		}
		b.WriteString(" FROM performance_schema." + name)
		if t.Instead != "" {
			b.WriteString(" WHERE NOT (" + t.Instead + ")")
		}
		if len(rows) > 0 {
			b.WriteString(" UNION ALL ")
		}
	} else if len(rows) == 0 {
		rows = [][]*string{make([]*string, len(t.Columns))}
	}
	for i, row := range rows {
		if i > 0 {
			b.WriteString(" UNION ALL ")
		}
		b.WriteString("SELECT ")
		for j, c := range t.Columns {
			if j > 0 {
				b.WriteString(", ")
			}
			typ := c.CastType
			if typ == "" {
				typ = "CHAR(255)"
			}
			switch given := j < len(row) && row[j] != nil; {
			case t.Beside && !given:
				b.WriteString("NULL")
				continue
			case t.Beside && strings.HasPrefix(typ, "CHAR"):
				// A literal gives way to the column's collation, which a CAST would not.
				b.WriteString(nonempty(r.literal(*row[j])))
				continue
			}
			b.WriteString("CAST(")
			if j < len(row) && row[j] != nil {
				b.WriteString(r.literal(*row[j]))
			} else {
				b.WriteString("NULL")
			}
			b.WriteString(" AS " + typ)
			if strings.HasPrefix(typ, "CHAR") {
				// As mysqld's own tables have it, with which it may be joined.
				b.WriteString(" CHARACTER SET utf8mb4) COLLATE utf8mb4_0900_ai_ci")
			} else {
				b.WriteString(")")
			}
			if i == 0 {
				b.WriteString(" AS `" + strings.ReplaceAll(c.Name, "`", "``") + "`")
			}
		}
	}
	if len(t.Rows) == 0 && !t.Beside {
		b.WriteString(" FROM DUAL WHERE FALSE")
	}
	b.WriteByte(')')
	return b.String()
}

// literal spells a string in a way that no sql_mode and no character set
// changes.
func (r *replacer) literal(v string) string {
	const digits = "0123456789abcdef"
	if v == "" {
		return "''"
	}
	b := make([]byte, 0, 2*len(v)+12)
	b = append(b, "_utf8mb4 x'"...)
	for i := 0; i < len(v); i++ {
		b = append(b, digits[v[i]>>4], digits[v[i]&15])
	}
	return string(append(b, '\''))
}

// nullable spells a count as the server describes its variables: BIGINT
// UNSIGNED that may be NULL.
func nullable(n int) string { return "IF(1, CAST(" + strconv.Itoa(n) + " AS UNSIGNED), NULL)" }

// showVariables rewrites SHOW VARIABLES and SHOW STATUS where they ask for variables
// of the group as well. A SHOW without a filter is left to mysqld.
func (s *session) showVariables(ctx context.Context, q *stmt) {
	global, filter, like, ok := sqlparse.ShowVariables(q.text, s.mode)
	if !ok {
		return
	}
	what, mark := "variables", "group_"
	var all []NamedValue
	if q.st.Has(sqlparse.FlagShowStatus) {
		what, mark = "status", "gr_"
		all = s.srv.opt.Admin.Status(ctx, s.info())
	} else {
		all = s.srv.opt.Admin.Variables(ctx, s.info())
	}
	for i, v := range all {
		if x, ok := sysvar.Find(v.Name); ok && x.HasSession() && !global && s.kept.consistency != "" {
			all = slices.Clone(all)
			all[i].Value = s.kept.consistency
		}
	}
	if pattern := like.Of(q.text); len(pattern) > 0 {
		p := strings.ToLower(string(unescapeLike(pattern, s.mode)))
		all = slices.DeleteFunc(slices.Clone(all), func(v NamedValue) bool { return !likeMatch(p, strings.ToLower(v.Name)) })
	} else if !strings.Contains(strings.ToLower(string(filter.Of(q.text))), mark) {
		return
	}
	if len(all) == 0 {
		return
	}
	// The connection's own collation must not meet the tables'.
	const collate = " COLLATE utf8mb4_general_ci"
	var b bytes.Buffer
	table := "session_" + what
	if global {
		table = "global_" + what
	}
	b.WriteString("SELECT Variable_name, Value FROM (SELECT VARIABLE_NAME" + collate + " AS Variable_name, VARIABLE_VALUE" + collate +
		" AS Value FROM performance_schema." + table +
		// mysqld has one of them by itself.
		" WHERE LEFT(VARIABLE_NAME, 18) <> 'group_replication_'")
	r := &replacer{}
	for _, v := range all {
		b.WriteString(" UNION ALL SELECT " + r.literal(v.Name) + collate + ", " + nonempty(r.literal(v.Value)) + collate)
	}
	b.WriteString(") AS variables ")
	if len(like.Of(q.text)) > 0 {
		b.WriteString("WHERE Variable_name ")
	}
	b.Write(filter.Of(q.text))
	b.WriteString(" ORDER BY Variable_name")
	q.text = b.Bytes()
}

// nonempty gives the empty literal the character set of the others.
func nonempty(lit string) string {
	if lit == "''" {
		return "_utf8mb4 ''"
	}
	return lit
}

// unescapeLike returns a pattern literal's content: \\% and \\_ keep their backslash.
func unescapeLike(lit []byte, mode sqlparse.Mode) []byte {
	if mode.NoBackslashEscapes {
		return unescape(lit, mode)
	}
	lit = bytes.ReplaceAll(lit, []byte(`\_`), []byte(`\\_`))
	return unescape(bytes.ReplaceAll(lit, []byte(`\%`), []byte(`\\%`)), mode)
}

// likeMatch is LIKE with the default escape character.
func likeMatch(pattern, name string) bool {
	for pattern != "" {
		switch c := pattern[0]; {
		case c == '%':
			for i := range len(name) + 1 {
				if likeMatch(pattern[1:], name[i:]) {
					return true
				}
			}
			return false
		case name == "":
			return false
		case c == '_':
		default:
			if c == '\\' && len(pattern) > 1 {
				pattern = pattern[1:]
			}
			if pattern[0] != name[0] {
				return false
			}
		}
		pattern, name = pattern[1:], name[1:]
	}
	return name == ""
}
