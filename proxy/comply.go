package proxy

import (
	"strings"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// Compliance tells which tables the group cannot replicate: those that are not
// InnoDB's, and those without a primary key or a unique key over columns that
// are NOT NULL. Writes to them are refused before they run. What writes such a
// table in another way (through a view, a trigger, a routine) is left to the
// certification of what was logged.
type Compliance interface {
	// Refused reports whether schema.table, spelled as in the statement, may not
	// be written.
	Refused(schema, table string) bool
	// Any is false while there is no such table; it is asked for every
	// statement that writes.
	Any() bool
}

var errNotCompliant = &wire.ServerError{Code: erNotCompliant, State: "HY000",
	Message: "The table does not comply with the requirements by an external plugin."}

// targets are the tables a statement writes, by the default schema of now.
func (s *session) targets(st *sqlparse.Statement, text []byte) []sqlparse.TableName {
	if s.srv.opt.Compliance == nil || st.Class != sqlparse.DML && st.Class != sqlparse.LoadData {
		return nil
	}
	list := sqlparse.WriteTargets(text, s.mode)
	for i := range list {
		if list[i].Schema == "" {
			list[i].Schema = s.schema
		}
	}
	return list
}

// mayWrite reports whether none of the tables a statement writes is refused. The
// session's temporary tables hide others of their names.
func (s *session) mayWrite(q *stmt) bool {
	c := s.srv.opt.Compliance
	if c == nil {
		return true
	}
	st := q.effective()
	if st.Class != sqlparse.DML && st.Class != sqlparse.LoadData || !c.Any() {
		return true
	}
	list := q.targets // PREPARE bound names to the default schema of then
	if !q.execute {
		list = s.targets(st, q.text)
	}
	for _, t := range list {
		if _, hidden := s.tempTables[tableKey(t)]; !hidden && c.Refused(t.Schema, t.Name) {
			return false
		}
	}
	return true
}

func tableKey(t sqlparse.TableName) string { return strings.ToLower(t.Schema + "\x00" + t.Name) }
