package sqlparse

import (
	"bytes"
	"strings"
)

// GroupCall is a call of a function group_replication_…() in a statement.
type GroupCall struct {
	// Name is in lower case; Span covers the whole call, Args each argument.
	Name string
	Span Span
	Args []Span
	// Depth is in how many parentheses the call stands.
	Depth int
	// Title is the name of the result's column and Alone set where the call is
	// all that the statement does: SELECT call [[AS] alias].
	Title string
	Alone bool
}

// GroupCalls finds the calls of the group's functions in the first statement of
// sql, in their order. runs is false for a statement that would not run each
// of them exactly once: one that is no SELECT, DO or SET, or that has a table or
// a condition outside of the calls.
func GroupCalls(sql []byte, mode Mode) (calls []GroupCall, runs bool) {
	toks := tokens(sql, mode)
	text := func(i int) []byte {
		if i < 0 || i >= len(toks) {
			return nil
		}
		return sql[toks[i].Start:toks[i].End]
	}
	runs = anyFold(text(0), "SELECT", "DO", "SET")
	depth := 0
	for i := 0; i < len(toks); i++ {
		switch t := toks[i]; t.Kind {
		case Op:
			switch sql[t.Start] {
			case '(':
				depth++
			case ')':
				depth--
			}
		case Word, Quoted:
			name := trimQuotes(text(i))
			if !hasPrefixFold(name, "GROUP_REPLICATION_") || string(text(i+1)) != "(" || string(text(i-1)) == "." {
				if t.Kind == Word && (equalFold(name, "FROM") && !equalFold(text(i+1), "DUAL") || anyFold(name, "WHERE", "HAVING", "LIMIT", "UNION")) {
					runs = false
				}
				continue
			}
			c, last, ok := groupCall(sql, toks, i)
			if !ok {
				return calls, false // a syntax error
			}
			c.Name, c.Depth = strings.ToLower(string(name)), depth
			calls = append(calls, c)
			i = last
		}
	}
	if len(calls) == 1 {
		calls[0].alone(sql, toks)
	}
	return calls, runs
}

// groupCall reads the call whose name is toks[i] and returns the index of its
// closing parenthesis; ok is false where there is none.
func groupCall(sql []byte, toks []Token, i int) (c GroupCall, last int, ok bool) {
	c.Span.Start = toks[i].Start
	depth, from := 0, i+2
	arg := func(end int) {
		if end > from {
			c.Args = append(c.Args, Span{toks[from].Start, toks[end-1].End})
		}
	}
	for i++; i < len(toks); i++ {
		if toks[i].Kind != Op {
			continue
		}
		switch sql[toks[i].Start] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				arg(i)
				c.Span.End = toks[i].End
				return c, i, true
			}
		case ',':
			if depth == 1 {
				arg(i)
				from = i + 1
			}
		}
	}
	return c, 0, false
}

// alone fills Title and Alone.
func (c *GroupCall) alone(sql []byte, toks []Token) {
	if len(toks) < 2 || !equalFold(sql[toks[0].Start:toks[0].End], "SELECT") || toks[1].Start != c.Span.Start {
		return
	}
	c.Title = string(sql[c.Span.Start:c.Span.End])
	var rest []Token
	for _, t := range toks {
		if t.Start >= c.Span.End && t.Kind != EOF {
			rest = append(rest, t)
		}
	}
	if len(rest) > 0 && equalFold(sql[rest[0].Start:rest[0].End], "AS") {
		if rest = rest[1:]; len(rest) == 0 {
			return // a syntax error
		}
	}
	switch len(rest) {
	case 0:
		c.Alone = true
	case 1:
		alias := sql[rest[0].Start:rest[0].End]
		switch k := rest[0].Kind; {
		case k == Word && !clauseWord(alias):
			c.Title, c.Alone = string(alias), true
		case (k == Quoted || k == String) && len(alias) >= 2:
			q := alias[:1]
			c.Title, c.Alone = string(bytes.ReplaceAll(alias[1:len(alias)-1], append(q[:1:1], q...), q)), true
		}
	}
}

// ReplaceCalls puts texts in place of calls, which GroupCalls found, and keeps
// the names of the result's columns.
func ReplaceCalls(sql []byte, mode Mode, calls []GroupCall, texts []string) []byte {
	edits := make([]edit, len(calls))
	for i, c := range calls {
		edits[i] = edit{c.Span.Start, c.Span.End, texts[i]}
	}
	return apply(sql, aliases(sql, tokens(sql, mode), edits))
}

// Assignment is one of a SET list.
type Assignment struct {
	// Scope is GLOBAL, SESSION, PERSIST or PERSIST_ONLY, "" where none is given.
	Scope string
	// Name is the variable, as it is written but for quotes; empty for what is no
	// system variable. Value is the expression.
	Name  string
	Value Span
}

// Assignments reads the list of a SET statement.
func Assignments(sql []byte, mode Mode) []Assignment {
	toks := tokens(sql, mode)
	toks = toks[:len(toks)-1] // but for EOF
	if len(toks) == 0 || !equalFold(sql[toks[0].Start:toks[0].End], "SET") {
		return nil
	}
	var list []Assignment
	for from, depth, i := 1, 0, 1; i <= len(toks); i++ {
		op := byte(',')
		if i < len(toks) {
			if toks[i].Kind != Op {
				continue
			}
			op = sql[toks[i].Start]
		} else {
			depth = 0
		}
		switch {
		case op == '(':
			depth++
		case op == ')':
			depth--
		case op == ',' && depth <= 0:
			list = append(list, assignment(sql, toks[from:i]))
			from = i + 1
		}
	}
	return list
}

func assignment(sql []byte, toks []Token) (a Assignment) {
	text := func(i int) []byte {
		if i >= len(toks) {
			return nil
		}
		return sql[toks[i].Start:toks[i].End]
	}
	i := 0
	if anyFold(text(0), "GLOBAL", "SESSION", "LOCAL", "PERSIST", "PERSIST_ONLY") && !bytes.ContainsAny(text(1), ":=") {
		a.Scope = strings.ToUpper(string(text(0)))
		i++
	}
	if i >= len(toks) {
		return a
	}
	switch toks[i].Kind {
	case SysVar:
		scope, name := SplitSysVar(text(i))
		a.Scope, a.Name = strings.ToUpper(string(scope)), string(name)
	case Word, Quoted:
		a.Name = string(trimQuotes(text(i)))
	}
	if a.Scope == "LOCAL" {
		a.Scope = "SESSION"
	}
	for i++; i < len(toks) && (string(text(i)) == ":" || string(text(i)) == "="); i++ {
	}
	if i < len(toks) {
		a.Value = Span{toks[i].Start, toks[len(toks)-1].End}
	}
	return a
}

// GroupOptions are those of START GROUP_REPLICATION. A pointer is nil where the
// option is not given; literals stand as they are written.
type GroupOptions struct {
	User, Password, DefaultAuth *Span
	// Near is where the syntax ends to be right, -1 if it does not.
	Near int
}

// GroupStatement reads START GROUP_REPLICATION [USER='…'] [, PASSWORD='…']
// [, DEFAULT_AUTH='…'] and STOP GROUP_REPLICATION.
func GroupStatement(sql []byte, mode Mode) GroupOptions {
	toks := tokens(sql, mode)
	o := GroupOptions{Near: -1}
	text := func(i int) []byte {
		if i >= len(toks) {
			return nil
		}
		return sql[toks[i].Start:toks[i].End]
	}
	start := equalFold(text(0), "START")
	for i := 2; i < len(toks) && toks[i].Kind != EOF; i += 3 {
		if i > 2 {
			if string(text(i)) != "," {
				o.Near = toks[i].Start
				return o
			}
			i++
		}
		var into **Span
		switch name := text(i); {
		case !start:
		case equalFold(name, "USER"):
			into = &o.User
		case equalFold(name, "PASSWORD"):
			into = &o.Password
		case equalFold(name, "DEFAULT_AUTH"):
			into = &o.DefaultAuth
		}
		for j, bad := range []bool{into == nil, string(text(i+1)) != "=", i+2 >= len(toks) || toks[i+2].Kind != String} {
			if bad {
				o.Near = toks[min(i+j, len(toks)-1)].Start
				return o
			}
		}
		*into = &Span{toks[i+2].Start, toks[i+2].End}
	}
	return o
}
