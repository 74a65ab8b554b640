package proxy

import (
	"bytes"
	"strings"

	"cohort/sqlparse"
)

// effects is what a statement does to the session besides what the server's
// trackers tell.
type effects struct {
	vars    []assignment
	sysVars []string // system variables of the session that SET assigns
	locks   bool     // GET_LOCK() occurs
	unlocks bool     // RELEASE_ALL_LOCKS() occurs
}

// assignment gives a user variable a value: its SQL, "" where only the server
// knows it.
type assignment struct{ name, sql string }

// effectsOf looks at a statement's text. Most statements have neither of the
// bytes it looks for.
func effectsOf(st *sqlparse.Statement, text []byte, mode sqlparse.Mode) (e effects) {
	set := st.Class == sqlparse.Set
	if !set && bytes.IndexByte(text, '@') < 0 && !mentionsLock(text) {
		return e
	}
	sc := sqlparse.NewScanner(text, mode)
	if set {
		e.assignments(&sc, text)
		return e
	}
	out := st.Class == sqlparse.Call || st.Class == sqlparse.LoadData || st.Class == sqlparse.Diagnostics || st.Has(sqlparse.FlagInto)
	var last []byte
	for t := sc.Next(); t.Kind != sqlparse.EOF && t.Kind != sqlparse.Semi; t = sc.Next() {
		w := sc.Text(t)
		switch t.Kind {
		case sqlparse.Word:
			e.word(w)
		case sqlparse.UserVar:
			if last = w; out {
				e.vars = append(e.vars, assignment{userVarName(w), ""})
			}
			continue
		case sqlparse.Op:
			if w[0] == ':' && last != nil && !out {
				e.vars = append(e.vars, assignment{userVarName(last), ""})
			}
		}
		last = nil
	}
	return e
}

func (e *effects) word(w []byte) {
	switch {
	case foldEqual(w, "GET_LOCK"):
		e.locks = true
	case foldEqual(w, "RELEASE_ALL_LOCKS"):
		e.unlocks = true
	}
}

// assignments reads the list of a SET.
func (e *effects) assignments(sc *sqlparse.Scanner, text []byte) {
	depth := 0
	sc.Next() // SET
	t := sc.Next()
	for t.Kind != sqlparse.EOF && t.Kind != sqlparse.Semi {
		// One assignment: target, then its value up to a comma.
		target, global := t, false
		for t.Kind == sqlparse.Word {
			switch w := sc.Text(t); {
			case foldEqual(w, "GLOBAL"), foldEqual(w, "PERSIST"), foldEqual(w, "PERSIST_ONLY"):
				global = true
			case foldEqual(w, "SESSION"), foldEqual(w, "LOCAL"):
			default:
				target = t
				goto found
			}
			t = sc.Next()
			target = t
		}
	found:
		t = sc.Next()
		from, to, n, first := -1, 0, 0, sqlparse.EOF
		for t.Kind != sqlparse.EOF && t.Kind != sqlparse.Semi {
			w := sc.Text(t)
			if t.Kind == sqlparse.Op {
				switch w[0] {
				case '(':
					depth++
				case ')':
					depth--
				}
				if w[0] == ',' && depth == 0 {
					break
				}
			}
			if t.Kind == sqlparse.Word {
				e.word(w)
				if foldEqual(w, "COLLATE") {
					e.sysVars = append(e.sysVars, "collation_connection")
				}
			}
			if t.Kind == sqlparse.UserVar {
				e.vars = append(e.vars, nested(sc, t)...)
			}
			if !(n == 0 && t.Kind == sqlparse.Op && (w[0] == '=' || w[0] == ':')) {
				if from < 0 {
					from, first = t.Start, t.Kind
				}
				to = t.End
				n++
			}
			t = sc.Next()
		}
		if t.Kind == sqlparse.Op { // the comma
			t = sc.Next()
		}
		switch target.Kind {
		case sqlparse.UserVar:
			sql := ""
			if from >= 0 && literal(text[from:to], first, n) {
				sql = string(text[from:to])
			}
			e.vars = append(e.vars, assignment{userVarName(sc.Text(target)), sql})
		case sqlparse.SysVar:
			if scope, name := sqlparse.SplitSysVar(sc.Text(target)); len(scope) == 0 || foldEqual(scope, "SESSION") || foldEqual(scope, "LOCAL") {
				e.sysVars = append(e.sysVars, strings.ToLower(string(name)))
			}
		case sqlparse.Word, sqlparse.Quoted:
			if !global {
				e.sysVars = append(e.sysVars, strings.ToLower(strings.Trim(string(sc.Text(target)), "`")))
			}
		}
	}
}

// nested is what a user variable inside an expression may be: := assigns it.
func nested(sc *sqlparse.Scanner, t sqlparse.Token) []assignment {
	ahead := *sc
	if n := ahead.Next(); n.Kind == sqlparse.Op && ahead.Text(n)[0] == ':' {
		return []assignment{{userVarName(sc.Text(t)), ""}}
	}
	return nil
}

// literal reports whether a value is one literal, perhaps with a sign.
func literal(sql []byte, first sqlparse.Kind, tokens int) bool {
	switch {
	case tokens == 1:
		return first == sqlparse.Number || first == sqlparse.String ||
			first == sqlparse.Word && (foldEqual(sql, "NULL") || foldEqual(sql, "TRUE") || foldEqual(sql, "FALSE"))
	case tokens == 2 && len(sql) > 0 && (sql[0] == '-' || sql[0] == '+'):
		return numeric(string(bytes.TrimSpace(sql[1:])))
	}
	return false
}

// mentionsLock looks for what may be GET_LOCK or RELEASE_ALL_LOCKS.
func mentionsLock(text []byte) bool {
	for i := 0; ; {
		k := bytes.IndexByte(text[i:], '_')
		if k < 0 {
			return false
		}
		i += k + 1
		if len(text) >= i+4 && foldEqual(text[i:i+4], "LOCK") {
			return true
		}
	}
}

// userVarName is the key of a user variable as spelled, the @ included.
func userVarName(spelled []byte) string {
	b := spelled[1:]
	if len(b) >= 2 && (b[0] == '`' || b[0] == '\'' || b[0] == '"') {
		b = bytes.ReplaceAll(b[1:len(b)-1], []byte{b[0], b[0]}, []byte{b[0]})
	}
	return strings.ToLower(string(b))
}

// numeric reports whether v is a plain number.
func numeric(v string) bool {
	digits := 0
	for i, c := range v {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case (c == '-' || c == '+') && i == 0, c == '.':
		default:
			return false
		}
	}
	return digits > 0 && strings.Count(v, ".") <= 1
}
