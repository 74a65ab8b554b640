package sqlparse

import (
	"bytes"
	"slices"
	"strings"
)

// TableName is a table as a statement names it, quotes removed; Schema is empty
// where the session's default one is meant.
type TableName struct{ Schema, Name string }

// WriteTargets returns the tables that an INSERT, REPLACE, UPDATE, DELETE or
// LOAD DATA statement names as those it writes. Tables it only reads are left
// out. Where the text alone does not tell (UPDATE of several tables with an
// unqualified column) every table that may be meant is returned. Views are
// returned under their own names; what they stand for, triggers and cascades are
// not looked into.
func WriteTargets(sql []byte, mode Mode) []TableName {
	p := parser{Scanner: NewScanner(sql, mode)}
	p.next()
	if p.is("WITH") && !p.toVerb() {
		return nil
	}
	verb := p.kw()
	p.next()
	switch verb {
	case "INSERT", "REPLACE":
		for p.is("LOW_PRIORITY") || p.is("DELAYED") || p.is("HIGH_PRIORITY") || p.is("IGNORE") || p.is("INTO") {
			p.next()
		}
		return p.oneTable()
	case "UPDATE":
		for p.is("LOW_PRIORITY") || p.is("IGNORE") {
			p.next()
		}
		return p.updated(p.tableRefs())
	case "DELETE":
		return p.deleted()
	case "LOAD":
		for !p.ended() {
			if p.accept("INTO") && p.accept("TABLE") {
				return p.oneTable()
			}
			if !p.is("INTO") {
				p.next()
			}
		}
	}
	return nil
}

// DroppedTables returns the tables that DROP [TEMPORARY] TABLE names, nil for
// any other statement.
func DroppedTables(sql []byte, mode Mode) []TableName {
	p := parser{Scanner: NewScanner(sql, mode)}
	p.next()
	if !p.accept("DROP") {
		return nil
	}
	p.accept("TEMPORARY")
	if !p.accept("TABLE") && !p.accept("TABLES") {
		return nil
	}
	if p.accept("IF") {
		p.accept("EXISTS")
	}
	var out []TableName
	for {
		t, ok := p.tableName()
		if !ok {
			return out
		}
		out = append(out, t)
		if !p.isOp(',') {
			return out
		}
		p.next()
	}
}

// SplitName cuts a possibly qualified name as it is spelled.
func SplitName(spelled []byte, mode Mode) TableName {
	p := parser{Scanner: NewScanner(spelled, mode)}
	p.next()
	t, _ := p.tableName()
	return t
}

func (p *parser) ended() bool {
	return p.tok.Kind == EOF || p.tok.Kind == Semi || p.tok.Kind == Bad
}

// toVerb moves behind common table expressions, to the statement's verb.
func (p *parser) toVerb() bool {
	for ; !p.ended(); p.next() {
		if p.isOp('(') {
			p.skipParens()
		}
		if p.is("UPDATE") || p.is("DELETE") || p.is("INSERT") || p.is("REPLACE") {
			return true
		}
	}
	return false
}

// skipParens moves from an opening parenthesis to the one that closes it.
func (p *parser) skipParens() {
	for depth := 0; !p.ended(); p.next() {
		if p.isOp('(') {
			depth++
		} else if p.isOp(')') {
			if depth--; depth == 0 {
				return
			}
		}
	}
}

// identifier reads one part of a name.
func (p *parser) identifier() (string, bool) {
	b := p.src[p.tok.Start:p.tok.End]
	switch p.tok.Kind {
	case Word, Number:
	case Quoted:
		if len(b) < 2 {
			return "", false
		}
		q := b[0]
		b = bytes.ReplaceAll(b[1:len(b)-1], []byte{q, q}, []byte{q})
	default:
		return "", false
	}
	p.next()
	return string(b), true
}

// tableName reads name or schema.name, and a ".*" behind it.
func (p *parser) tableName() (TableName, bool) {
	var t TableName
	if p.isOp('.') { // .name is name
		p.next()
	}
	name, ok := p.identifier()
	for ok && p.isOp('.') {
		p.next()
		if p.isOp('*') {
			p.next()
			break
		}
		var part string
		if part, ok = p.identifier(); ok {
			t.Schema, name = name, part
		}
	}
	t.Name = name
	return t, ok
}

func (p *parser) oneTable() []TableName {
	if t, ok := p.tableName(); ok {
		return []TableName{t}
	}
	return nil
}

// reference is a table of a statement's table references and what it is called
// there.
type reference struct {
	TableName
	alias string
}

// called reports whether a qualifier means this reference. Letter case is left
// aside: taking too many is the safe side.
func (r *reference) called(q TableName) bool {
	if r.alias != "" {
		return q.Schema == "" && strings.EqualFold(r.alias, q.Name)
	}
	return strings.EqualFold(r.Name, q.Name) && (q.Schema == "" || r.Schema == "" || strings.EqualFold(r.Schema, q.Schema))
}

// endsRefs holds the words behind table references; joinWords those that may
// follow a table there and are no alias.
var (
	endsRefs  = []string{"SET", "WHERE", "ORDER", "LIMIT"}
	joinWords = []string{"JOIN", "INNER", "CROSS", "LEFT", "RIGHT", "NATURAL", "STRAIGHT_JOIN", "OUTER", "FULL",
		"ON", "USING", "USE", "FORCE", "IGNORE", "PARTITION", "TABLESAMPLE", "SET", "WHERE", "ORDER", "LIMIT"}
)

func (p *parser) isAny(words []string) bool {
	return p.tok.Kind == Word && slices.ContainsFunc(words, p.is)
}

// tableRefs reads table references up to the clause that follows them.
func (p *parser) tableRefs() []reference {
	var refs []reference
	table, depth := true, 0 // table: a table is expected here
	for !p.ended() {
		switch {
		case table && p.isOp('('):
			p.next()
			if p.is("SELECT") || p.is("WITH") || p.is("VALUES") || p.is("TABLE") {
				p.restOfParens()
				p.alias()
				table = false
				continue
			}
			depth++
		case table && p.isOp('{'):
			p.next()
			p.accept("OJ")
		case table && p.is("LATERAL"):
			p.next()
		case table:
			t, ok := p.tableName()
			table = false
			if !ok {
				p.next()
				continue
			}
			if p.isOp('(') { // a table function
				p.skipParens()
				p.next()
				p.alias()
				continue
			}
			if p.accept("PARTITION") {
				p.skipParens()
				p.next()
			}
			refs = append(refs, reference{t, p.alias()})
		case p.isOp(')') && depth > 0:
			depth--
			p.next()
		case p.isOp('('):
			p.skipParens()
			p.next()
		case p.isOp(','), p.is("JOIN"), p.is("STRAIGHT_JOIN"):
			table = true
			p.next()
		case depth == 0 && p.isAny(endsRefs):
			return refs
		default:
			p.next()
		}
	}
	return refs
}

// restOfParens moves behind the parenthesis that closes one already read.
func (p *parser) restOfParens() {
	for !p.ended() && !p.isOp(')') {
		if p.isOp('(') {
			p.skipParens()
		}
		p.next()
	}
	p.next()
}

// alias reads [AS] alias and a derived table's columns.
func (p *parser) alias() (name string) {
	if p.accept("AS") || p.tok.Kind == Quoted || p.tok.Kind == Word && !p.isAny(joinWords) {
		name, _ = p.identifier()
	}
	return name
}

// updated finds what the assignments of an UPDATE write. The parser stands at
// SET.
func (p *parser) updated(refs []reference) []TableName {
	all := func() []TableName {
		out := make([]TableName, len(refs))
		for i := range refs {
			out[i] = refs[i].TableName
		}
		return out
	}
	if len(refs) < 2 {
		return all()
	}
	var out []TableName
	p.next()
	for !p.ended() {
		q, ok := p.column()
		if !ok || q.Name == "" {
			return all()
		}
		found := false
		for i := range refs {
			if refs[i].called(q) {
				out, found = append(out, refs[i].TableName), true
			}
		}
		if !found {
			return all()
		}
		for !p.ended() && !p.isOp(',') {
			if p.isAny(endsRefs) {
				return out
			}
			if p.isOp('(') {
				p.skipParens()
			}
			p.next()
		}
		p.next()
	}
	return out
}

// column reads a column's name and returns its qualifier.
func (p *parser) column() (q TableName, ok bool) {
	var parts [3]string
	n := 0
	for n < 3 {
		if parts[n], ok = p.identifier(); !ok {
			return q, false
		}
		n++
		if !p.isOp('.') {
			break
		}
		p.next()
	}
	switch n {
	case 2:
		q.Name = parts[0]
	case 3:
		q.Schema, q.Name = parts[0], parts[1]
	}
	return q, true
}

// deleted finds what a DELETE writes; the parser stands behind DELETE.
func (p *parser) deleted() []TableName {
	for p.is("LOW_PRIORITY") || p.is("QUICK") || p.is("IGNORE") {
		p.next()
	}
	from := p.accept("FROM")
	var names []TableName
	for {
		t, ok := p.tableName()
		if !ok {
			return names
		}
		names = append(names, t)
		if !p.isOp(',') {
			break
		}
		p.next()
	}
	switch {
	case from && p.is("USING"), !from && p.is("FROM"):
		p.next()
	default:
		return names // one table, perhaps with an alias
	}
	refs := p.tableRefs()
	var out []TableName
	for _, n := range names {
		found := false
		for i := range refs {
			if refs[i].called(n) {
				out, found = append(out, refs[i].TableName), true
			}
		}
		if !found {
			out = append(out, n)
		}
	}
	return out
}
