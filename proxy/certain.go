package proxy

import (
	"context"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// commitsItself reports whether mysqld may commit something in a statement that is
// not wrapped, before the group has ordered it.
func (s *session) commitsItself(q *stmt) bool {
	open := s.status&wire.StatusInTrans != 0
	switch q.class() {
	case sqlparse.DDL, sqlparse.Account, sqlparse.Maintenance, sqlparse.Call, sqlparse.Unknown:
		return true
	case sqlparse.DML, sqlparse.LoadData:
		return !open
	case sqlparse.Commit, sqlparse.Begin, sqlparse.LockTables, sqlparse.UnlockTables, sqlparse.Set:
		return open
	}
	return false
}

// certain makes sure, before such a statement is sent, that its server answers and is
// still the primary's.
//
// What a server commits by itself after another one took its place makes its data
// differ from the group's, for good. A server that stood still, or was cut off, would
// run all that was sent to it meanwhile as soon as it goes on, before anybody can make
// it read-only. So the answer comes first, and then a look at the lease: what is left
// is the time that the statement takes.
func (s *session) certain(ctx context.Context, q *stmt) (done bool, err error) {
	if s.backend.Epoch == 0 || !s.commitsItself(q) {
		return false, nil
	}
	group, wait := s.srv.opt.Group, ctx
	for {
		if err = s.inPlace(); err != nil {
			break
		}
		if _, err = s.ping(); err != nil {
			break
		}
		if group.Fresh(s.backend, true) && !group.Moved(s.backend) {
			return false, nil
		}
		if wait == ctx {
			var cancel context.CancelFunc
			wait, cancel = context.WithTimeout(ctx, s.srv.opt.RebuildWait)
			defer cancel()
		}
		if err := group.AwaitFresh(wait, s.backend, true); err != nil {
			return true, s.heldTooLong(q, err, wire.NewError(erUnknown, "HY000",
				"This member has lost its contact to a majority of the group; the statement was not run"))
		}
	}
	switch {
	case !isBackendLost(err):
		return true, err
	case s.outside || s.inTransaction():
		return true, s.notBegun(err)
	}
	// It has ended a transaction already.
	_ = s.sendErr(unknownOutcome("statement", err))
	return true, err
}
