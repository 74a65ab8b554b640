package proxy

import (
	"bytes"
	"context"
	"strconv"
	"strings"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// condition is one entry of the diagnostics area.
type condition struct {
	level   string // Note, Warning or Error
	code    string
	message string
	state   string // SQLSTATE; "" when not known
}

// diagnostics is what wrapping an autocommit statement takes from the server's
// diagnostics area: the XA statements behind it clear that. It stands for the
// server's own until the next statement that is no diagnostics statement.
type diagnostics struct {
	rowCount   int64
	total      int // warnings counted, which may exceed those kept
	conditions []condition
}

func (d *diagnostics) errors() int {
	n := 0
	for _, c := range d.conditions {
		if c.level == "Error" {
			n++
		}
	}
	return n
}

// newDiagnostics reads what SHOW WARNINGS said after a statement that ended
// with r; warnings is nil when none were asked for.
func newDiagnostics(r *reply, warnings *wire.Reply) *diagnostics {
	d := &diagnostics{rowCount: -1}
	switch {
	case r.err != nil:
	case !r.rows:
		d.rowCount = int64(r.ok.AffectedRows)
	}
	if warnings != nil && warnings.Err == nil {
		for i := range warnings.Rows {
			c := condition{level: warnings.Str(i, 0), code: warnings.Str(i, 1), message: warnings.Str(i, 2)}
			if r.err != nil && c.level == "Error" && c.code == strconv.Itoa(int(r.err.Code)) {
				c.state = r.err.State
			}
			d.conditions = append(d.conditions, c)
		}
	}
	d.total = max(len(d.conditions), int(r.ok.Warnings))
	return d
}

// Columns as mysqld describes them; lengths of text in characters.
var (
	showWarningsColumns = []wire.Column{
		{Name: "Level", Charset: 255, Length: 7, Type: wire.TypeVarString, Flags: 1, Decimals: 31},
		{Name: "Code", Charset: 63, Length: 5, Type: wire.TypeLong, Flags: 161},
		{Name: "Message", Charset: 255, Length: 512, Type: wire.TypeVarString, Flags: 1, Decimals: 31},
	}
)

// diagnosticsStatement answers a diagnostics statement from d. done is false
// when mysqld should be asked after all.
func (s *session) diagnosticsStatement(ctx context.Context, q *stmt, d *diagnostics) (done bool, err error) {
	sc := sqlparse.NewScanner(q.text, s.mode)
	words := func() string { return strings.ToUpper(string(sc.Text(sc.Next()))) }
	switch first := words(); first {
	case "SHOW":
		what := words()
		if what == "COUNT" {
			words()
			words()
			words()
			return true, s.showCount(q, d, words() == "ERRORS")
		}
		return s.showConditions(q, d, what == "ERRORS", words, words)
	case "GET":
		return s.getDiagnostics(ctx, q, d)
	}
	return false, nil
}

// showConditions answers SHOW WARNINGS and SHOW ERRORS [LIMIT [offset,] n].
func (s *session) showConditions(q *stmt, d *diagnostics, errorsOnly bool, next, _ func() string) (bool, error) {
	offset, limit := 0, -1
	switch w := next(); w {
	case "LIMIT":
		n, err := strconv.Atoi(next())
		if err != nil {
			return false, nil
		}
		limit = n
		switch sep := next(); sep {
		case ",":
			if offset, limit = limit, 0; true {
				if limit, err = strconv.Atoi(next()); err != nil {
					return false, nil
				}
			}
		case "OFFSET":
			if offset, err = strconv.Atoi(next()); err != nil {
				return false, nil
			}
		}
	case "", ";":
	default:
		return false, nil // a syntax error: mysqld words it
	}
	var rows [][][]byte
	for _, c := range d.conditions {
		if errorsOnly && c.level != "Error" {
			continue
		}
		if offset > 0 {
			offset--
			continue
		}
		if limit >= 0 && len(rows) >= limit {
			break
		}
		rows = append(rows, [][]byte{[]byte(c.level), []byte(c.code), []byte(c.message)})
	}
	cols := make([]wire.Column, len(showWarningsColumns))
	copy(cols, showWarningsColumns)
	for i := range cols {
		if cols[i].Charset != 63 {
			cols[i].Charset = s.resultCharset()
			cols[i].Length *= maxCharLen(cols[i].Charset)
		}
	}
	return true, s.sendTable(q, cols, rows)
}

func (s *session) showCount(q *stmt, d *diagnostics, errorsOnly bool) error {
	name, n := "@@session.warning_count", d.total
	if errorsOnly {
		name, n = "@@session.error_count", d.errors()
	}
	col := wire.Column{Name: name, Charset: 63, Length: 21, Type: wire.TypeLongLong, Flags: 160}
	return s.sendTable(q, []wire.Column{col}, [][][]byte{{strconv.AppendInt(nil, int64(n), 10)}})
}

// getDiagnostics turns GET DIAGNOSTICS into a SET of the same user variables.
// Targets that are not user variables, and items whose value is not known, are
// refused rather than answered wrongly.
func (s *session) getDiagnostics(ctx context.Context, q *stmt, d *diagnostics) (bool, error) {
	set, ok := d.assignments(q.text, s.mode)
	if !ok {
		return true, s.sendErr(wire.NewError(erNotSupportedYet, "42000",
			"This version of MySQL doesn't yet support 'GET DIAGNOSTICS of this item behind a statement in autocommit mode through cohort; use SHOW WARNINGS, or a transaction'"))
	}
	if set == "" {
		return false, nil
	}
	rs, err := s.exec("SET " + set)
	if err != nil {
		return true, err
	}
	if rs[0].Err != nil {
		return true, s.sendErr(asServerError(rs[0].Err))
	}
	return true, s.sendOK(&wire.OK{Status: s.shownStatus(rs[0].OK.Status)}, q.more)
}

// assignments translates the items of a GET DIAGNOSTICS; ok is false for what
// is not known. The empty string asks mysqld to answer (for its own error).
func (d *diagnostics) assignments(text []byte, mode sqlparse.Mode) (string, bool) {
	sc := sqlparse.NewScanner(text, mode)
	var toks []string
	for t := sc.Next(); t.Kind != sqlparse.EOF && t.Kind != sqlparse.Semi; t = sc.Next() {
		toks = append(toks, string(sc.Text(t)))
	}
	i := 1
	if i < len(toks) && strings.EqualFold(toks[i], "CURRENT") {
		i++
	}
	if i >= len(toks) || !strings.EqualFold(toks[i], "DIAGNOSTICS") {
		return "", i < len(toks) && !strings.EqualFold(toks[i], "STACKED")
	}
	i++
	var cond *condition
	if i+1 < len(toks) && strings.EqualFold(toks[i], "CONDITION") {
		n, err := strconv.Atoi(toks[i+1])
		if err != nil {
			return "", false
		}
		if n < 1 || n > len(d.conditions) {
			return "", n < 1 || len(d.conditions) == 0
		}
		// GET DIAGNOSTICS numbers conditions as SHOW WARNINGS lists them.
		cond = &d.conditions[n-1]
		i += 2
	}
	var out []string
	for ; i+2 < len(toks); i += 4 {
		if !strings.HasPrefix(toks[i], "@") || toks[i+1] != "=" {
			return "", false
		}
		v, ok := d.item(cond, strings.ToUpper(toks[i+2]))
		if !ok {
			return "", false
		}
		out = append(out, toks[i]+" = "+v)
		if i+3 < len(toks) && toks[i+3] != "," {
			return "", true
		}
	}
	return strings.Join(out, ", "), len(out) > 0
}

func (d *diagnostics) item(c *condition, name string) (string, bool) {
	if c == nil {
		switch name {
		case "NUMBER":
			return "CAST(" + strconv.Itoa(len(d.conditions)) + " AS UNSIGNED)", true
		case "ROW_COUNT":
			return strconv.FormatInt(d.rowCount, 10), true
		}
		return "", false
	}
	switch name {
	case "MESSAGE_TEXT":
		return "CONVERT(" + new(replacer).literal(c.message) + " USING utf8mb3)", true
	case "MYSQL_ERRNO":
		return "CAST(" + c.code + " AS UNSIGNED)", true
	case "RETURNED_SQLSTATE":
		st := c.sqlstate()
		return "CONVERT('" + st + "' USING utf8mb3)", st != ""
	case "SCHEMA_NAME", "TABLE_NAME", "COLUMN_NAME", "CURSOR_NAME", "CATALOG_NAME", "CONSTRAINT_CATALOG", "CONSTRAINT_SCHEMA", "CONSTRAINT_NAME":
		return "''", true
	case "CLASS_ORIGIN", "SUBCLASS_ORIGIN":
		st := c.sqlstate()
		if st == "" || st == "HY000" {
			return "'ISO 9075'", st != ""
		}
		return "'ISO 9075'", true
	}
	return "", false
}

// sqlstate gives the state of the conditions that data changes raise.
func (c *condition) sqlstate() string {
	if c.state != "" {
		return c.state
	}
	switch c.code {
	case "1048", "1062", "1216", "1217", "1451", "1452", "1169":
		return "23000"
	case "1264", "1690":
		return "22003"
	case "1265", "1261", "1262":
		return "01000"
	case "1292":
		return "22007"
	case "1365":
		return "22012"
	case "1406":
		return "22001"
	case "1364", "1366", "1411", "1681", "3819", "1681_":
		return "HY000"
	}
	return ""
}

// sendTable answers with a result set of our own.
func (s *session) sendTable(q *stmt, cols []wire.Column, rows [][][]byte) error {
	ok := wire.OK{Status: s.shownStatus(s.status)}
	if s.owed != "" {
		ok.Trackers = s.shownTrackers(nil)
	}
	if q.more {
		ok.Status |= wire.StatusMoreResults
	}
	if s.diag != nil {
		s.diag.rowCount = -1 // a result set was sent
	}
	return s.sendResult(cols, rows, &ok)
}

// resultCharset is the collation id text columns are described with.
func (s *session) resultCharset() uint16 {
	if s.collation != 0 {
		return s.collation
	}
	return 255
}

// maxCharLen is the length of a collation's longest character in bytes.
func maxCharLen(collation uint16) uint32 {
	switch collation {
	case 33: // utf8mb3
		return 3
	case 28, 13, 1: // gbk, sjis, big5
		return 2
	case 8, 11, 63: // latin1, ascii, binary
		return 1
	}
	return 4
}

func asServerError(err error) *wire.ServerError {
	if se, ok := err.(*wire.ServerError); ok {
		return se
	}
	return wire.NewError(erUnknown, "HY000", "%v", err)
}

// trimStatement cuts what a client may put behind a statement.
func trimStatement(b []byte) []byte { return bytes.TrimRight(b, "; \t\r\n") }
