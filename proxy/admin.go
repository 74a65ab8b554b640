package proxy

import (
	"context"
	"strconv"
	"strings"

	"cohort/internal/sysvar"
	"cohort/internal/wire"
	"cohort/sqlparse"
)

// Value is an argument of a function or what a variable is set to.
type Value = sysvar.Value

// Account is who a session is to mysqld.
type Account struct {
	// Name is CURRENT_USER(), as user@host.
	Name   string
	global map[string]bool
}

// Has reports whether the account has one of the privileges on *.*, by itself
// or through an active role.
func (a Account) Has(privileges ...string) bool {
	for _, p := range privileges {
		if a.global[p] {
			return true
		}
	}
	return false
}

// NewAccount returns an account from the lines of its SHOW GRANTS.
func NewAccount(name string, grants []string) Account {
	a := Account{Name: name, global: make(map[string]bool)}
	for _, g := range grants {
		list, ok := strings.CutPrefix(g, "GRANT ")
		if !ok {
			continue
		}
		if list, _, ok = strings.Cut(list, " ON *.* TO "); !ok {
			continue
		}
		for p := range strings.SplitSeq(list, ",") {
			a.global[strings.TrimSpace(p)] = true
		}
	}
	return a
}

var errUnpreparable = wire.NewError(erUnsupportedPS, "HY000", "This command is not supported in the prepared statement protocol yet")

// concernsGroup: the statement administers the group.
func concernsGroup(st *sqlparse.Statement) bool {
	return st.Class == sqlparse.StartGroup || st.Class == sqlparse.StopGroup || st.Has(sqlparse.FlagSetGroupVar|sqlparse.FlagGroupFunc)
}

// adminInfo is info with what Exec and Function need.
func (s *session) adminInfo() SessionInfo {
	who := s.info()
	who.Locked = s.locked
	who.InTransaction = s.xa.open || s.status&wire.StatusInTrans != 0 && (!s.tx.open() || s.tx.explicit || s.tx.touched())
	who.Account = s.account
	return who
}

func (s *session) account() (Account, error) {
	rs, err := s.exec("SELECT CURRENT_USER()", "SHOW GRANTS")
	if err != nil {
		return Account{}, err
	}
	for i := range rs {
		if rs[i].Err != nil {
			return Account{}, rs[i].Err
		}
	}
	var grants []string
	for i := range rs[1].Rows {
		grants = append(grants, rs[1].Str(i, 0))
	}
	return NewAccount(rs[0].Str(0, 0), grants), nil
}

// administer has Admin answer a statement that administers the group. done says
// that the client has its answer.
func (s *session) administer(ctx context.Context, q *stmt) (done bool, err error) {
	st := &q.st
	if administers(st) && !s.inTransaction() {
		s.rest() // or a change of the primary would wait for itself
	}
	switch {
	case st.Class == sqlparse.StartGroup, st.Class == sqlparse.StopGroup:
		return s.startStop(ctx, q)
	case st.Has(sqlparse.FlagSetGroupVar):
		return s.setGroupVars(ctx, q)
	}
	return s.groupFunctions(ctx, q)
}

// adminErr tells the client why Admin refused. The end of the connection to
// mysqld ends the session.
func (s *session) adminErr(q *stmt, err error) (bool, error) {
	if isBackendLost(err) {
		return true, s.lostDuring(q, err)
	}
	return true, s.refuse(q, asServerError(err))
}

func (s *session) startStop(ctx context.Context, q *stmt) (bool, error) {
	text := trimStatement(q.text)
	o := sqlparse.GroupStatement(text, s.mode)
	if o.Near >= 0 {
		// The text up to there holds nothing but the words of the statement.
		return true, s.refuse(q, wire.NewError(erParse, "42000",
			"You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right syntax to use near '%.80s' at line %d",
			text[o.Near:], 1+strings.Count(string(text[:o.Near]), "\n")))
	}
	a := AdminStatement{Class: q.st.Class, Text: string(text), User: s.literalAt(text, o.User), Password: s.literalAt(text, o.Password)}
	s.landed() // or a STOP would wait for itself
	done, err := s.execAdmin(ctx, q, a)
	s.working.Store(!done)
	return done, err
}

func (s *session) literalAt(text []byte, at *sqlparse.Span) *string {
	if at == nil {
		return nil
	}
	v := string(unescape(at.Of(text), s.mode))
	return &v
}

func (s *session) execAdmin(ctx context.Context, q *stmt, a AdminStatement) (bool, error) {
	var said []condition
	a.Warn = func(code uint16, message string) {
		said = append(said, condition{level: "Warning", code: strconv.Itoa(int(code)), message: message, state: "HY000"})
	}
	a.Consistency = func(level string) { s.kept.consistency = level }
	done, err := s.srv.opt.Admin.Exec(ctx, s.adminInfo(), a)
	if err != nil {
		return s.adminErr(q, err)
	}
	if done {
		s.diag = &diagnostics{total: len(said), conditions: said}
		return true, s.sendOK(&wire.OK{Status: s.shownStatus(s.status), Warnings: uint16(len(said))}, q.more)
	}
	return false, nil
}

func (s *session) setGroupVars(ctx context.Context, q *stmt) (bool, error) {
	a := AdminStatement{Class: sqlparse.Set, Text: string(trimStatement(q.text))}
	for _, x := range sqlparse.Assignments(q.text, s.mode) {
		name := strings.ToLower(x.Name)
		if !strings.HasPrefix(name, "group_replication_") {
			// They could not be set all or none.
			return true, s.refuse(q, wire.NewError(erNotSupportedYet, "42000",
				"This version of MySQL doesn't yet support 'variables of the group and others in one SET through cohort'"))
		}
		if x.Scope == "" {
			x.Scope = "SESSION"
		}
		v, err := s.evaluate(ctx, x.Value.Of(q.text), true)
		if err != nil {
			return s.adminErr(q, err)
		}
		a.Set = append(a.Set, Assignment{Scope: x.Scope, Name: name, Value: v})
	}
	if len(a.Set) == 0 {
		return false, nil
	}
	return s.execAdmin(ctx, q, a)
}

// groupFunctions runs the functions that a statement calls. Where the call is all
// there is, the answer is given here, so that it does not depend on the server
// that the session ran on before a switch.
func (s *session) groupFunctions(ctx context.Context, q *stmt) (bool, error) {
	admin := s.srv.opt.Admin
	calls, runs := sqlparse.GroupCalls(q.text, s.mode)
	if len(calls) == 0 {
		return false, nil
	}
	for _, c := range calls {
		if !runs || c.Depth > 0 {
			return true, s.refuse(q, wire.NewError(erNotSupportedYet, "42000",
				"This version of MySQL doesn't yet support '%s() through cohort other than as an item of a SELECT without tables, in DO or in SET'", c.Name))
		}
	}
	texts := make([]string, len(calls))
	for i, c := range calls {
		call := GroupCall{Name: c.Name}
		for _, at := range c.Args {
			v, err := s.evaluate(ctx, at.Of(q.text), false)
			if err != nil {
				return s.adminErr(q, err)
			}
			call.Args = append(call.Args, v)
		}
		result, ok, err := admin.Function(ctx, s.adminInfo(), call)
		switch {
		case err != nil:
			return s.adminErr(q, err)
		case !ok:
			return false, nil // mysqld does not know it either
		case c.Alone:
			charset := s.resultCharset()
			col := wire.Column{Name: c.Title, Charset: charset, Length: 255 * maxCharLen(charset), Type: wire.TypeVarString, Decimals: 31}
			return true, s.sendTable(q, []wire.Column{col}, [][][]byte{{[]byte(result)}})
		}
		texts[i] = "CAST(" + (&replacer{}).literal(result) + " AS CHAR(255))"
	}
	q.text = sqlparse.ReplaceCalls(q.text, s.mode, calls, texts)
	return false, nil
}

// evaluate finds out what an argument is. Literals are read here; mysqld is asked
// for all else that can neither write nor begin a transaction. words says that a word stands
// for itself, like ON in a SET.
func (s *session) evaluate(ctx context.Context, expr []byte, words bool) (Value, error) {
	sc := sqlparse.NewScanner(expr, s.mode)
	t := sc.Next()
	sign := ""
	if t.Kind == sqlparse.Op && string(sc.Text(t)) == "-" {
		sign = "-"
		t = sc.Next()
	}
	if rest := sc.Next(); rest.Kind == sqlparse.EOF {
		text := string(sc.Text(t))
		switch {
		case t.Kind == sqlparse.Number:
			return number(sign + text), nil
		case sign != "":
		case t.Kind == sqlparse.String && (text[0] == '\'' || text[0] == '"'):
			return Value{Kind: sysvar.String, Text: string(unescape([]byte(text), s.mode))}, nil
		case t.Kind == sqlparse.Word:
			switch strings.ToUpper(text) {
			case "NULL":
				return Value{Kind: sysvar.Null, Text: "NULL"}, nil
			case "TRUE":
				return Value{Kind: sysvar.Int, Text: "1"}, nil
			case "FALSE":
				return Value{Kind: sysvar.Int, Text: "0"}, nil
			}
			switch {
			case words && strings.EqualFold(text, "DEFAULT"):
				return Value{Kind: sysvar.Default}, nil
			case words && strings.EqualFold(text, "ON"):
				return Value{Kind: sysvar.String, Text: "ON"}, nil // a keyword
			case words:
				return Value{Kind: sysvar.String, Text: text}, nil
			}
		case t.Kind == sqlparse.Param:
			return Value{}, errUnpreparable
		}
	}
	return s.evaluateOnServer(ctx, expr)
}

func number(text string) Value {
	if strings.ContainsAny(text, ".eE") {
		return Value{Kind: sysvar.Decimal, Text: text}
	}
	return Value{Kind: sysvar.Int, Text: text}
}

func (s *session) evaluateOnServer(ctx context.Context, expr []byte) (Value, error) {
	sql := append([]byte("SELECT "), expr...)
	st := sqlparse.Classify(sql, s.mode)
	tables := st.Has(sqlparse.FlagFrom) && (s.status&wire.StatusAutocommit == 0 || s.xa.open || s.tx.open())
	if st.Rest < len(sql) || st.Has(sqlparse.FlagBad|sqlparse.FlagCall|sqlparse.FlagInto|sqlparse.FlagLocking|sqlparse.FlagGroupFunc) || tables {
		return Value{}, wire.NewError(erNotSupportedYet, "42000", "This version of MySQL doesn't yet support 'such an expression here through cohort; give a literal'")
	}
	r := &replacer{ctx: ctx, admin: s.srv.opt.Admin, who: s.info(), consistency: s.kept.consistency}
	if sql, _ = sqlparse.Rewrite(sql, s.mode, s.schema, r); r.err != nil {
		return Value{}, r.err
	}
	rs, err := s.exec(string(sql))
	if err != nil {
		return Value{}, err
	}
	if rs[0].Err != nil {
		return Value{}, rs[0].Err
	}
	if len(rs[0].Rows) != 1 || len(rs[0].Rows[0]) != 1 {
		return Value{}, wire.NewError(erOperandColumns, "21000", "Operand should contain 1 column(s)")
	}
	v := rs[0].Rows[0][0]
	if v == nil {
		return Value{Kind: sysvar.Null, Text: "NULL"}, nil
	}
	if text := string(v); strings.Trim(strings.TrimPrefix(text, "-"), "0123456789") == "" && text != "" && text != "-" {
		return Value{Kind: sysvar.Int, Text: text}, nil
	}
	return Value{Kind: sysvar.String, Text: string(v)}, nil
}

// resetPersist handles RESET PERSIST of the group's variables, and refuses that of
// what the member has persisted (DESIGN §8): a mysqld whose member is dead must not
// come up writable, or replicating.
func (s *session) resetPersist(ctx context.Context, q *stmt) (done bool, err error) {
	words := upperWords(q.text, s.mode)
	if words[0] != "RESET" || word(words, 1) != "PERSIST" {
		return false, nil
	}
	a := AdminStatement{Class: sqlparse.Maintenance, Text: string(trimStatement(q.text))}
	if len(words) > 2 {
		a.Reset = strings.ToLower(strings.Trim(words[len(words)-1], "`"))
		a.IfExists = word(words, 2) == "IF"
	}
	switch a.Reset {
	case "", "super_read_only", "skip_replica_start":
		return true, s.refuse(q, wire.NewError(erUnknown, "HY000",
			"The member needs super_read_only and skip_replica_start persisted: name another variable that is to be reset"))
	default:
		if !strings.HasPrefix(a.Reset, sysvar.Prefix) {
			return false, nil
		}
	}
	return s.execAdmin(ctx, q, a)
}
