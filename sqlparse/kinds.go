package sqlparse

// qualified spans name[.name], and leaves the parser behind it.
func (p *parser) qualified() Span {
	s := p.span()
	p.next()
	for p.isOp('.') {
		p.next()
		s.End = p.tok.End
		p.next()
	}
	return s
}

func (p *parser) show() {
	p.st.Class = Read
	switch p.kw() {
	case "WARNINGS", "ERRORS":
		p.st.Class = Diagnostics
	case "COUNT":
		p.next()
		if p.isOp('(') {
			p.st.Class = Diagnostics
		}
	case "GLOBAL", "SESSION", "LOCAL":
		p.next()
		fallthrough
	default:
		flag := FlagShowVars
		if p.is("STATUS") {
			flag = FlagShowStatus
		}
		if (p.accept("VARIABLES") || p.accept("STATUS")) && (p.is("LIKE") || p.is("WHERE")) {
			p.st.Flags |= flag
		}
	}
}

// with finds the statement behind common table expressions: the first
// statement word outside parentheses.
func (p *parser) with() {
	p.st.Class = Read
	depth := 0
	// The expressions may hold what finish looks for, so it starts over.
	save := *p
	for p.tok.Kind != EOF && p.tok.Kind != Semi && p.tok.Kind != Bad {
		switch {
		case p.isOp('('):
			depth++
		case p.isOp(')'):
			depth--
		case depth == 0:
			switch p.kw() {
			case "UPDATE", "DELETE", "INSERT", "REPLACE":
				save.st.Class = DML
				*p = save
				return
			case "SELECT", "TABLE", "VALUES":
				*p = save
				return
			}
		}
		p.next()
	}
	*p = save
}

func (p *parser) start() {
	switch p.kw() {
	case "GROUP_REPLICATION":
		p.st.Class = StartGroup
		return
	case "TRANSACTION":
		p.st.Class = Begin
	default:
		p.st.Class = Maintenance
		return
	}
	p.next()
	for {
		switch p.kw() {
		case "READ":
			p.next()
			if p.accept("ONLY") {
				p.st.Flags |= FlagReadOnly
			} else if p.accept("WRITE") {
				p.st.Flags |= FlagReadWrite
			} else {
				return
			}
		case "WITH":
			p.next()
			if !p.accept("CONSISTENT") || !p.accept("SNAPSHOT") {
				return
			}
			p.st.Flags |= FlagSnapshot
		default:
			return
		}
		if !p.isOp(',') {
			return
		}
		p.next()
	}
}

// completion reads [AND [NO] CHAIN] [[NO] RELEASE].
func (p *parser) completion() {
	if p.accept("AND") {
		if p.accept("NO") {
			p.st.Chain = No
		} else {
			p.st.Chain = Yes
		}
		p.accept("CHAIN")
	}
	if p.accept("NO") {
		p.st.Release = No
		p.accept("RELEASE")
	} else if p.accept("RELEASE") {
		p.st.Release = Yes
	}
}

func (p *parser) rollback() {
	p.st.Class = Rollback
	p.accept("WORK")
	if p.accept("TO") {
		p.st.Class = RollbackTo
		// SAVEPOINT is optional, and no reserved word.
		t := p.span()
		if p.accept("SAVEPOINT") && p.tok.Kind != EOF && p.tok.Kind != Semi {
			t = p.span()
		}
		p.st.Name = t
		return
	}
	p.completion()
}

func (p *parser) xa() {
	verb := p.kw()
	switch verb {
	case "START", "BEGIN":
		p.st.Class = XAStart
	case "END":
		p.st.Class = XAEnd
	case "PREPARE":
		p.st.Class = XAPrepare
	case "COMMIT":
		p.st.Class = XACommit
	case "ROLLBACK":
		p.st.Class = XARollback
	case "RECOVER":
		p.st.Class = XARecover
		return
	default:
		return
	}
	p.next()
	p.st.Name = p.span()
	for {
		switch p.tok.Kind {
		case String, Number, Op:
		case Word:
			switch k := p.kw(); k {
			case "ONE":
				p.st.Flags |= FlagOnePhase
				return
			case "JOIN", "RESUME", "SUSPEND":
				p.st.Flags |= FlagXAOption
				return
			}
			// X'ff', B'01' and 0xff are words too.
		default:
			return
		}
		p.st.Name.End = p.tok.End
		p.next()
	}
}

func (p *parser) load() {
	switch p.kw() {
	case "DATA", "XML":
		p.st.Class = LoadData
		p.next()
		for p.is("LOW_PRIORITY") || p.is("CONCURRENT") || p.is("FROM") {
			p.next()
		}
		if p.is("LOCAL") {
			p.st.Flags |= FlagLocal
		}
	case "INDEX":
		p.st.Class = Maintenance
	}
}

func (p *parser) prepare() {
	p.st.Class = Prepare
	p.st.Name = p.span()
	p.next()
	if p.accept("FROM") {
		p.st.Arg = p.span()
	}
}

func (p *parser) ddl(first string) {
	p.st.Class = DDL
	if first == "CREATE" && p.accept("OR") {
		p.accept("REPLACE")
	}
	switch p.kw() {
	case "TEMPORARY":
		p.next()
		if !p.accept("TABLE") {
			p.accept("TABLES")
		}
		switch first {
		case "CREATE":
			p.st.Class = CreateTemporary
		case "DROP":
			p.st.Class = DropTemporary
		default:
			return
		}
		if p.accept("IF") {
			p.accept("NOT")
			p.accept("EXISTS")
		}
		p.st.Name = p.qualified()
	case "USER", "ROLE":
		p.st.Class = Account
	case "PREPARE":
		if first == "DROP" {
			p.next()
			p.st.Class = Deallocate
			p.st.Name = p.span()
		}
	case "PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "DEFINER":
		if first == "CREATE" || first == "ALTER" {
			p.body()
		}
	case "AGGREGATE":
	}
}
