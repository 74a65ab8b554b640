package sqlparse

// forbidden holds the variables that no client may assign through the proxy,
// whatever its privileges: each of them could make what this server logs
// differ from what the group agrees on, or open it for writes the group does
// not order. Sorted by what they endanger.
func forbidden(name []byte) bool {
	if len(name) < 7 {
		return false
	}
	switch name[0] | 0x20 {
	case 's':
		return equalFold(name, "SQL_LOG_BIN") || equalFold(name, "SUPER_READ_ONLY") || equalFold(name, "SERVER_ID") ||
			equalFold(name, "SLAVE_PRESERVE_COMMIT_ORDER")
	case 'r':
		return equalFold(name, "READ_ONLY") || equalFold(name, "REPLICA_PRESERVE_COMMIT_ORDER")
	case 'g':
		return equalFold(name, "GTID_NEXT") || equalFold(name, "GTID_MODE") || equalFold(name, "GTID_PURGED")
	case 'e':
		return equalFold(name, "ENFORCE_GTID_CONSISTENCY")
	case 'b':
		return equalFold(name, "BINLOG_FORMAT") || equalFold(name, "BINLOG_ROW_IMAGE") || equalFold(name, "BINLOG_ROW_VALUE_OPTIONS") ||
			equalFold(name, "BINLOG_ORDER_COMMITS") || equalFold(name, "BINLOG_CHECKSUM")
	case 'p':
		return equalFold(name, "PSEUDO_REPLICA_MODE") || equalFold(name, "PSEUDO_SLAVE_MODE")
	case 'x':
		return equalFold(name, "XA_DETACH_ON_PREPARE")
	case 'o':
		return equalFold(name, "ORIGINAL_COMMIT_TIMESTAMP")
	case 'i':
		return equalFold(name, "IMMEDIATE_SERVER_VERSION")
	}
	return false
}

// harmless reports whether a forbidden variable is assigned the very value
// that the group needs, which tools do to be sure.
func harmless(name []byte, value []byte) bool {
	switch {
	case equalFold(name, "SQL_LOG_BIN"):
		return equalFold(value, "1") || equalFold(value, "ON") || equalFold(value, "TRUE")
	case equalFold(name, "GTID_NEXT"):
		return len(value) > 2 && equalFold(value[1:len(value)-1], "AUTOMATIC") || equalFold(value, "AUTOMATIC") || equalFold(value, "DEFAULT")
	case equalFold(name, "GTID_MODE"):
		return equalFold(value, "ON") || equalFold(value, "'ON'") || equalFold(value, "3")
	case equalFold(name, "BINLOG_FORMAT"):
		return equalFold(value, "ROW") || len(value) > 2 && equalFold(value[1:len(value)-1], "ROW")
	case equalFold(name, "BINLOG_ROW_IMAGE"):
		return equalFold(value, "FULL") || len(value) > 2 && equalFold(value[1:len(value)-1], "FULL")
	case equalFold(name, "PSEUDO_REPLICA_MODE"), equalFold(name, "PSEUDO_SLAVE_MODE"):
		return equalFold(value, "0") || equalFold(value, "OFF")
	}
	return false
}

// set reads what follows SET.
func (p *parser) set() {
	p.st.Class = Set
	switch p.kw() {
	case "PASSWORD":
		p.st.Class = Account
		return
	case "DEFAULT":
		p.st.Class = Account
		return
	case "ROLE":
		return
	case "TRANSACTION":
		p.st.Flags |= FlagOneShot
		p.setTransaction()
		return
	}
	n := 0
	for p.tok.Kind != EOF && p.tok.Kind != Semi && p.tok.Kind != Bad {
		p.assignment(n == 0)
		if p.st.Class == SetTransaction {
			return
		}
		n++
		if !p.isOp(',') {
			break
		}
		p.next()
	}
	if n > 1 && p.st.Autocommit != Unset {
		p.st.Flags |= FlagMixed
	}
}

// assignmentFollows: a variable may be called like an option.
func (p *parser) assignmentFollows() bool {
	s := p.Scanner
	t := s.Next()
	return t.Kind == Op && (p.src[t.Start] == '=' || p.src[t.Start] == ':')
}

func (p *parser) setTransaction() {
	p.st.Class = SetTransaction
	for p.tok.Kind != EOF && p.tok.Kind != Semi && p.tok.Kind != Bad {
		if p.accept("READ") {
			if p.is("ONLY") {
				p.st.Flags |= FlagReadOnly
			} else if p.is("WRITE") {
				p.st.Flags |= FlagReadWrite
			}
			continue
		}
		p.next()
	}
}

// assignment reads [scope] name = value.
func (p *parser) assignment(first bool) {
	global := false
	var scope, name []byte
	t := p.tok
	switch t.Kind {
	case SysVar:
		scope, name = SplitSysVar(p.src[t.Start:t.End])
		global = isGlobal(scope)
		p.next()
	case Word, Quoted:
		switch k := p.kw(); k {
		case "GLOBAL", "SESSION", "LOCAL", "PERSIST", "PERSIST_ONLY":
			if p.assignmentFollows() {
				break
			}
			global = k != "SESSION" && k != "LOCAL"
			p.next()
			if first && p.is("TRANSACTION") {
				p.setTransaction()
				return
			}
			t = p.tok
		}
		name = unquote(p.src[t.Start:t.End])
		p.next()
		for p.isOp('.') { // component.variable
			p.next()
			name = unquote(p.src[p.tok.Start:p.tok.End])
			p.next()
		}
	default:
		p.next()
	}
	for p.isOp(':') || p.isOp('=') {
		p.next()
	}
	value := p.tok
	n := p.value()
	p.judge(t, global, name, value, n)
}

func isGlobal(scope []byte) bool {
	return equalFold(scope, "GLOBAL") || equalFold(scope, "PERSIST") || equalFold(scope, "PERSIST_ONLY")
}

// value skips an expression up to a comma outside parentheses and returns the
// number of its tokens.
func (p *parser) value() int {
	depth, n := 0, 0
	for p.tok.Kind != EOF && p.tok.Kind != Semi && p.tok.Kind != Bad {
		switch {
		case p.isOp('('):
			depth++
		case p.isOp(')'):
			depth--
		case p.isOp(',') && depth <= 0:
			return n
		}
		// What finish would have noted.
		switch t := p.tok; t.Kind {
		case SysVar:
			p.sysVar(t)
		case Word:
			b := p.src[t.Start:t.End]
			if equalFold(b, "ROW_COUNT") {
				p.st.Flags |= FlagRowCount
			} else if equalFold(b, "SELECT") || equalFold(b, "FROM") {
				p.st.Flags |= FlagFrom
			} else {
				p.table(b)
			}
		case Op:
			if p.src[t.Start] == '(' {
				p.call()
			}
		}
		n++
		p.next()
	}
	return n
}

func (p *parser) judge(t Token, global bool, name []byte, value Token, n int) {
	if len(name) == 0 || t.Kind == UserVar {
		return
	}
	v := p.src[value.Start:value.End]
	switch {
	case equalFold(name, "AUTOCOMMIT"):
		if global {
			return
		}
		p.st.Autocommit = Expr
		if n == 1 {
			switch {
			case equalFold(v, "1"), equalFold(v, "ON"), equalFold(v, "TRUE"), equalFold(v, "'ON'"), equalFold(v, "'1'"):
				p.st.Autocommit = Yes
			case equalFold(v, "0"), equalFold(v, "OFF"), equalFold(v, "FALSE"), equalFold(v, "'OFF'"), equalFold(v, "'0'"):
				p.st.Autocommit = No
			}
		}
	case hasPrefixFold(name, "SESSION_TRACK_"):
		if !global {
			p.st.Flags |= FlagTrackers
		}
	case hasPrefixFold(name, "GROUP_REPLICATION_"):
		p.st.Flags |= FlagSetGroupVar
		p.st.Name, p.st.Arg = Span{t.Start, t.End}, Span{value.Start, p.prev.End}
	case (forbidden(name) || global && equalFold(name, "DEFAULT_TABLE_ENCRYPTION")) && !(n == 1 && harmless(name, v)) && !p.st.Has(FlagForbidden):
		p.st.Flags |= FlagForbidden
		p.st.Name = Span{t.Start, t.End}
	}
}
