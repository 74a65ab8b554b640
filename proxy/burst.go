package proxy

import (
	"context"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// maxBurst bounds the commands that are sent with everything around them. A
// server that finds a command too long closes the connection without reading what
// follows, and its answer may be lost on the way; long ones gain little anyway.
const maxBurst = 16 << 10

// bursts reports whether a statement in autocommit mode is sent together with
// XA PREPARE. It answers with one OK or ERR and asks the client for nothing.
func (s *session) bursts(q *stmt) bool {
	return q.class() == sqlparse.DML && !s.cmd.Streamed && len(s.cmd.Payload) <= maxBurst
}

// burst runs a statement as a wrapped transaction of its own in one round trip:
// [XA START][statement][SHOW WARNINGS][XA END][XA PREPARE], whatever becomes of
// the earlier ones; a statement that failed has written nothing, and leaves an
// empty branch behind, which is rolled back. SHOW WARNINGS stands there because XA
// END clears the diagnostics area.
func (s *session) burst(ctx context.Context, q *stmt) error {
	xid, err := s.newXID()
	if err != nil {
		return s.notBegun(err)
	}
	s.tx = transaction{xid: xid, auto: true}
	s.oneShot = nil
	// Registered before PREPARE is sent: the verdict cannot be missed.
	ticket := s.srv.opt.Group.Expect(xid)
	var around [4]wire.Reply // XA START, SHOW WARNINGS, XA END, XA PREPARE
	r, replied, err := s.sendBurst(xid, q, &around)
	if err != nil {
		return s.burstLost(ctx, q, ticket, &r, replied, err)
	}
	start, shown, prepare := &around[0], &around[1], &around[3]
	refused := firstError(around[2:])
	if start.Err != nil {
		// The statement ran all the same, unwrapped, and the rest found no branch.
		ticket.Cancel()
		s.diag = newDiagnostics(&r, shown)
		return s.unwrapped(ctx, q, &r, start.Err)
	}
	if r.err != nil {
		return s.burstFailed(ctx, q, ticket, &r, shown, prepare, refused)
	}
	var res settled
	if r.ok.Warnings > 0 {
		res.pre = around[1:2]
	}
	if refused != nil {
		// An ERR packet in answer to PREPARE means that it was rolled back or
		// never began: nothing of it was logged.
		ticket.Cancel()
		res, err = s.abandon(refused, res)
	} else {
		s.tx = transaction{}
		res.ok = prepare.OK
		s.committing.Store(true)
		res, err = s.decide(ctx, ticket, xid, res)
		s.committing.Store(false)
	}
	if err != nil {
		return s.lostInTx(err)
	}
	return s.finishAutocommit(ctx, q, &r, &res)
}

// sendBurst sends all commands in one write and reads all replies. replied says
// that the statement's own is in r, also when the connection was lost later.
func (s *session) sendBurst(xid string, q *stmt, around *[4]wire.Reply) (r reply, replied bool, err error) {
	if err := s.r.QueueQuery(xaStart(xid)); err != nil {
		return r, false, err
	}
	if err := s.send(q); err != nil {
		return r, false, err
	}
	for _, sql := range [...]string{"SHOW WARNINGS", xaEnd(xid), xaPrepare(xid)} {
		if err := s.r.QueueQuery(sql); err != nil {
			return r, false, err
		}
	}
	if err := s.swallow(wire.ComQuery, &around[0]); err != nil {
		return r, false, err
	}
	s.notePending(&around[0].OK)
	if r, err = s.response(s.cmd.Code, q.more); err != nil {
		return r, false, err
	}
	for i := 1; i < len(around); i++ {
		if err := s.swallow(wire.ComQuery, &around[i]); err != nil {
			return r, true, err
		}
		if i < 3 { // PREPARE's is the group's
			s.notePending(&around[i].OK)
		}
	}
	return r, true, nil
}

// burstLost answers when the connection was lost in a burst. XA PREPARE may have
// been received by then, so that the group is asked, unless the statement is known
// to have failed.
func (s *session) burstLost(ctx context.Context, q *stmt, ticket Ticket, r *reply, replied bool, err error) error {
	s.tx = transaction{}
	if !isBackendLost(err) {
		ticket.Cancel()
		return err
	}
	if replied && r.err != nil {
		ticket.Cancel()
		_ = s.sendErr(r.err)
		return err
	}
	res := settled{lost: true}
	s.concludeWithin(ctx, ticket, &res)
	if !replied && res.err == nil {
		// What the client would have to know of it is lost.
		res.err = wire.NewError(erDuringCommit, "HY000",
			"Lost connection to the primary's server during the statement, which has been committed; its result is lost")
	}
	return s.finishAutocommit(ctx, q, r, &res)
}

// burstFailed ends the branch of a statement that failed: it is empty. refused is
// what XA END or XA PREPARE said.
func (s *session) burstFailed(ctx context.Context, q *stmt, ticket Ticket, r *reply, shown, prepare *wire.Reply, refused error) error {
	xid := s.tx.xid
	s.tx = transaction{}
	if refused == nil && prepare.OK.Trackers.GTID() != "" {
		// Logged all the same: nothing but the group may decide.
		res := settled{}
		ticket.Prepared()
		s.conclude(ctx, ticket, &res)
		if res.err == nil {
			res.err = unknownOutcome("statement", r.err)
		}
		return s.refuse(q, res.err)
	}
	ticket.Cancel()
	if noBranch(refused) {
		_ = s.sendErr(r.err)
		return backendError(refused)
	}
	rs, err := s.exec(xaRollback(xid))
	if err == nil {
		rs[0], err = s.insist(xid, rs[0])
	}
	if err == nil {
		switch wire.ErrorCode(rs[0].Err) {
		case 0, erXANotA, erXARBRollback:
		default:
			err = backendError(rs[0].Err)
		}
	}
	if err != nil {
		_ = s.sendErr(r.err) // the statement failed, whatever came after
		return err
	}
	s.status &^= wire.StatusInTrans | wire.StatusInTransReadonly
	if (r.err.Code == erXARMFail || r.err.Code == erXATemporary) && !r.streamed {
		// A trigger or function that XA does not let in: nothing was done, and it
		// runs as a direct statement.
		if r.err.Code == erXATemporary {
			s.tempUnnamed = true
		}
		return s.direct(ctx, q)
	}
	if s.fenced(r.err) {
		return s.leaveFenced(q)
	}
	q.failed = true
	s.diag = newDiagnostics(r, shown)
	return s.sendErr(r.err)
}
