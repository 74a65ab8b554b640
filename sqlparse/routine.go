package sqlparse

// Routine is what the body of a stored procedure may do to transactions.
type Routine struct {
	// Begins: START TRANSACTION, BEGIN WORK, COMMIT, SET autocommit, XA, a
	// statement that commits implicitly, or a temporary table.
	Begins bool
	// RollsBack: ROLLBACK, not to a savepoint.
	RollsBack bool
	// Handles: it declares a handler, which may swallow errors.
	Handles bool
	// Dynamic: it prepares statements, whose text is not known.
	Dynamic bool
	// Calls are the procedures it calls, as far as they are named.
	Calls []TableName
}

// Ends reports whether a call may end a transaction, so that it cannot run
// inside one that is wrapped.
func (r *Routine) Ends() bool { return r.Begins || r.RollsBack || r.Dynamic && r.Handles }

// RoutineBody looks through the body of a procedure, or through the CREATE
// PROCEDURE that makes it. Names that are spelled like
// the words it looks for count as those: when in doubt a routine does more than
// it does.
func RoutineBody(body []byte, mode Mode) Routine {
	p := parser{Scanner: NewScanner(body, mode)}
	var r Routine
	p.next()
	if p.accept("CREATE") {
		for !p.ended() && !p.is("PROCEDURE") {
			p.next()
		}
		p.next()
		_, _ = p.tableName()
		if p.isOp('(') {
			p.skipParens()
		}
	}
	for p.tok.Kind != EOF && p.tok.Kind != Bad {
		if p.tok.Kind != Word || p.prev.Kind == Op && p.src[p.prev.Start] == '.' {
			p.next()
			continue
		}
		word := p.tok
		p.next()
		w := p.src[word.Start:word.End]
		switch {
		case equalFold(w, "COMMIT"), equalFold(w, "XA"), equalFold(w, "AUTOCOMMIT"), equalFold(w, "TRUNCATE"), equalFold(w, "TEMPORARY"):
			r.Begins = true
		case equalFold(w, "START"):
			r.Begins = r.Begins || p.is("TRANSACTION")
		case equalFold(w, "BEGIN"):
			r.Begins = r.Begins || p.is("WORK")
		case equalFold(w, "CREATE"), equalFold(w, "ALTER"), equalFold(w, "DROP"), equalFold(w, "RENAME"):
			r.Begins = r.Begins || p.tok.Kind == Word && !p.is("PREPARE")
		case equalFold(w, "ROLLBACK"):
			p.accept("WORK")
			if !p.is("TO") {
				r.RollsBack = true
			}
		case equalFold(w, "HANDLER"):
			r.Handles = true
		case equalFold(w, "PREPARE"):
			r.Dynamic = true
		case equalFold(w, "CALL"):
			if t, ok := p.tableName(); ok {
				r.Calls = append(r.Calls, t)
			}
		case equalFold(w, "SET"):
			for p.tok.Kind == SysVar {
				if _, name := SplitSysVar(p.src[p.tok.Start:p.tok.End]); equalFold(name, "AUTOCOMMIT") {
					r.Begins = true
				}
				p.next()
			}
		}
	}
	return r
}
