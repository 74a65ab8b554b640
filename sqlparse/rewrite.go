package sqlparse

import (
	"bytes"
	"strings"
)

// Replacer gives Rewrite what to put in place of what the server cannot
// answer truly. Each method returns an SQL expression, or "" to leave the text
// as it is.
type Replacer interface {
	// RowCount replaces ROW_COUNT().
	RowCount() string
	// Variable replaces @@scope.name; both in lower case, scope may be empty.
	Variable(scope, name string) string
	// Table replaces performance_schema.name (lower case) as a table
	// reference: a derived table in parentheses, without an alias.
	Table(name string) string
}

type edit struct {
	start, end int
	text       string
}

// Rewrite replaces ROW_COUNT(), system variables and tables of
// performance_schema in the first statement of sql, as r says, and keeps
// the names of the result's columns: an item of a select list that has no alias
// gets its own text as one. schema is the session's default schema. It
// returns sql itself and false when there was nothing to replace.
//
// There is no syntax tree: items and table references are told by the tokens
// around them, which needs no grammar and so fits every version of the server.
func Rewrite(sql []byte, mode Mode, schema string, r Replacer) ([]byte, bool) {
	toks := tokens(sql, mode)
	edits := replacements(sql, toks, schema, r)
	if len(edits) == 0 {
		return sql, false
	}
	return apply(sql, aliases(sql, toks, edits)), true
}

func apply(sql []byte, edits []edit) []byte {
	var out bytes.Buffer
	at := 0
	for _, e := range edits {
		out.Write(sql[at:e.start])
		out.WriteString(e.text)
		at = e.end
	}
	out.Write(sql[at:])
	return out.Bytes()
}

func tokens(sql []byte, mode Mode) []Token {
	s := NewScanner(sql, mode)
	var toks []Token
	for {
		t := s.Next()
		if t.Kind == EOF || t.Kind == Semi {
			return append(toks, Token{EOF, t.Start, t.Start})
		}
		toks = append(toks, t)
	}
}

// replacements are in the order of the text and do not overlap.
func replacements(sql []byte, toks []Token, schema string, r Replacer) []edit {
	var edits []edit
	text := func(i int) []byte {
		if i < 0 || i >= len(toks) {
			return nil
		}
		return sql[toks[i].Start:toks[i].End]
	}
	for i, t := range toks {
		switch t.Kind {
		case SysVar:
			scope, name := SplitSysVar(text(i))
			if x := r.Variable(strings.ToLower(string(scope)), strings.ToLower(string(name))); x != "" {
				edits = append(edits, edit{t.Start, t.End, x})
			}
		case Word, Quoted:
			b := text(i)
			if t.Kind == Quoted {
				b = b[1 : len(b)-1]
			}
			if equalFold(b, "ROW_COUNT") && string(text(i+1)) == "(" && string(text(i+2)) == ")" && string(text(i-1)) != "." {
				if x := r.RowCount(); x != "" {
					edits = append(edits, edit{t.Start, toks[i+2].End, x})
				}
				continue
			}
			if !hasPrefixFold(b, "REPLICATION_GROUP_") && !sharedTable(b) {
				continue
			}
			first := i
			if string(text(i-1)) == "." && i >= 2 {
				first = i - 2
				if !equalFold(trimQuotes(text(first)), "PERFORMANCE_SCHEMA") {
					continue
				}
			} else if !strings.EqualFold(schema, "performance_schema") {
				continue
			}
			if e, ok := tableEdit(sql, toks, first, i, strings.ToLower(string(b)), r); ok {
				edits = append(edits, e)
			}
		}
	}
	return edits
}

func trimQuotes(b []byte) []byte {
	if len(b) >= 2 && (b[0] == '`' || b[0] == '"') {
		return b[1 : len(b)-1]
	}
	return b
}

// tableEdit handles the table name in toks[first..last].
func tableEdit(sql []byte, toks []Token, first, last int, name string, r Replacer) (edit, bool) {
	next := toks[last+1]
	if next.Kind == Op && sql[next.Start] == '.' {
		// A column's qualifier: a derived table has no schema.
		return edit{toks[first].Start, toks[last].Start, ""}, first != last
	}
	if first == 0 {
		return edit{}, false
	}
	before := sql[toks[first-1].Start:toks[first-1].End]
	start := toks[first].Start
	x := ""
	switch {
	case equalFold(before, "FROM"), equalFold(before, "JOIN"), equalFold(before, "STRAIGHT_JOIN"), string(before) == ",", string(before) == "(":
		x = r.Table(name)
	case equalFold(before, "TABLE") && (first == 1 || toks[first-2].Kind == Op):
		if x = r.Table(name); x != "" {
			x = "SELECT * FROM " + x
		}
		start = toks[first-1].Start
	}
	if x == "" {
		return edit{}, false
	}
	if !(next.Kind == Quoted || next.Kind == Word && !clauseWord(sql[next.Start:next.End])) {
		x += " AS " + name
	}
	return edit{start, toks[last].End, x}, true
}

func anyFold(b []byte, words ...string) bool {
	for _, w := range words {
		if equalFold(b, w) {
			return true
		}
	}
	return false
}

// clauseWord: the word may follow a table reference and is no alias.
func clauseWord(b []byte) bool {
	return anyFold(b, "WHERE", "JOIN", "INNER", "LEFT", "RIGHT", "CROSS", "NATURAL", "STRAIGHT_JOIN", "ON", "USING",
		"ORDER", "GROUP", "HAVING", "LIMIT", "UNION", "EXCEPT", "INTERSECT", "FOR", "LOCK", "WINDOW", "USE", "FORCE",
		"IGNORE", "PARTITION", "INTO", "SET", "QUALIFY")
}

// aliases adds the aliases that the edits make necessary.
func aliases(sql []byte, toks []Token, edits []edit) []edit {
	for i, t := range toks {
		if t.Kind == Word && equalFold(sql[t.Start:t.End], "SELECT") {
			edits = selectList(sql, toks, i+1, edits)
		}
	}
	return edits
}

func selectList(sql []byte, toks []Token, i int, edits []edit) []edit {
	text := func(i int) []byte { return sql[toks[i].Start:toks[i].End] }
	for toks[i].Kind == Word && anyFold(text(i), "ALL", "DISTINCT", "DISTINCTROW", "HIGH_PRIORITY", "STRAIGHT_JOIN",
		"SQL_SMALL_RESULT", "SQL_BIG_RESULT", "SQL_BUFFER_RESULT", "SQL_CALC_FOUND_ROWS", "SQL_NO_CACHE") {
		i++
	}
	depth, from, as := 0, i, false
	for ; ; i++ {
		t := toks[i]
		end := t.Kind == EOF
		comma := false
		if depth == 0 {
			switch t.Kind {
			case Op:
				end = sql[t.Start] == ')'
				comma = sql[t.Start] == ','
			case Word:
				b := text(i)
				as = as || equalFold(b, "AS")
				end = anyFold(b, "FROM", "INTO", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "EXCEPT",
					"INTERSECT", "FOR", "LOCK", "WINDOW")
			}
		}
		if end || comma {
			if !as && i > from && !hasAlias(sql, toks[from:i]) {
				edits = addAlias(sql, toks[from].Start, toks[i-1].End, edits)
			}
			if end {
				return edits
			}
			from, as = i+1, false
			continue
		}
		if t.Kind == Op {
			switch sql[t.Start] {
			case '(':
				depth++
			case ')':
				depth--
			}
		}
	}
}

// hasAlias: the item ends in an identifier or a string right behind an operand.
func hasAlias(sql []byte, item []Token) bool {
	if len(item) < 2 {
		return false
	}
	last, prev := item[len(item)-1], item[len(item)-2]
	if last.Kind == Word && anyFold(sql[last.Start:last.End], "NULL", "TRUE", "FALSE", "UNKNOWN", "END") {
		return false
	}
	if last.Kind != Word && last.Kind != Quoted && last.Kind != String {
		return false
	}
	switch prev.Kind {
	case Op:
		return sql[prev.Start] == ')'
	case Word:
		return !anyFold(sql[prev.Start:prev.End], "AND", "OR", "NOT", "XOR", "IS", "DIV", "MOD", "LIKE", "REGEXP", "RLIKE",
			"IN", "BETWEEN", "BINARY", "COLLATE", "ESCAPE", "DISTINCT")
	}
	return true
}

// addAlias gives the item sql[start:end] an alias when an edit lies inside.
func addAlias(sql []byte, start, end int, edits []edit) []edit {
	inside := false
	at := len(edits)
	for i, e := range edits {
		if e.start >= start && e.end <= end && e.text != "" {
			inside = true
		}
		if e.start >= end && i < at {
			at = i
		}
	}
	if !inside {
		return edits
	}
	alias := " AS `" + strings.ReplaceAll(string(sql[start:end]), "`", "``") + "`"
	edits = append(edits, edit{})
	copy(edits[at+1:], edits[at:])
	edits[at] = edit{end, end, alias}
	return edits
}
