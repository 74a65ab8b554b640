package proxy

import (
	"context"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// autocommit runs a statement as a wrapped transaction of its own:
// most in a burst, and others by [XA START][statement], then [XA END][XA PREPARE] and the group's verdict; the
// statement's own reply is held back until then.
func (s *session) autocommit(ctx context.Context, q *stmt) error {
	if q.class() == sqlparse.Call {
		direct := s.srv.calls.direct(s.callName(q))
		if !direct {
			r, err := s.routine(q)
			if err != nil {
				return s.notBegun(err)
			}
			direct = r.Ends()
		}
		if direct {
			return s.direct(ctx, q)
		}
	}
	if s.bursts(q) {
		return s.burst(ctx, q)
	}
	xid, err := s.newXID()
	if err != nil {
		return s.notBegun(err)
	}
	s.tx = transaction{xid: xid, auto: true}
	s.oneShot = nil
	pre, r, err := s.forward(ctx, []string{xaStart(xid)}, q)
	if err != nil {
		return s.lostInTx(err)
	}
	if pre[0].Err != nil {
		return s.unwrapped(ctx, q, &r, pre[0].Err)
	}
	if r.err != nil {
		return s.autocommitFailed(ctx, q, &r)
	}
	var show []string
	if r.ok.Warnings > 0 {
		show = []string{"SHOW WARNINGS"}
	}
	res, err := s.commitTx(ctx, show...)
	if err != nil {
		return s.lostInTx(err)
	}
	return s.finishAutocommit(ctx, q, &r, &res)
}

// unwrapped answers a statement that ran although XA START failed in front of
// it: it is held like any other direct statement.
func (s *session) unwrapped(ctx context.Context, q *stmt, r *reply, cause error) error {
	s.tx = transaction{}
	if s.status&(wire.StatusInTrans|wire.StatusAutocommit) == wire.StatusInTrans|wire.StatusAutocommit {
		// A transaction was open that nobody knew of, and holds the statement
		// now. It ends with the connection.
		q.failed = true
		_ = s.sendErr(lostError())
		return backendError(cause)
	}
	return s.finishDirect(ctx, q, r)
}

func (s *session) finishAutocommit(ctx context.Context, q *stmt, r *reply, res *settled) error {
	var shown *wire.Reply
	if len(res.pre) > 0 {
		shown = &res.pre[0]
	}
	if res.err != nil {
		if res.aborted && !r.streamed && (res.lost || s.srv.opt.Group.Moved(s.backend)) && s.again(true) {
			return errAgain
		}
		err := s.refuse(q, res.err)
		if res.lost {
			return firstErr(err, ErrBackendLost)
		}
		return err
	}
	// What the statement did outside InnoDB is not part of the transaction: the
	// server committed it at once, under a local GTID.
	if e := s.settleDirect(ctx, "statement"); e != nil {
		return firstErr(s.refuse(q, e), lostIf(res.lost))
	}
	if s.unlogged {
		return firstErr(s.refuse(q, unloggedError()), errClose)
	}
	s.diag = newDiagnostics(r, shown)
	// The reply is from before the end of the transaction that hides here.
	r.ok.Status &^= wire.StatusInTrans | wire.StatusInTransReadonly
	r.ok.Trackers = r.ok.Trackers.AppendWithout(nil, wire.TrackTxState.Set())
	if res.gtid != "" && s.shows.Has(wire.TrackGTIDs) {
		r.ok.Trackers = wire.AppendTracker(r.ok.Trackers, wire.TrackGTIDs, res.gtid)
	}
	err := s.sendFinal(r, q.more)
	if res.lost {
		return firstErr(err, ErrBackendLost)
	}
	return err
}

// autocommitFailed ends the wrapped transaction of a statement that failed.
func (s *session) autocommitFailed(ctx context.Context, q *stmt, r *reply) error {
	call := q.class() == sqlparse.Call
	if (r.err.Code == erXARMFail || r.err.Code == erXATemporary) && !r.streamed {
		// A procedure, trigger or function that XA does not let in: undo and run
		// it as a direct statement.
		if _, err := s.rollbackTx(); err != nil {
			return s.lostInTx(err)
		}
		if r.err.Code == erXATemporary {
			s.tempUnnamed = true
		} else if call {
			s.srv.calls.add(s.callName(q))
		}
		s.status &^= wire.StatusInTrans | wire.StatusInTransReadonly
		return s.direct(ctx, q)
	}
	if s.fenced(r.err) {
		return s.leaveFenced(q)
	}
	q.failed = true
	var res settled
	var err error
	if call && r.err.Code != erLockDeadlock {
		// What the procedure did before it failed stays, as without us.
		s.tx.blind = true
		res, err = s.commitTx(ctx, "SHOW WARNINGS")
	} else if r.err.Code == erLockWaitTimeout {
		// The statement is undone. An empty transaction commits under a global
		// read lock, which XA ROLLBACK would wait for. If the whole of it was
		// rolled back, commitTx finds out.
		s.tx.state, s.tx.blind = stateBegun, false
		res, err = s.commitTx(ctx, "SHOW WARNINGS")
	} else {
		res, err = s.rollbackTx("SHOW WARNINGS")
	}
	if err != nil {
		if isBackendLost(err) {
			_ = s.sendErr(r.err) // the statement failed, whatever came after
		}
		return err
	}
	s.status = res.ok.Status
	e := r.err
	if res.err != nil && call && res.err.Code != erLockDeadlock {
		e = res.err
	}
	s.diag = newDiagnostics(r, &res.pre[0])
	if err := s.sendErr(e); err != nil {
		return err
	}
	if res.lost {
		return ErrBackendLost
	}
	return nil
}
