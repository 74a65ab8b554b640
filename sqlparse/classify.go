// Package sqlparse tells what a statement is without parsing it: where a
// transaction begins and ends, what reads, what writes, what commits
// implicitly, what belongs to the group's administration; where a text of
// several statements is cut; and how a statement that reads the group's
// virtual tables and variables is rewritten.
//
// It works on tokens, allocates nothing on the usual path, and never touches
// the network. Its answers are hints: the truth about a transaction comes from
// the server's replies.
package sqlparse

// parser walks the tokens of one statement.
type parser struct {
	Scanner
	st   Statement
	tok  Token // the current token
	prev Token
	buf  [24]byte
}

// Classify says what the first statement of sql is, and where it ends.
func Classify(sql []byte, mode Mode) Statement {
	p := parser{Scanner: NewScanner(sql, mode)}
	p.next()
	p.st.Start = p.tok.Start
	switch p.tok.Kind {
	case EOF, Semi:
		p.st.Class = Empty
	case Op:
		p.paren()
	case Word:
		p.statement()
	}
	p.finish()
	return p.st
}

func (p *parser) next() Token {
	p.prev = p.tok
	p.tok = p.Scanner.Next()
	return p.tok
}

// kw returns the current token in upper case; "" when it is no word.
// The result is valid until the next call.
func (p *parser) kw() string { return p.kwOf(p.tok) }

func (p *parser) kwOf(t Token) string {
	if t.Kind != Word || t.End-t.Start > len(p.buf) {
		return ""
	}
	n := copy(p.buf[:], p.src[t.Start:t.End])
	for i := 0; i < n; i++ {
		if c := p.buf[i]; c >= 'a' && c <= 'z' {
			p.buf[i] = c - 'a' + 'A'
		}
	}
	return keyword(p.buf[:n])
}

// is reports whether the current token is the keyword k (upper case).
func (p *parser) is(k string) bool {
	return p.tok.Kind == Word && equalFold(p.src[p.tok.Start:p.tok.End], k)
}

// accept moves on when the current token is the keyword k.
func (p *parser) accept(k string) bool {
	if p.is(k) {
		p.next()
		return true
	}
	return false
}

func (p *parser) isOp(c byte) bool { return p.tok.Kind == Op && p.src[p.tok.Start] == c }

// equalFold compares b with the upper-case ASCII word k.
func equalFold(b []byte, k string) bool {
	if len(b) != len(k) {
		return false
	}
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != k[i] {
			return false
		}
	}
	return true
}

func hasPrefixFold(b []byte, k string) bool { return len(b) >= len(k) && equalFold(b[:len(k)], k) }

// span returns the span of the current token.
func (p *parser) span() Span { return Span{p.tok.Start, p.tok.End} }

// finish scans the rest of the statement for what matters everywhere, and for
// its end.
func (p *parser) finish() {
	depth := 0
	sel := p.st.Class == Read || p.st.Class == Unknown
	for {
		t := p.tok
		switch t.Kind {
		case EOF:
			p.st.End, p.st.Rest = len(p.src), len(p.src)
			p.done()
			return
		case Bad:
			p.st.Flags |= FlagBad
			p.st.End, p.st.Rest = len(p.src), len(p.src)
			p.done()
			return
		case Semi:
			p.st.End, p.st.Rest = t.Start, t.End
			p.done()
			// Nothing but white space and comments behind the delimiter is no
			// further statement.
			if !p.inVersioned && p.Scanner.Next().Kind == EOF {
				p.st.Rest = len(p.src)
			}
			return
		case Op:
			switch p.src[t.Start] {
			case '(':
				depth++
				p.call()
			case ')':
				depth--
			}
		case Word:
			p.word(p.src[t.Start:t.End], depth, sel)
		case Quoted:
			p.table(p.src[t.Start+1 : t.End-1])
		case SysVar:
			p.sysVar(t)
		}
		p.next()
	}
}

// call notes what stands before a parenthesis.
func (p *parser) call() {
	k := p.prev
	if k.Kind != Word && k.Kind != Quoted {
		return
	}
	b := p.src[k.Start:k.End]
	if k.Kind == Quoted || !isBuiltin(b) {
		p.st.Flags |= FlagCall
	}
	if hasPrefixFold(b, "GROUP_REPLICATION_") || k.Kind == Quoted && hasPrefixFold(b[1:], "GROUP_REPLICATION_") {
		p.st.Flags |= FlagGroupFunc
	}
}

func (p *parser) done() {
	if p.versionedSeen {
		p.st.Flags |= FlagVersioned
	}
}

// sysVar notes a variable that is read.
func (p *parser) sysVar(t Token) {
	_, name := SplitSysVar(p.src[t.Start:t.End])
	switch {
	case equalFold(name, "WARNING_COUNT"), equalFold(name, "ERROR_COUNT"):
		p.st.Flags |= FlagDiagVar
	case hasPrefixFold(name, "GROUP_REPLICATION_"):
		p.st.Flags |= FlagGroupVar
	}
}

// SplitSysVar cuts "@@scope.name" into its scope (empty when there is none)
// and its name, quotes removed.
func SplitSysVar(v []byte) (scope, name []byte) {
	v = v[2:]
	for i, c := range v {
		if c == '.' {
			s := unquote(v[:i])
			if isScope(s) {
				return s, unquote(v[i+1:])
			}
			break
		}
	}
	return nil, unquote(v)
}

func isScope(b []byte) bool {
	return equalFold(b, "GLOBAL") || equalFold(b, "SESSION") || equalFold(b, "LOCAL") ||
		equalFold(b, "PERSIST") || equalFold(b, "PERSIST_ONLY")
}

func unquote(b []byte) []byte {
	if len(b) >= 2 && b[0] == '`' && b[len(b)-1] == '`' {
		return b[1 : len(b)-1]
	}
	return b
}

// paren handles a text that starts with parentheses: only a query may.
func (p *parser) paren() {
	for p.isOp('(') {
		p.next()
	}
	switch p.kw() {
	case "SELECT", "TABLE", "VALUES", "WITH":
		p.st.Class = Read
	}
}

// statement dispatches on the first word.
func (p *parser) statement() {
	first := p.kw()
	p.next()
	c := &p.st.Class
	switch first {
	case "SELECT", "VALUES", "HELP", "CHECKSUM":
		*c = Read
	case "TABLE":
		*c = Read
		p.st.Flags |= FlagFrom
	case "EXPLAIN", "DESCRIBE", "DESC":
		*c = Read
	case "SHOW":
		p.show()
	case "INSERT", "REPLACE", "UPDATE", "DELETE":
		*c = DML
	case "WITH":
		p.with()
	case "BEGIN":
		*c = Begin
		p.accept("WORK")
	case "START":
		p.start()
	case "STOP":
		*c = Maintenance
		if p.is("GROUP_REPLICATION") {
			*c = StopGroup
		}
	case "COMMIT":
		*c = Commit
		p.accept("WORK")
		p.completion()
	case "ROLLBACK":
		p.rollback()
	case "SAVEPOINT":
		*c = Savepoint
		p.st.Name = p.span()
	case "RELEASE":
		if p.accept("SAVEPOINT") {
			*c = ReleaseSavepoint
			p.st.Name = p.span()
		}
	case "SET":
		p.set()
	case "XA":
		p.xa()
	case "CREATE", "ALTER", "DROP", "RENAME":
		p.ddl(first)
	case "TRUNCATE":
		*c = DDL
	case "IMPORT":
		*c = DDL
	case "GRANT", "REVOKE":
		*c = Account
	case "ANALYZE", "OPTIMIZE", "REPAIR", "CHECK", "FLUSH", "RESET", "PURGE", "CACHE", "INSTALL", "UNINSTALL", "CHANGE", "CLONE":
		*c = Maintenance
	case "LOCK":
		switch p.kw() {
		case "TABLES", "TABLE":
			*c = LockTables
		case "INSTANCE":
			*c = LockInstance
		}
	case "UNLOCK":
		switch p.kw() {
		case "TABLES", "TABLE":
			*c = UnlockTables
		case "INSTANCE":
			*c = LockInstance
		}
	case "LOAD":
		p.load()
	case "CALL":
		*c = Call
		p.st.Name = p.qualified()
	case "DO":
		*c = Do
	case "PREPARE":
		p.prepare()
	case "EXECUTE":
		*c = Execute
		p.st.Name = p.span()
	case "DEALLOCATE":
		if p.accept("PREPARE") {
			*c = Deallocate
			p.st.Name = p.span()
		}
	case "GET":
		*c = Diagnostics
	case "HANDLER":
		*c = Handler
	case "KILL":
		*c = Kill
	case "USE":
		*c = Use
		p.st.Name = p.span()
	case "SIGNAL", "RESIGNAL":
		*c = Signal
	case "SHUTDOWN", "RESTART":
		*c = Shutdown
	}
}

// word notes a word that matters wherever it stands.
func (p *parser) word(b []byte, depth int, sel bool) {
	switch len(b) {
	case 4:
		switch {
		case !sel:
		case depth <= 0 && equalFold(b, "INTO"):
			p.st.Flags |= FlagInto
		case equalFold(b, "FROM"):
			p.st.Flags |= FlagFrom
		}
	case 5, 6:
		if sel && p.prev.Kind == Word && (equalFold(b, "UPDATE") || equalFold(b, "SHARE")) {
			if pk := p.src[p.prev.Start:p.prev.End]; equalFold(pk, "FOR") || equalFold(pk, "IN") {
				p.st.Flags |= FlagLocking
			}
		}
	case 9:
		if equalFold(b, "ROW_COUNT") {
			p.st.Flags |= FlagRowCount
		}
	default:
		p.table(b)
	}
}

// table notes an identifier that may be a table which shows the group.
func (p *parser) table(b []byte) {
	switch {
	case len(b) > 18 && hasPrefixFold(b, "REPLICATION_GROUP_"):
		p.st.Flags |= FlagGroupTable
	case sharedTable(b):
		p.st.Flags |= FlagSharedTable
	}
}

// sharedTable: the name is that of a table of performance_schema which the server has
// and which may show the group, too.
func sharedTable(b []byte) bool {
	return equalFold(b, "EVENTS_STAGES_CURRENT") || equalFold(b, "REPLICATION_CONNECTION_STATUS")
}
