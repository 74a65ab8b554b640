package proxy

import (
	"context"
	"fmt"

	"cohort/internal/mysqlversion"
	"cohort/internal/wire"
	"cohort/sqlparse"
)

// stmt is one statement on its way: from COM_QUERY, or the execution of a
// prepared one.
type stmt struct {
	st sqlparse.Statement
	// text is the statement's text; for EXECUTE that of EXECUTE.
	text []byte
	// query: it is sent as a COM_QUERY with text; otherwise the client's
	// command is forwarded as it is.
	query bool
	// inner is what an EXECUTE executes; its class decides. known is false
	// where that was never seen.
	inner     sqlparse.Statement
	innerText []byte
	known     bool
	// targets are what a prepared statement writes, where that matters.
	targets []sqlparse.TableName
	execute bool
	// effects are those of what an EXECUTE executes.
	effects effects
	// binary is the statement that COM_STMT_EXECUTE executes, payload the command
	// that is sent in place of the client's own; nil is none.
	binary  *preparedStatement
	payload []byte
	// more: another statement of the same text follows.
	more bool
	// failed is set once an ERR packet was sent for it.
	failed bool
}

// class is the class that decides what happens.
func (q *stmt) class() sqlparse.Class {
	if q.execute {
		return q.inner.Class
	}
	return q.st.Class
}

// effective is the statement that decides what happens.
func (q *stmt) effective() *sqlparse.Statement {
	if q.execute {
		return &q.inner
	}
	return &q.st
}

// effectiveText is the text of effective, as far as it was kept.
func (q *stmt) effectiveText() []byte {
	if q.execute {
		return q.innerText
	}
	return q.text
}

// startsTx reports whether, with autocommit off, a statement may begin a
// transaction, so that XA START has to come before it.
func startsTx(st *sqlparse.Statement) bool {
	switch st.Class {
	case sqlparse.Read, sqlparse.DML, sqlparse.LoadData, sqlparse.Call, sqlparse.Do, sqlparse.Handler,
		sqlparse.Savepoint, sqlparse.Unknown:
		return true
	case sqlparse.Set:
		return st.Has(sqlparse.FlagFrom | sqlparse.FlagCall)
	}
	return false
}

// wraps reports whether a statement in autocommit mode runs as a transaction
// of its own. What is not wrapped and writes all the same is held back by the
// GTID in its reply.
func wraps(c sqlparse.Class) bool {
	return c == sqlparse.DML || c == sqlparse.LoadData || c == sqlparse.Call
}

// run runs one statement and answers the client. The error ends the session.
func (s *session) run(ctx context.Context, q *stmt) error {
	blank := s.blank
	s.blank, s.stateChanged = false, false
	err := s.repeat(ctx, q, func() error {
		if q.binary != nil {
			if done, err := s.ready(q); done || err != nil {
				return err
			}
		}
		if st := q.effective(); blank && s.diag == nil && (st.Class == sqlparse.Diagnostics || st.Has(sqlparse.FlagRowCount|sqlparse.FlagDiagVar)) {
			return s.refuse(q, wire.NewError(erUnknown, "HY000", "The diagnostics of the last statement were lost with the primary's server"))
		}
		return s.dispatch(ctx, q)
	})
	if q.binary != nil {
		q.binary.long = false
	}
	if err == nil {
		err = s.keep(q)
	}
	if err == nil && s.untracked && !s.tx.open() && s.status&wire.StatusInTrans == 0 {
		return s.retrack()
	}
	return err
}

func (s *session) dispatch(ctx context.Context, q *stmt) error {
	st := q.effective()
	s.harmless.Store(s.outside && !s.begins(st))
	d := s.diag
	if st.Class != sqlparse.Diagnostics {
		s.diag = nil
	}
	if q.query {
		if done, err := s.special(ctx, q, d); done || err != nil {
			return err
		}
	}
	if s.backend.Local && s.backend.Epoch == 0 && s.srv.opt.Group.Adrift() && !s.administers(q, st) {
		return s.refuse(q, wire.NewError(erUnknown, "HY000",
			"The group has no majority and its primary cannot be reached; the statement was not run (group_replication_force_members is for a majority that is lost for good)"))
	}
	if !s.mayWrite(q) {
		return s.refuse(q, errNotCompliant)
	}
	if !s.isFresh() && s.readsTables(q) {
		if done, err := s.awaitFresh(ctx, q); done || err != nil {
			return err
		}
	}
	if !s.parted.IsZero() && s.readsTables(q) {
		if done, err := s.mayRead(q); done || err != nil {
			return err
		}
	}
	if s.xa.open {
		return s.inClientXA(ctx, q)
	}
	switch st.Class {
	case sqlparse.Begin:
		return s.begin(ctx, q, st)
	case sqlparse.Commit, sqlparse.Rollback:
		return s.end(ctx, q, st)
	case sqlparse.XAStart, sqlparse.XAEnd, sqlparse.XAPrepare, sqlparse.XACommit, sqlparse.XARollback:
		return s.clientXA(ctx, q, st)
	case sqlparse.SetTransaction:
		if s.tx.open() && !s.tx.explicit && !s.tx.touched() {
			// With autocommit off nothing has begun yet in the client's eyes.
			if _, err := s.commitTx(ctx); err != nil {
				return err
			}
		}
	}
	switch {
	case s.tx.open():
		return s.inTx(ctx, q)
	case s.plain() && !s.sparesTemporary(q):
		return s.direct(ctx, q)
	case s.status&wire.StatusAutocommit == 0:
		if startsTx(st) {
			return s.firstOfTx(ctx, q)
		}
	case wraps(st.Class):
		return s.autocommit(ctx, q)
	}
	return s.direct(ctx, q)
}

// administers reports whether a statement is of use while the group is out of reach:
// to look at the group, or for a client to get on with that. It reads no table but
// the group's.
func (s *session) administers(q *stmt, st *sqlparse.Statement) bool {
	switch st.Class {
	case sqlparse.Set, sqlparse.Use, sqlparse.Diagnostics, sqlparse.SetTransaction, sqlparse.Empty,
		sqlparse.Begin, sqlparse.Commit, sqlparse.Rollback, sqlparse.Prepare, sqlparse.Deallocate:
		return true
	case sqlparse.Read:
		return q.query && (q.st.Has(sqlparse.FlagGroupTable|sqlparse.FlagGroupVar|sqlparse.FlagShowVars) ||
			tableless(q.text, s.mode))
	}
	return false
}

// tableless recognises a SELECT that names no table, as clients send some when they
// connect.
func tableless(text []byte, mode sqlparse.Mode) bool {
	sc := sqlparse.NewScanner(text, mode)
	return foldEqual(sc.Text(sc.Next()), "SELECT") && !mentions(text, mode, "SELECT", "FROM", "TABLE")
}

// plain reports whether the session is in, or has to use, ordinary
// transactions, whose final replies are held back by their GTIDs: READ ONLY
// ones, LOCK TABLES sections, sessions with temporary tables (XA refuses them).
func (s *session) plain() bool {
	return s.locked || s.temporary() || s.unwrapNext || s.status&wire.StatusInTrans != 0
}

// special handles what mysqld must not see as it is. done says that the client
// has its answer.
func (s *session) special(ctx context.Context, q *stmt, d *diagnostics) (done bool, err error) {
	st := &q.st
	if e := s.whileRunning(q); e != nil {
		return true, s.refuse(q, e)
	}
	if st.Has(sqlparse.FlagForbidden) {
		return true, s.refuse(q, wire.NewError(erAccessDenied, "42000",
			"Access denied; the variable '%s' decides what the group replicates and cannot be set through cohort (dumps: use --set-gtid-purged=OFF)",
			st.Name.Of(q.text)))
	}
	if st.Class == sqlparse.Maintenance && s.srv.opt.Admin != nil {
		if done, err := s.resetPersist(ctx, q); done || err != nil {
			return done, err
		}
	}
	if st.Class == sqlparse.Maintenance && mentions(q.text, s.mode, "RESET", "MASTER", "BINARY") {
		return true, s.refuse(q, wire.NewError(erResetLogs, "HY000",
			"%s is not allowed because Group Replication is running.", mysqlversion.Version(s.mode.Version).ResetBinlogs()))
	}
	if d != nil {
		if st.Class == sqlparse.Diagnostics {
			if done, err := s.diagnosticsStatement(ctx, q, d); done || err != nil {
				return done, err
			}
			s.diag = nil // an error of its own takes their place
		}
	}
	admin := s.srv.opt.Admin
	if admin != nil && concernsGroup(st) {
		if done, err := s.administer(ctx, q); done || err != nil {
			return done, err
		}
	}
	if admin != nil && st.Has(sqlparse.FlagShowVars|sqlparse.FlagShowStatus) {
		s.showVariables(ctx, q)
	}
	if st.Has(sqlparse.FlagGroupTable|sqlparse.FlagSharedTable|sqlparse.FlagGroupVar) && admin != nil ||
		st.Has(sqlparse.FlagRowCount|sqlparse.FlagDiagVar) && d != nil {
		r := &replacer{ctx: ctx, admin: admin, who: s.info(), consistency: s.kept.consistency, diag: d}
		q.text, _ = sqlparse.Rewrite(q.text, s.mode, s.schema, r)
		if r.err != nil {
			return true, s.refuse(q, asServerError(r.err))
		}
	}
	return false, nil
}

// direct runs a statement as it is. If its reply says that something was
// committed under a local GTID, the client is answered once the group has
// ordered it.
func (s *session) direct(ctx context.Context, q *stmt) error {
	if done, err := s.certain(ctx, q); done || err != nil {
		return err
	}
	_, r, err := s.forward(ctx, nil, q)
	if err != nil {
		return s.lostDuring(q, err)
	}
	return s.finishDirect(ctx, q, &r)
}

// lostDuring answers the client when the backend went away under a statement
// that was not wrapped.
func (s *session) lostDuring(q *stmt, err error) error {
	if !isBackendLost(err) {
		return err
	}
	if s.again(false) {
		return fmt.Errorf("%w: %w", errAgain, err)
	}
	switch q.class() {
	case sqlparse.Read, sqlparse.Set, sqlparse.Use, sqlparse.Diagnostics, sqlparse.Begin, sqlparse.Rollback,
		sqlparse.Prepare, sqlparse.Deallocate, sqlparse.Handler, sqlparse.Savepoint, sqlparse.RollbackTo:
		s.tellLost()
	case sqlparse.DML:
		if s.status&wire.StatusInTrans != 0 {
			s.tellLost()
			break
		}
		fallthrough
	default:
		_ = s.sendErr(unknownOutcome("statement", ErrBackendLost))
	}
	return err
}

func (s *session) finishDirect(ctx context.Context, q *stmt, r *reply) error {
	if e := s.settleDirect(ctx, "statement"); e != nil {
		return s.refuse(q, e)
	}
	if s.fenced(r.err) {
		return s.leaveFenced(q)
	}
	if r.err != nil {
		q.failed = true
		return s.sendErr(r.err)
	}
	if s.unlogged {
		return firstErr(s.refuse(q, unloggedError()), errClose)
	}
	if err := s.after(q); err != nil {
		return err
	}
	return s.sendFinal(r, q.more)
}

// after keeps the session's state after a statement succeeded outside a
// wrapped transaction, or inside.
func (s *session) after(q *stmt) error {
	st := q.effective()
	s.noteTemporary(q)
	switch st.Class {
	case sqlparse.DDL:
		s.routines = nil // it may have made one anew
	case sqlparse.LockTables:
		s.locked = true
	case sqlparse.UnlockTables:
		s.locked = false
	case sqlparse.Maintenance:
		// A global read lock is not one of LOCK TABLES: BEGIN keeps it, and XA
		// does not mind.
		text := q.effectiveText()
		if mentions(text, s.mode, "FLUSH", "LOCK", "EXPORT") && !globalReadLock(text, s.mode) {
			s.locked = true
		}
	case sqlparse.SetTransaction:
		if st.Has(sqlparse.FlagOneShot) {
			s.oneShot = append(s.oneShot, string(trimStatement(q.effectiveText())))
		}
		return nil
	case sqlparse.Set:
		if st.Has(sqlparse.FlagTrackers) {
			return s.trackersChanged()
		}
		return nil
	case sqlparse.Deallocate:
		s.forget(q)
	}
	if !s.tx.open() && s.status&wire.StatusInTrans == 0 && st.Class != sqlparse.Set && st.Class != sqlparse.Use {
		s.oneShot = nil // the statement was a transaction of its own
	}
	return nil
}

// mentions reports whether text begins with a word and holds one of others: FLUSH
// TABLES t WITH READ LOCK and FOR EXPORT, for instance, lock like LOCK TABLES.
func mentions(text []byte, mode sqlparse.Mode, first string, others ...string) bool {
	sc := sqlparse.NewScanner(text, mode)
	if !foldEqual(sc.Text(sc.Next()), first) {
		return false
	}
	for t := sc.Next(); t.Kind != sqlparse.EOF; t = sc.Next() {
		for _, o := range others {
			if t.Kind == sqlparse.Word && foldEqual(sc.Text(t), o) {
				return true
			}
		}
	}
	return false
}

// globalReadLock recognises FLUSH TABLES WITH READ LOCK without tables.
func globalReadLock(text []byte, mode sqlparse.Mode) bool {
	sc := sqlparse.NewScanner(text, mode)
	for t := sc.Next(); t.Kind == sqlparse.Word; t = sc.Next() {
		if w := sc.Text(t); foldEqual(w, "TABLES") || foldEqual(w, "TABLE") {
			return foldEqual(sc.Text(sc.Next()), "WITH")
		}
	}
	return false
}
