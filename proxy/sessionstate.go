package proxy

import (
	"strconv"
	"strings"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// maxState bounds what a session remembers to be built again elsewhere: values
// of variables and texts of prepared statements.
const maxState = 1 << 20

// kept is what a session has to have again on another server, as far as the
// session's other fields do not hold it.
type kept struct {
	vars map[string]string // system variables that were changed, by name
	// userVars are user variables by lower-case name: what to assign, or "" for a
	// value that only the server knows.
	userVars map[string]string
	role     string // the last SET ROLE
	// consistency is what the session has set group_replication_consistency to, ""
	// while the member's counts.
	consistency string
	insertID    uint64 // LAST_INSERT_ID()
	memory      int
	handlers    int // HANDLERs opened and not closed
	// taint says why the session cannot be built again, "" if it can.
	taint string
	// literals: a user variable was assigned a string literal, whose meaning
	// depends on character set and sql_mode.
	literals bool
}

// spend takes n bytes of the session's budget.
func (k *kept) spend(n int) bool {
	if k.memory += n; k.memory > maxState {
		k.spoil("it has more variables and prepared statements than are remembered")
		return false
	}
	return true
}

func (k *kept) spoil(why string) {
	if k.taint == "" {
		k.taint = why
	}
}

// dependent are variables that follow others, that the proxy sets by itself, or
// that hold for one statement only.
func dependent(name string) bool {
	switch name {
	case "character_set_database", "collation_database", "statement_id", "sql_log_bin", "insert_id", "rand_seed1", "rand_seed2",
		"pseudo_thread_id", "last_insert_id", "identity":
		return true
	}
	return strings.HasPrefix(name, "session_track_")
}

// setVar remembers a system variable's value.
func (k *kept) setVar(name, value string) {
	if name == "last_insert_id" {
		k.insertID, _ = strconv.ParseUint(value, 10, 64)
	}
	if dependent(name) {
		return
	}
	if k.literals && (name == "sql_mode" || strings.HasPrefix(name, "character_set_") || name == "collation_connection") && k.vars[name] != value {
		for n, v := range k.userVars {
			if v != "" && !numeric(v) {
				k.userVars[n] = ""
			}
		}
	}
	old, known := k.vars[name]
	grown := len(value) - len(old)
	if !known {
		grown += len(name)
	}
	if !k.spend(grown) {
		return
	}
	if k.vars == nil {
		k.vars = make(map[string]string)
	}
	k.vars[name] = value
	if name == "character_set_connection" {
		delete(k.vars, "collation_connection") // it is this one's default again
	}
}

// setUserVar remembers a user variable: the SQL of its value, "" if unknown.
func (k *kept) setUserVar(name, sql string) {
	old, known := k.userVars[name]
	grown := len(sql) - len(old)
	if !known {
		grown += len(name)
	}
	if !k.spend(grown) {
		return
	}
	if k.userVars == nil {
		k.userVars = make(map[string]string)
	}
	k.userVars[name] = sql
	if sql != "" && !numeric(sql) {
		k.literals = true
	}
}

// keep notes what a statement did to the session, after it ran. The error is
// about the connection.
func (s *session) keep(q *stmt) error {
	st := q.effective()
	k := &s.kept
	e := q.effects
	if !q.execute {
		e = effectsOf(st, q.text, s.mode)
	}
	for _, a := range e.vars {
		if q.failed {
			a.sql = ""
		}
		k.setUserVar(a.name, a.sql)
	}
	switch {
	case e.locks && !e.unlocks:
		k.spoil("it used locks by name (GET_LOCK)")
	case e.unlocks && strings.Contains(k.taint, "GET_LOCK") && !q.failed:
		k.taint = ""
	}
	changed := s.stateChanged
	s.stateChanged = false
	if q.failed {
		return nil
	}
	switch st.Class {
	case sqlparse.Handler:
		switch text := q.effectiveText(); {
		case foldEqual(lastWord(text, s.mode), "CLOSE") && k.handlers > 0:
			k.handlers--
		case mentions(text, s.mode, "HANDLER", "OPEN"):
			k.handlers++
		}
	case sqlparse.LockInstance:
		k.spoil("it used LOCK INSTANCE")
	case sqlparse.Maintenance:
		if mentions(q.effectiveText(), s.mode, "FLUSH", "LOCK") {
			k.spoil("it used FLUSH TABLES WITH READ LOCK")
		}
	case sqlparse.Unknown:
		if q.execute && !q.known {
			k.spoil("it used a prepared statement that is not remembered")
		}
	case sqlparse.Set:
		text := q.effectiveText()
		sc := sqlparse.NewScanner(text, s.mode)
		sc.Next()
		if foldEqual(sc.Text(sc.Next()), "ROLE") {
			if k.spend(len(text) - len(k.role)) {
				k.role = string(trimStatement(text))
			}
			return nil
		}
		return s.readVars(e.sysVars)
	case sqlparse.Read, sqlparse.DML, sqlparse.LoadData, sqlparse.Call, sqlparse.Do:
		// By itself such a statement changes nothing that the server tells of.
		if changed {
			k.spoil("a stored routine or trigger changed user variables, made temporary tables or ran in another schema")
		}
	}
	return nil
}

// lastWord is the last word of a statement.
func lastWord(text []byte, mode sqlparse.Mode) []byte {
	sc := sqlparse.NewScanner(text, mode)
	var last []byte
	for t := sc.Next(); t.Kind != sqlparse.EOF && t.Kind != sqlparse.Semi; t = sc.Next() {
		if t.Kind == sqlparse.Word {
			last = sc.Text(t)
		}
	}
	return last
}

// readVars asks for the values of system variables that the session does not
// follow.
func (s *session) readVars(names []string) error {
	for _, n := range names {
		// SET NAMES does not tell its collation.
		if listed(s.followed, n) && n != "collation_connection" || dependent(n) || n == "names" || n == "character" || n == "charset" || strings.ContainsAny(n, "`'\" ") {
			continue
		}
		rs, err := s.exec("SELECT CONCAT('', @@SESSION.`" + n + "`)")
		if err != nil {
			return err
		}
		if rs[0].Err == nil && len(rs[0].Rows) == 1 {
			s.kept.setVar(n, rs[0].Str(0, 0))
		}
	}
	return nil
}

// noteState keeps what a closing packet says about the session.
func (s *session) noteState(ok *wire.OK) {
	if ok.InsertID != 0 {
		s.kept.insertID = ok.InsertID
	}
}
