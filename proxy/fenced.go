package proxy

import (
	"strings"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// fenced recognises the refusal of a server that its member has made read-only:
// it was the primary's, and the news of another one has not come here, because this
// member, or that one, is cut off from the group. What is read-only by the
// administrator's will, with no other member to take over, or because the member is
// out of the group (epoch 0), tells so. Only privileged clients are told of
// super_read_only by its name.
//
// The server looks before it begins a statement, and again before an ordinary COMMIT,
// which it then rolls back; and super_read_only does not come into force in the middle
// of either. So what was refused did nothing, except a routine's earlier statements
// outside a transaction.
func (s *session) fenced(e *wire.ServerError) bool {
	return e != nil && e.Code == erOptionPrevents && strings.Contains(e.Message, "read-only") &&
		s.backend.Epoch != 0 && (!s.backend.Local || s.srv.opt.Group.Moved(s.backend))
}

// leaveFenced treats a server that refused the present statement as one that went
// away: the statement is run again on the next primary, a transaction is rolled
// back. The server lives, so whether just the session was ended is no question.
func (s *session) leaveFenced(q *stmt) error {
	s.judged, s.ends = true, false
	q.failed = false
	// It may have committed something by itself before it was refused.
	routine := (q.class() == sqlparse.Call || q.class() == sqlparse.Unknown) && !s.tx.open()
	switch {
	case s.unheard() && !routine && s.goesOn():
		return errAgain
	case routine:
		q.failed = true
		_ = s.sendErr(unknownOutcome("statement", ErrBackendLost))
	default:
		q.failed = true
		s.tellLost()
	}
	return ErrBackendLost
}
