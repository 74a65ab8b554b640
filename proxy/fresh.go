package proxy

import (
	"context"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// readsTables reports whether a statement may show what tables hold. Writes need not
// be looked at: what they do is ordered, or has no effect.
func (s *session) readsTables(q *stmt) bool {
	st := q.effective()
	switch st.Class {
	case sqlparse.Call, sqlparse.Handler, sqlparse.Unknown:
		return true
	case sqlparse.Read, sqlparse.Do, sqlparse.Set:
		// What the group's own tables show is this member's knowledge.
		return !st.Has(sqlparse.FlagGroupTable) && (st.Has(sqlparse.FlagFrom|sqlparse.FlagCall) || namesTable(q.effectiveText(), s.mode))
	}
	return false
}

// namesTable reports whether a text may read a table at any depth; one that was not
// kept may.
func namesTable(text []byte, mode sqlparse.Mode) bool {
	sc := sqlparse.NewScanner(text, mode)
	for t := sc.Next(); t.Kind != sqlparse.EOF; t = sc.Next() {
		if t.Kind == sqlparse.Word && (foldEqual(sc.Text(t), "FROM") || foldEqual(sc.Text(t), "TABLE")) {
			return true
		}
	}
	return len(text) == 0
}

// isFresh reports whether a read now is as new as the session's consistency level asks.
// All levels but one ask for the newest.
func (s *session) isFresh() bool {
	own := s.kept.consistency
	return own == "EVENTUAL" || s.srv.opt.Group.Fresh(s.backend, own != "")
}

// errHeld is Group Replication's answer to a statement that its consistency level holds
// for too long.
var errHeld = wire.NewError(3781, "HY000", "Timeout exceeded for held statement while new Group Replication primary member is applying backlog."+
	" This member has lost its contact to a majority of the group, so what it reads may be old; group_replication_consistency = EVENTUAL lets it.")

// awaitFresh holds a read back while the member does not know whether its primary is
// still the only one. done says that the client has its answer.
func (s *session) awaitFresh(ctx context.Context, q *stmt) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.srv.opt.RebuildWait)
	defer cancel()
	if err := s.srv.opt.Group.AwaitFresh(ctx, s.backend, s.kept.consistency != ""); err != nil {
		return true, s.heldTooLong(q, err, errHeld)
	}
	if err := s.inPlace(); err != nil {
		return true, s.notBegun(err)
	}
	return false, nil
}

// heldTooLong answers a statement that waited for the lease until err.
func (s *session) heldTooLong(q *stmt, err error, answer *wire.ServerError) error {
	if s.ctx.Err() != nil {
		return err
	}
	s.log.Debug().Err(err).Msg("a statement was held for too long")
	return s.refuse(q, answer)
}
