package proxy

import (
	"context"
	"fmt"
	"strings"

	"cohort/internal/wire"
)

// transaction is the wrapped transaction of a session: what its client takes
// for an ordinary one is an XA transaction on the primary's mysqld. The zero
// value is none.
type transaction struct {
	xid string
	// auto: it holds one statement in autocommit mode; the client sees no
	// transaction at all.
	auto bool
	// explicit: BEGIN or START TRANSACTION opened it, or a chain. Otherwise
	// the first statement with autocommit=0 did, and the client sees it once it
	// touched a table.
	explicit bool
	// state is the server's transaction state tracker, eight letters; anything
	// else means that it is not known.
	state string
	// blind: an ERR packet or a temporary table may hide a write from state.
	blind bool
	// chars are the one-shot characteristics it began with, for AND CHAIN.
	chars []string
	// ended: XA END was sent for a client's own XA END.
	ended bool
}

func (t *transaction) open() bool { return t.xid != "" }

// touched reports whether a table was read or written.
func (t *transaction) touched() bool {
	if t.blind || len(t.state) != 8 {
		return true
	}
	return t.state[1] != '_' || t.state[2] != '_' || t.state[3] != '_' || t.state[4] != '_'
}

// wrote reports whether something may have been written. It errs on the side
// of yes; XA PREPARE's OK then tells.
func (t *transaction) wrote() bool {
	return t.blind || len(t.state) != 8 || t.state[3] != '_' || t.state[4] != '_'
}

// Transaction states as the server's tracker tells them.
const (
	stateNone     = "________"
	stateBegun    = "T_______"
	stateSnapshot = "T_R_____"
)

func xaStart(xid string) string    { return "XA START '" + xid + "'" }
func xaEnd(xid string) string      { return "XA END '" + xid + "'" }
func xaPrepare(xid string) string  { return "XA PREPARE '" + xid + "'" }
func xaCommit(xid string) string   { return "XA COMMIT '" + xid + "'" }
func xaOnePhase(xid string) string { return "XA COMMIT '" + xid + "' ONE PHASE" }
func xaRollback(xid string) string { return "XA ROLLBACK '" + xid + "'" }

// settled is what became of a transaction whose end was asked for: err is nil
// when it committed, and otherwise what the client is told.
type settled struct {
	err  *wire.ServerError
	gtid string // group:N, "" when nothing was written
	lost bool   // the session has to end; the answer is still true
	// aborted: the group says that it is not committed anywhere.
	aborted bool
	pre     []wire.Reply
	ok      wire.OK // of the last XA statement
}

// commitTx ends the wrapped transaction with the group's verdict. The statements
// of pre run before its end, in the same write. The error is about the
// connection.
//
// A definite abort is told only where it is proven: the transaction was never
// prepared, or the group said so. Everything else is an unknown outcome.
func (s *session) commitTx(ctx context.Context, pre ...string) (settled, error) {
	xid := s.tx.xid
	s.committing.Store(true)
	defer s.committing.Store(false)
	var res settled
	n := len(pre)
	if s.tx.explicit {
		s.owed = stateNone
	}
	if !s.tx.ended {
		pre = append(pre, xaEnd(xid))
	}
	if !s.tx.wrote() {
		rs, err := s.execEnd(append(pre, xaOnePhase(xid))...)
		if err != nil {
			s.tx = transaction{}
			return res, err
		}
		res.pre = rs[:n]
		if e := firstError(rs[n:]); e != nil {
			return s.abandon(e, res)
		}
		s.tx = transaction{}
		last := rs[len(rs)-1]
		res.ok = last.OK
		// The tracker saw no write, but the commit logged something: it is
		// ordered like a direct statement before anyone is told.
		s.notePending(&last.OK)
		if e := s.settleDirect(ctx, "COMMIT"); e != nil {
			res.err = e
		}
		res.gtid = s.lastGTID
		return res, nil
	}

	// Registered before PREPARE is sent: the verdict cannot be missed.
	ticket := s.srv.opt.Group.Expect(xid)
	rs, err := s.execEnd(append(pre, xaPrepare(xid))...)
	if err != nil {
		// PREPARE may have reached the binary log: only the group knows.
		s.tx = transaction{}
		s.concludeWithin(ctx, ticket, &res)
		res.lost = true
		return res, nil
	}
	res.pre = rs[:n]
	if e := firstError(rs[n:]); e != nil {
		// An ERR packet in answer to PREPARE means that it was rolled back or
		// never began: nothing of it was logged.
		ticket.Cancel()
		return s.abandon(e, res)
	}
	res.ok = rs[len(rs)-1].OK
	s.tx = transaction{}
	return s.decide(ctx, ticket, xid, res)
}

// decide ends a transaction whose PREPARE was answered with res.ok.
//
// A GTID in that OK says that the group decides. None says that nothing was
// logged only where the session still tells its GTIDs, which is asked for:
// committing here what the group orders too would make the primary differ.
func (s *session) decide(ctx context.Context, ticket Ticket, xid string, res settled) (settled, error) {
	if res.ok.Trackers.GTID() != "" {
		ticket.Prepared()
		s.conclude(ctx, ticket, &res)
		return res, nil
	}
	told, logs, err := s.logging()
	if err != nil {
		s.concludeWithin(ctx, ticket, &res)
		res.lost = true
		return res, nil
	}
	if !logs {
		// Not in the binary log, so that the group will never hear of it.
		ticket.Cancel()
		res.lost = true
		if _, err := s.exec(xaRollback(xid)); err != nil {
			return res, err
		}
		res.err = unloggedError()
		return res, nil
	}
	if !told {
		ticket.Prepared()
		s.concludeWithin(ctx, ticket, &res)
		return res, nil
	}
	// Nothing was written. The branch is prepared all the same, unknown to the
	// group, and released here.
	ticket.Cancel()
	end, err := s.exec(xaCommit(xid))
	if err != nil {
		return res, err
	}
	if end[0].Err != nil {
		res.err = asServerError(end[0].Err)
	}
	res.ok = end[0].OK
	return res, nil
}

// logging asks whether the session tells its GTIDs, and whether it writes the
// binary log at all. KILL QUERY may hit the question instead of what it was
// meant for.
func (s *session) logging() (told, logs bool, err error) {
	for range 3 {
		rs, err := s.exec("SELECT @@SESSION.session_track_gtids, @@SESSION.sql_log_bin")
		if err != nil {
			return false, false, err
		}
		if rs[0].Err == nil {
			s.untracked = rs[0].Str(0, 0) != "OWN_GTID"
			return !s.untracked, rs[0].Str(0, 1) == "1", nil
		}
	}
	return false, false, ErrBackendLost
}

func firstError(rs []wire.Reply) error {
	for i := range rs {
		if rs[i].Err != nil {
			return rs[i].Err
		}
	}
	return nil
}

// conclude waits for the verdict on a transaction that is, or may be, prepared.
func (s *session) conclude(ctx context.Context, t Ticket, res *settled) {
	o, err := t.Wait(ctx)
	switch {
	case err != nil:
		t.Cancel()
		res.err = unknownOutcome("COMMIT", err)
	case !o.Committed:
		res.err, res.aborted = outcomeError(o), true
	default:
		res.gtid = o.GTID
		s.lastGTID = o.GTID
	}
}

// noBranch recognises the answers of XA END and XA PREPARE where there is no
// branch, or another one.
func noBranch(err error) bool {
	code := wire.ErrorCode(err)
	return code == erXANotA || code == erXARMFail && strings.Contains(err.Error(), "NON-EXISTING")
}

// concludeWithin is conclude where the group may never hear of the transaction,
// since PREPARE may not have been logged.
func (s *session) concludeWithin(ctx context.Context, t Ticket, res *settled) {
	ctx, cancel := context.WithTimeout(ctx, s.srv.opt.LostWait)
	defer cancel()
	s.conclude(ctx, t, res)
}

// abandon cleans up after XA END or what followed it was refused: the
// transaction is rolled back (state ROLLBACK ONLY, a deadlock's victim, KILL).
func (s *session) abandon(cause error, res settled) (settled, error) {
	xid := s.tx.xid
	s.tx = transaction{}
	if noBranch(cause) {
		// The server does not know a branch that it had begun: it has been seen
		// to lose such, and to commit such.
		res.err, res.lost = unknownOutcome("transaction", cause), true
		return res, nil
	}
	rs, err := s.exec(xaRollback(xid))
	if err != nil {
		return res, err
	}
	last, err := s.insist(xid, rs[0])
	if err != nil {
		return res, err
	}
	switch wire.ErrorCode(last.Err) {
	case 0, erXANotA, erXARBRollback: // an ERR packet to PREPARE leaves no branch
	default:
		// The branch is still there. Closing the connection rolls it back.
		return res, backendError(last.Err)
	}
	res.ok = last.OK
	e := asServerError(cause)
	switch e.Code {
	case 1613, 1614, 1402:
		// What an ordinary transaction says that was rolled back under it.
		e = wire.NewError(erLockDeadlock, "40001", "Deadlock found when trying to get lock; try restarting transaction")
	}
	res.err = e
	return res, nil
}

// rollbackTx rolls the wrapped transaction back; pre as in commitTx. XA END
// fails in state ROLLBACK ONLY, which does not matter.
func (s *session) rollbackTx(pre ...string) (settled, error) {
	xid := s.tx.xid
	n := len(pre)
	if s.tx.explicit {
		s.owed = stateNone
	}
	if !s.tx.ended {
		pre = append(pre, xaEnd(xid))
	}
	s.tx = transaction{}
	rs, err := s.exec(append(pre, xaRollback(xid))...)
	if err != nil {
		return settled{}, err
	}
	last := rs[len(rs)-1]
	if last, err = s.insist(xid, last); err != nil {
		return settled{}, err
	}
	if wire.ErrorCode(last.Err) == erXANotA {
		return settled{}, fmt.Errorf("%w: %w", errOutcome, backendError(last.Err))
	}
	if last.Err != nil {
		// Neither ended nor known: this connection is in no state to go on.
		return settled{}, backendError(last.Err)
	}
	return settled{pre: rs[:n], ok: last.OK}, nil
}

// insist repeats an XA ROLLBACK that a global read lock made time out: unlike
// ROLLBACK it waits for that lock, and until it succeeds the session can do
// nothing else.
func (s *session) insist(xid string, r wire.Reply) (wire.Reply, error) {
	for wire.ErrorCode(r.Err) == erLockWaitTimeout {
		rs, err := s.exec(xaRollback(xid))
		if err != nil {
			return r, err
		}
		r = rs[0]
	}
	return r, nil
}

// startTx opens a wrapped transaction for BEGIN, a chain, or a client's XA
// START. e is what the server says when it may not.
func (s *session) startTx(explicit bool, pre []string, post ...string) (ok wire.OK, e *wire.ServerError, err error) {
	xid, err := s.newXID()
	if err != nil {
		return ok, nil, err
	}
	sqls := append(append(append([]string(nil), pre...), xaStart(xid)), post...)
	rs, err := s.exec(sqls...)
	if err != nil {
		return ok, nil, err
	}
	start := rs[len(pre)]
	if start.Err != nil {
		return ok, asServerError(start.Err), nil
	}
	s.tx = transaction{xid: xid, explicit: explicit, chars: s.oneShot}
	s.oneShot = nil
	if failed := firstError(rs[len(pre)+1:]); failed != nil { // no snapshot, no transaction
		if _, err := s.rollbackTx(); err != nil {
			return ok, nil, err
		}
		return ok, asServerError(failed), nil
	}
	s.owed = stateBegun
	if len(post) > 0 {
		s.owed = stateSnapshot
	}
	s.status = start.OK.Status
	if st, told := start.OK.Trackers.TxState(); told {
		s.tx.state = st
	}
	return start.OK, nil, nil
}
