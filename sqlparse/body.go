package sqlparse

// body skips a CREATE or ALTER of a stored program, whose body may hold
// delimiters of its own: it moves to the delimiter that ends the statement, or
// to the end of the text. The parser stands at the word behind CREATE or
// ALTER (OR REPLACE already read).
//
// A compound statement opens at BEGIN, CASE and, at the start of a statement,
// at IF, LOOP, REPEAT and WHILE; END closes the innermost one. When in doubt it
// takes too much rather than too little: a text cut too early would run a part
// of a body as a statement of its own.
func (p *parser) body() {
	program := false
	for !program {
		switch p.kw() {
		case "PROCEDURE", "FUNCTION", "TRIGGER", "EVENT":
			program = true
		default:
			if p.tok.Kind == EOF || p.tok.Kind == Semi || p.tok.Kind == Bad || p.is("VIEW") {
				return
			}
		}
		p.next()
	}
	depth, parens := 0, 0
	header := true // no statement of the body has begun
	returns := -1  // tokens since RETURNS
	start := false // a statement may start here
	for {
		t := p.tok
		switch t.Kind {
		case EOF, Bad:
			return
		case Semi:
			if depth <= 0 {
				return
			}
			start = true
			p.next()
			continue
		case Op:
			switch p.src[t.Start] {
			case '(':
				parens++
			case ')':
				parens--
			}
		}
		begin := false
		if t.Kind == Word {
			begin, header = p.bodyWord(&depth, parens, start, header, &returns)
		} else if returns >= 0 {
			returns++
		}
		// Behind a label's colon a statement may start.
		start = begin || t.Kind == Op && p.src[t.Start] == ':'
		p.next()
	}
}

// bodyWord handles one word of a body. It reports whether a statement may
// start behind it, and whether the header goes on.
func (p *parser) bodyWord(depth *int, parens int, start, header bool, returns *int) (bool, bool) {
	// In the header, only what can end a characteristic, a parameter list or a
	// return type stands before the body.
	atStart := start || header && parens <= 0 && p.endsHeader(*returns)
	if *returns >= 0 {
		*returns++
	}
	switch p.kw() {
	case "BEGIN":
		*depth++
		return true, false
	case "CASE":
		*depth++
		return false, header && !atStart
	case "IF", "LOOP", "REPEAT", "WHILE":
		if atStart {
			*depth++
			return p.is("LOOP") || p.is("REPEAT"), false
		}
	case "END":
		if *depth > 0 {
			*depth--
		}
		// END IF, END CASE, END LOOP …: the second word opens nothing.
		s := p.Scanner
		switch p.kwOf(s.Next()) {
		case "IF", "CASE", "LOOP", "REPEAT", "WHILE":
			p.next()
		}
		return false, header
	case "THEN", "ELSE", "DO":
		return true, header && !p.is("DO")
	case "SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "SET", "CALL":
		if header && parens <= 0 && !p.afterEventWord() {
			return false, false
		}
	}
	if p.is("LOOP") || p.is("REPEAT") {
		return true, header
	}
	if header && p.is("RETURNS") {
		*returns = 0
	}
	if header && p.is("RETURN") {
		return false, false
	}
	return false, header
}

// afterEventWord: INSERT, UPDATE and DELETE name a trigger's event behind
// BEFORE or AFTER.
func (p *parser) afterEventWord() bool {
	if p.prev.Kind != Word {
		return false
	}
	b := p.src[p.prev.Start:p.prev.End]
	return equalFold(b, "BEFORE") || equalFold(b, "AFTER")
}

func (p *parser) endsHeader(returns int) bool {
	switch p.prev.Kind {
	case String:
		return true
	case Op:
		return p.src[p.prev.Start] == ')'
	case Word:
		if returns >= 1 && returns <= 8 {
			return true
		}
		b := p.src[p.prev.Start:p.prev.End]
		for _, k := range [...]string{"DETERMINISTIC", "SQL", "DATA", "INVOKER", "DEFINER", "ROW", "DO"} {
			if equalFold(b, k) {
				return true
			}
		}
	}
	return false
}
