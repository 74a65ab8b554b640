package proxy

import (
	"context"
	"errors"
	"fmt"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// firstOfTx runs a statement with autocommit off and no transaction open:
// [XA START][statement] in one write.
func (s *session) firstOfTx(ctx context.Context, q *stmt) error {
	if q.class() == sqlparse.Call {
		r, err := s.routine(q)
		if err != nil {
			return s.notBegun(err)
		}
		if r.Ends() {
			// What the procedure leaves open is an ordinary transaction.
			return s.direct(ctx, q)
		}
	}
	xid, err := s.newXID()
	if err != nil {
		return s.notBegun(err)
	}
	s.tx = transaction{xid: xid, chars: s.oneShot}
	pre, r, err := s.forward(ctx, []string{xaStart(xid)}, q)
	if err != nil {
		return s.lostInTx(err)
	}
	if pre[0].Err != nil {
		// XA START was refused (work done before it, LOCK TABLES, KILL): the
		// statement ran in an ordinary transaction, which COMMIT will end.
		s.tx = transaction{}
		return s.finishDirect(ctx, q, &r)
	}
	s.oneShot = nil
	return s.finishInTx(ctx, q, &r)
}

// inTx runs a statement inside the wrapped transaction.
func (s *session) inTx(ctx context.Context, q *stmt) error {
	if q.class() == sqlparse.Call {
		return s.callInTx(ctx, q)
	}
	_, r, err := s.forward(ctx, nil, q)
	if err != nil {
		return s.lostInTx(err)
	}
	return s.finishInTx(ctx, q, &r)
}

// lostInTx: the transaction was never prepared, so the server rolls it back.
func (s *session) lostInTx(err error) error {
	switch {
	case errors.Is(err, errOutcome):
		_ = s.sendErr(unknownOutcome("transaction", err))
	case errors.Is(err, errAgain):
	case isBackendLost(err) && !s.answered:
		if s.again(true) {
			return fmt.Errorf("%w: %w", errAgain, err)
		}
		s.tellLost()
	}
	return err
}

const callSavepoint = "cohort call"

// callInTx runs CALL behind a savepoint, so that a procedure that ends the
// transaction by itself, which XA refuses halfway, can be undone and run again
// outside.
//
// A procedure that would hide from us that it was refused is not run in a
// transaction: where that begins nothing is lost by ending it first, otherwise
// the client has to.
func (s *session) callInTx(ctx context.Context, q *stmt) error {
	body, err := s.routine(q)
	if err != nil {
		return s.lostInTx(err)
	}
	if body.Ends() && !s.tx.explicit && !s.tx.touched() {
		if done, err := s.implicitCommit(ctx, q); done || err != nil {
			return err
		}
		return s.direct(ctx, q)
	}
	if swallows(&body) {
		return s.refuse(q, wire.NewError(erNotSupportedYet, "42000",
			"This version of MySQL doesn't yet support 'CALL, inside a transaction, of a procedure that ends transactions and handles errors through cohort; COMMIT first'"))
	}
	_, r, err := s.forward(ctx, []string{"SAVEPOINT `" + callSavepoint + "`"}, q)
	if err != nil {
		return s.lostInTx(err)
	}
	if r.err == nil || r.streamed || r.err.Code != erXARMFail && r.err.Code != erXATemporary {
		return s.finishInTx(ctx, q, &r)
	}
	if r.err.Code == erXARMFail && body.RollsBack && !body.Begins {
		// It was ROLLBACK that was refused: the transaction is rolled back, as
		// the procedure wants, but it cannot go on behind that.
		q.failed = true
		return s.cleanUp(r.err)
	}
	if _, err := s.exec("ROLLBACK TO SAVEPOINT `" + callSavepoint + "`"); err != nil {
		return s.lostInTx(err)
	}
	return s.refusedByXA(ctx, q, &r)
}

func (s *session) finishInTx(ctx context.Context, q *stmt, r *reply) error {
	if r.err == nil {
		if e := s.settleDirect(ctx, "statement"); e != nil { // of an earlier CALL that failed
			return s.refuse(q, e)
		}
		if s.unlogged {
			return firstErr(s.refuse(q, unloggedError()), errClose)
		}
		if err := s.after(q); err != nil {
			return err
		}
		return s.sendFinal(r, q.more)
	}
	if s.fenced(r.err) {
		return s.leaveFenced(q)
	}
	s.tx.blind = true
	q.failed = true
	switch r.err.Code {
	case erXARMFail, erXATemporary:
		if !r.streamed && !s.xa.open {
			q.failed = false
			return s.refusedByXA(ctx, q, r)
		}
	case 1062, 1064, 1146, 1054, 1048, 1406, 1364, 1451, 1452, 1366, 1292, 1305, 1365, 1690, 1644:
		return s.sendErr(r.err) // undoes its statement only
	}
	if r.err.Code != erXARMFail {
		rolledBack, err := s.rolledBack(r.err.Code)
		if err != nil {
			return s.lostInTx(err)
		}
		if rolledBack {
			return s.cleanUp(r.err)
		}
	}
	return s.sendErr(r.err)
}

// rolledBack finds out whether an error rolled back the whole transaction.
func (s *session) rolledBack(code uint16) (bool, error) {
	if code == erLockDeadlock {
		return true, nil
	}
	ok, err := s.ping()
	if err != nil {
		return false, err
	}
	return ok.Status&wire.StatusInTrans == 0, nil
}

// cleanUp leaves the state ROLLBACK ONLY after the server rolled back, keeping
// what SHOW WARNINGS will say.
func (s *session) cleanUp(e *wire.ServerError) error {
	res, err := s.rollbackTx("SHOW WARNINGS")
	if err != nil {
		return s.lostInTx(err)
	}
	s.status = res.ok.Status
	s.diag = newDiagnostics(&reply{err: e}, &res.pre[0])
	return s.sendErr(e)
}

// refusedByXA handles a statement that XA does not let into a transaction, and
// that had no effect: what commits implicitly (1399) and what uses a temporary
// table (4091).
func (s *session) refusedByXA(ctx context.Context, q *stmt, r *reply) error {
	if r.err.Code == erXATemporary {
		return s.switchToPlain(ctx, q)
	}
	if q.execute && !q.known {
		// It may be a COMMIT or a ROLLBACK: refuse rather than guess.
		q.failed = true
		return s.sendErr(r.err)
	}
	// The server itself says that this statement ends the transaction first, as
	// it would have done to an ordinary one.
	res, err := s.commitTx(ctx)
	if err != nil {
		return s.lostInTx(err)
	}
	if res.err != nil {
		if err := s.refuse(q, res.err); err != nil || res.lost {
			return firstErr(err, ErrBackendLost)
		}
		return nil
	}
	if res.lost {
		_ = s.sendErr(unknownOutcome("statement", ErrBackendLost))
		return ErrBackendLost
	}
	s.status = res.ok.Status &^ (wire.StatusInTrans | wire.StatusInTransReadonly)
	return s.direct(ctx, q)
}

// switchToPlain runs a transaction that meets a temporary table as an ordinary
// one. That is sound while it has touched nothing; afterwards the client is
// asked to start again, and the next try runs as an ordinary transaction from
// its beginning.
func (s *session) switchToPlain(ctx context.Context, q *stmt) error {
	tx := s.tx
	tx.blind = false // the error said 4091 before it did anything
	touched := tx.touched()
	if _, err := s.rollbackTx(); err != nil {
		return s.lostInTx(err)
	}
	s.status &^= wire.StatusInTrans | wire.StatusInTransReadonly
	s.owed = stateNone
	if touched {
		s.unwrapNext = true
		return s.refuse(q, wire.NewError(erLockDeadlock, "40001",
			"The transaction was rolled back because it came to use a temporary table, which needs another kind of transaction from its start; try restarting transaction"))
	}
	s.tempUnnamed = true
	if tx.explicit {
		rs, err := s.exec(append(tx.chars, "START TRANSACTION")...)
		if err != nil {
			return s.lostInTx(err)
		}
		if e := firstError(rs); e != nil {
			// Without a transaction the statement would commit by itself.
			return s.refuse(q, asServerError(e))
		}
		s.status |= wire.StatusInTrans
	}
	return s.direct(ctx, q)
}
