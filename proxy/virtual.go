package proxy

import (
	"context"
	"strconv"
	"strings"
)

// replacer answers sqlparse.Rewrite from a session's knowledge and the Admin.
type replacer struct {
	ctx   context.Context
	admin Admin
	who   SessionInfo
	diag  *diagnostics // nil: the server's own are true
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
	if len(rows) == 0 {
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
			b.WriteString("CAST(")
			if j < len(row) && row[j] != nil {
				b.WriteString(r.literal(*row[j]))
			} else {
				b.WriteString("NULL")
			}
			b.WriteString(" AS " + typ + ")")
			if i == 0 {
				b.WriteString(" AS `" + strings.ReplaceAll(c.Name, "`", "``") + "`")
			}
		}
	}
	if len(t.Rows) == 0 {
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
