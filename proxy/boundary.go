package proxy

import (
	"context"
	"errors"
	"slices"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// begin handles BEGIN and START TRANSACTION.
func (s *session) begin(ctx context.Context, q *stmt, st *sqlparse.Statement) error {
	again := s.tx.open() && s.tx.explicit
	if done, err := s.implicitCommit(ctx, q); done || err != nil {
		return err
	}
	readOnly := st.Has(sqlparse.FlagReadOnly) && !st.Has(sqlparse.FlagReadWrite)
	if readOnly || s.temporary() || s.unwrapNext || st.Has(sqlparse.FlagReadOnly) {
		// The server ends an ordinary transaction and LOCK TABLES by itself.
		s.locked = false
		if again {
			s.owed, s.toldPlain = "", stateBegun // it was told that one is open
		}
		return s.direct(ctx, q)
	}
	if ok, err := s.endPlain(ctx, q); !ok || err != nil {
		return err
	}
	var pre, post []string
	if st.Has(sqlparse.FlagReadWrite) {
		pre = []string{"SET TRANSACTION READ WRITE"}
	}
	if st.Has(sqlparse.FlagSnapshot) {
		post = []string{"SELECT 1 FROM information_schema.schemata LIMIT 1"}
	}
	_, err := s.open(q, again, pre, post...)
	return err
}

// open starts a wrapped transaction and tells the client.
//
// again: another one has just ended, so that the state, as told, stays as it is.
func (s *session) open(q *stmt, again bool, pre []string, post ...string) (bool, error) {
	ok, e, err := s.startTx(true, pre, post...)
	if err != nil {
		return false, s.lostInTx(err)
	}
	if e != nil {
		q.failed = true
		return false, s.sendErr(e)
	}
	if again && len(post) == 0 {
		s.owed = ""
	}
	return true, s.sendOK(&wire.OK{Status: s.shownStatus(ok.Status | wire.StatusInTrans)}, q.more)
}

// implicitCommit commits the wrapped transaction before a statement that ends
// it. done says that the client was told of a failure.
func (s *session) implicitCommit(ctx context.Context, q *stmt) (done bool, err error) {
	if !s.tx.open() {
		return false, nil
	}
	res, err := s.commitTx(ctx)
	if err != nil {
		return true, s.lostInTx(err)
	}
	s.status = res.ok.Status
	if res.err != nil {
		err = s.refuse(q, res.err)
	}
	if res.lost {
		return true, firstErr(err, ErrBackendLost)
	}
	return res.err != nil, err
}

// endPlain commits an ordinary transaction and releases table locks, as BEGIN
// does, before XA START, which refuses both. It reports false when the client
// was told of a failure.
func (s *session) endPlain(ctx context.Context, q *stmt) (bool, error) {
	var sqls []string
	if s.status&wire.StatusInTrans != 0 {
		sqls = append(sqls, "COMMIT AND NO CHAIN NO RELEASE")
	}
	if s.locked {
		sqls = append(sqls, "UNLOCK TABLES")
	}
	if len(sqls) == 0 {
		return true, nil
	}
	rs, err := s.exec(sqls...)
	if err != nil {
		_ = s.sendErr(unknownOutcome("COMMIT", ErrBackendLost))
		return false, err
	}
	s.locked = false
	for i := range rs {
		if rs[i].Err != nil {
			q.failed = true
			return false, s.sendErr(asServerError(rs[i].Err))
		}
		s.status = rs[i].OK.Status
	}
	if e := s.settleDirect(ctx, "COMMIT"); e != nil {
		return false, s.refuse(q, e)
	}
	return true, nil
}

// end handles COMMIT and ROLLBACK.
func (s *session) end(ctx context.Context, q *stmt, st *sqlparse.Statement) error {
	chain := st.Chain == sqlparse.Yes || st.Chain == sqlparse.Unset && st.Release != sqlparse.Yes && s.completion == "CHAIN"
	release := st.Release == sqlparse.Yes || st.Release == sqlparse.Unset && st.Chain != sqlparse.Yes && s.completion == "RELEASE"
	if !s.tx.open() {
		s.unwrapNext = false
		if chain && !s.plain() {
			// Nothing to end, and a transaction to begin.
			_, err := s.open(q, false, slices.Clone(s.oneShot))
			return err
		}
		if err := s.direct(ctx, q); err != nil {
			return err
		}
		if release && !q.failed {
			return errClose
		}
		return nil
	}
	chars, explicit := s.tx.chars, s.tx.explicit
	var res settled
	var err error
	if st.Class == sqlparse.Commit {
		res, err = s.commitTx(ctx)
	} else {
		res, err = s.rollbackTx()
	}
	if err != nil {
		if st.Class == sqlparse.Rollback && !chain && isBackendLost(err) && !errors.Is(err, errOutcome) && s.goesOn() {
			// It is rolled back all the same.
			s.leave()
			return firstErr(s.sendOK(&wire.OK{Status: s.shownStatus(s.status)}, q.more), ErrBackendLost)
		}
		return s.lostInTx(err)
	}
	if !res.lost {
		s.status = res.ok.Status
	}
	s.status &^= wire.StatusInTrans | wire.StatusInTransReadonly
	if res.err != nil {
		return firstErr(s.refuse(q, res.err), lostIf(res.lost))
	}
	ok := wire.OK{Status: s.shownStatus(s.status)}
	if s.shows.Has(wire.TrackGTIDs) && res.gtid != "" {
		ok.Trackers = wire.AppendTracker(nil, wire.TrackGTIDs, res.gtid)
	}
	switch {
	case res.lost && chain: // the next transaction cannot begin
		return firstErr(s.sendOK(&ok, false), errClose)
	case res.lost:
		return firstErr(s.sendOK(&ok, false), ErrBackendLost)
	case release:
		return firstErr(s.sendOK(&ok, false), errClose)
	case chain:
		start, e, err := s.startTx(true, chars)
		if err != nil || e != nil {
			return firstErr(err, ErrBackendLost)
		}
		s.tx.chars = chars
		if explicit {
			s.owed = ""
		}
		ok.Status = s.shownStatus(start.Status | wire.StatusInTrans)
	}
	return s.sendOK(&ok, q.more)
}

func lostIf(lost bool) error {
	if lost {
		return ErrBackendLost
	}
	return nil
}

func firstErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
