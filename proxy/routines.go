package proxy

import (
	"strings"

	"cohort/sqlparse"
)

// XA refuses what ends a transaction inside a procedure, and a handler of the
// procedure's may swallow that: it would be answered with success and have done
// nothing. So the body of a procedure is read before its first call, as far as
// the session may see it.

const (
	// maxRoutines bounds what a session remembers, and maxNested the procedures
	// that are looked at for one call.
	maxRoutines = 1024
	maxNested   = 32
)

// routine tells what the procedure of a CALL does to transactions, those it calls
// included. The zero value is nothing, or nothing that could be seen.
func (s *session) routine(q *stmt) (sqlparse.Routine, error) {
	key := s.callName(q)
	if r, ok := s.routines[key]; ok {
		return r, nil
	}
	st, text := q.effective(), q.effectiveText()
	var all sqlparse.Routine
	if st.Name.End > len(text) || st.Name.Start >= st.Name.End {
		return all, nil
	}
	todo := []sqlparse.TableName{sqlparse.SplitName(st.Name.Of(text), s.mode)}
	if todo[0].Schema == "" {
		todo[0].Schema = s.schema
	}
	seen := map[string]bool{}
	for len(todo) > 0 && len(seen) < maxNested {
		next := todo[0]
		todo = todo[1:]
		if k := tableKey(next); next.Name == "" || seen[k] {
			continue
		} else {
			seen[k] = true
		}
		r, err := s.readRoutine(next)
		if err != nil {
			return all, err
		}
		all.Begins = all.Begins || r.Begins
		all.RollsBack = all.RollsBack || r.RollsBack
		all.Handles = all.Handles || r.Handles
		all.Dynamic = all.Dynamic || r.Dynamic
		for _, c := range r.Calls {
			if c.Schema == "" {
				c.Schema = next.Schema
			}
			todo = append(todo, c)
		}
	}
	if s.routines == nil || len(s.routines) >= maxRoutines {
		s.routines = make(map[string]sqlparse.Routine)
	}
	s.routines[key] = all
	return all, nil
}

// readRoutine reads the body of one procedure. SHOW CREATE leaves transactions
// alone, unlike a query of information_schema, which begins one with autocommit
// off and takes a snapshot.
func (s *session) readRoutine(name sqlparse.TableName) (sqlparse.Routine, error) {
	quote := func(n string) string { return "`" + strings.ReplaceAll(n, "`", "``") + "`" }
	sql := "SHOW CREATE PROCEDURE "
	if name.Schema != "" {
		sql += quote(name.Schema) + "."
	}
	rs, err := s.exec(sql + quote(name.Name))
	if err != nil || rs[0].Err != nil {
		return sqlparse.Routine{}, err
	}
	v, sqlMode := &rs[0], rs[0].Str(0, 1)
	mode := s.mode
	mode.ANSIQuotes = strings.Contains(sqlMode, "ANSI_QUOTES")
	mode.NoBackslashEscapes = strings.Contains(sqlMode, "NO_BACKSLASH_ESCAPES")
	return sqlparse.RoutineBody([]byte(v.Str(0, 2)), mode), nil
}

// swallows reports whether a procedure that ends transactions may hide from its
// caller that it could not.
func swallows(r *sqlparse.Routine) bool { return r.Begins && r.Handles }
