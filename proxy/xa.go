package proxy

import (
	"bytes"
	"context"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// clientBranch is the XA branch a client opened. It runs under an xid of ours:
// the client's own xid never reaches the server, and no client's XA statement
// can name another session's branch.
type clientBranch struct {
	open bool
	idle bool // XA END was given
	xid  []byte
}

// sameXID compares xids as they are spelled, white space aside.
func sameXID(a, b []byte) bool {
	strip := func(x []byte) []byte {
		return bytes.Map(func(r rune) rune {
			if r == ' ' || r == '\t' || r == '\n' || r == '\r' {
				return -1
			}
			return r
		}, x)
	}
	return bytes.Equal(strip(a), strip(b))
}

// refuse answers with an error that the server did not say itself.
func (s *session) refuse(q *stmt, e *wire.ServerError) error {
	q.failed = true
	s.diag = &diagnostics{rowCount: -1, total: 1, conditions: []condition{errorCondition(e)}}
	return s.sendErr(e)
}

// clientXA handles a client's XA statement while it has no branch open.
func (s *session) clientXA(ctx context.Context, q *stmt, st *sqlparse.Statement) error {
	if st.Class == sqlparse.XAEnd || st.Class == sqlparse.XAPrepare {
		return s.refuse(q, xaError(erXARMFail, "NON-EXISTING"))
	}
	if st.Class != sqlparse.XAStart {
		// XA COMMIT and XA ROLLBACK of anything but one's own branch.
		return s.refuse(q, xaError(erXANotA, ""))
	}
	if st.Has(sqlparse.FlagXAOption) {
		return s.refuse(q, xaError(erXAInval, ""))
	}
	if s.tx.open() && (s.tx.explicit || s.tx.touched()) || s.plain() && !s.temporary() {
		return s.refuse(q, xaError(erXAOutside, ""))
	}
	if s.tx.open() {
		if _, err := s.rollbackTx(); err != nil {
			return s.lostInTx(err)
		}
	}
	xid := append([]byte(nil), st.Name.Of(q.text)...)
	started, err := s.open(q, false, nil)
	if started {
		s.xa = clientBranch{open: true, xid: xid}
	}
	return err
}

// inClientXA handles every statement while a client's branch is open.
func (s *session) inClientXA(ctx context.Context, q *stmt) error {
	st := q.effective()
	own := func() bool { return sameXID(s.xa.xid, st.Name.Of(q.text)) }
	state := "ACTIVE"
	if s.xa.idle {
		state = "IDLE"
	}
	switch st.Class {
	case sqlparse.XAStart:
		return s.refuse(q, xaError(erXARMFail, state))
	case sqlparse.XAEnd:
		switch {
		case s.xa.idle:
			return s.refuse(q, xaError(erXARMFail, state))
		case !own():
			return s.refuse(q, xaError(erXANotA, ""))
		case st.Has(sqlparse.FlagXAOption):
			return s.refuse(q, xaError(erXAInval, ""))
		}
		rs, err := s.exec(xaEnd(s.tx.xid))
		if err != nil {
			return s.lostInTx(err)
		}
		s.xa.idle, s.tx.ended = true, true
		if rs[0].Err != nil {
			return s.refuse(q, asServerError(rs[0].Err))
		}
		return s.sendOK(&wire.OK{Status: s.shownStatus(s.status)}, q.more)
	case sqlparse.XAPrepare:
		return s.refuse(q, wire.NewError(erNotSupportedYet, "42000",
			"This version of MySQL doesn't yet support 'XA PREPARE through cohort, whose own commit is a two-phase one; use XA COMMIT ... ONE PHASE'"))
	case sqlparse.XACommit, sqlparse.XARollback:
		return s.endClientXA(ctx, q, st, own(), state)
	case sqlparse.Begin, sqlparse.Commit, sqlparse.Rollback:
		return s.refuse(q, xaError(erXARMFail, state))
	}
	_, r, err := s.forward(ctx, nil, q)
	if err != nil {
		return s.lostInTx(err)
	}
	return s.finishInTx(ctx, q, &r)
}

func (s *session) endClientXA(ctx context.Context, q *stmt, st *sqlparse.Statement, own bool, state string) error {
	switch {
	case !own:
		return s.refuse(q, xaError(erXANotA, ""))
	case !s.xa.idle, st.Class == sqlparse.XACommit && !st.Has(sqlparse.FlagOnePhase):
		return s.refuse(q, xaError(erXARMFail, state))
	}
	s.xa = clientBranch{}
	var res settled
	var err error
	if st.Class == sqlparse.XACommit {
		res, err = s.commitTx(ctx)
	} else {
		res, err = s.rollbackTx()
	}
	if err != nil {
		return s.lostInTx(err)
	}
	s.status = res.ok.Status &^ (wire.StatusInTrans | wire.StatusInTransReadonly)
	if res.err != nil {
		return firstErr(s.refuse(q, res.err), lostIf(res.lost))
	}
	return firstErr(s.sendOK(&wire.OK{Status: s.shownStatus(s.status)}, q.more), lostIf(res.lost))
}
