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

// awaitFresh holds a read back while the member does not know whether its primary is
// still the only one. done says that the client has its answer.
func (s *session) awaitFresh(ctx context.Context, q *stmt) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.srv.opt.RebuildWait)
	defer cancel()
	if err := s.srv.opt.Group.AwaitFresh(ctx, s.backend); err != nil {
		if s.ctx.Err() != nil {
			return true, err
		}
		return true, s.refuse(q, wire.NewError(erUnknown, "HY000",
			"This member has lost its contact to a majority of the group, so what it reads may be old; group_replication_consistency = EVENTUAL lets it (%v)", err))
	}
	if s.srv.opt.Group.Moved(s.backend) {
		_ = s.r.Backend.Close()
		return true, s.notBegun(ErrBackendLost)
	}
	return false, nil
}
