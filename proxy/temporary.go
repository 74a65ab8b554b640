package proxy

import (
	"bytes"
	"strings"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// XA lets no statement touch a temporary table (4091). A session that has some runs
// its transactions as ordinary ones, which mysqld commits before the group has
// ordered them. So it does no more often than it has to; where this file is wrong
// about what a statement touches, mysqld says so, and it runs again.

// temporary reports whether the session has temporary tables: those whose names are
// known, and any that XA refused a statement for, which were renamed, or made by a
// routine.
func (s *session) temporary() bool { return len(s.tempTables) > 0 || s.tempUnnamed }

// noteTemporary follows the session's temporary tables. When the last one is gone,
// its transactions are wrapped again.
func (s *session) noteTemporary(q *stmt) {
	st, text := q.effective(), q.effectiveText()
	qualify := func(t sqlparse.TableName) string {
		if t.Schema == "" {
			t.Schema = s.schema
		}
		return tableKey(t)
	}
	switch {
	case st.Class == sqlparse.CreateTemporary && st.Name.End > len(text):
		s.tempUnnamed = true
	case st.Class == sqlparse.CreateTemporary:
		if s.tempTables == nil {
			s.tempTables = make(map[string]struct{})
		}
		s.tempTables[qualify(sqlparse.SplitName(bytes.TrimSpace(st.Name.Of(text)), s.mode))] = struct{}{}
	case len(s.tempTables) > 0 && (st.Class == sqlparse.DropTemporary || st.Class == sqlparse.DDL):
		for _, t := range sqlparse.DroppedTables(text, s.mode) {
			delete(s.tempTables, qualify(t))
		}
	}
}

// sparesTemporary reports whether a statement, of a session that has temporary tables
// and is in no transaction, stands by itself and names none of them: it is wrapped as
// in any session.
func (s *session) sparesTemporary(q *stmt) bool {
	if s.tempUnnamed || len(s.tempTables) == 0 || s.locked || s.unwrapNext || q.class() != sqlparse.DML ||
		s.status&wire.StatusInTrans != 0 || s.status&wire.StatusAutocommit == 0 {
		return false
	}
	text := q.effectiveText()
	sc := sqlparse.NewScanner(text, s.mode)
	for t := sc.Next(); t.Kind != sqlparse.EOF; t = sc.Next() {
		if t.Kind != sqlparse.Word && t.Kind != sqlparse.Quoted {
			continue
		}
		word := strings.ToLower(sqlparse.SplitName(sc.Text(t), s.mode).Name)
		for key := range s.tempTables {
			if strings.HasSuffix(key, "\x00"+word) {
				return false
			}
		}
	}
	return len(text) > 0
}
