package proxy

import (
	"context"
	"time"

	"cohort/internal/wire"
)

// A session that read on the primary's server and now runs on its member's own, since
// the member is out of the group, must not see less there than before. It may have seen
// all that was ordered until its last command on the primary's ended. A member that
// leaves in good order knows what was ordered until then (Departure), and whether its
// server has applied it; one that was cut off, or expelled, does not, and its server is
// then not read in that session. What a new session reads is the member's own.

// landed says that the present command, if there is one, has had what it gets of the
// session's server.
func (s *session) landed() {
	if !s.working.Load() {
		return
	}
	s.used = time.Now()
	if b := s.backend; b.Local && b.Epoch != 0 && s.srv.opt.Group.Moved(b) {
		s.late = true
	}
	s.working.Store(false)
}

// stay is what a session has had of a server: since when it was there, when its last
// command ended, and whether one ended when the server was the primary's no more.
type stay struct {
	since, used time.Time
	late        bool
}

// partedAt returns until when a session that moves may have seen what its new server
// lacks, the zero time if that has all. parted is the same of the old server.
func partedAt(from, to Backend, parted time.Time, at stay) time.Time {
	switch {
	case to.Epoch != 0: // a primary has applied all that was ordered before it was one
		return time.Time{}
	case from.Epoch == 0:
		return parted
	case !from.Local:
		return at.used
	case at.late:
		// The same server, but for a commit that was ordered and is visible on the next
		// primary's only. It was ordered before the epoch ended, and so before this
		// member left, whenever the client was told.
		return at.since
	}
	return time.Time{}
}

// lacking is what the server of a session that parted must be proven to hold before it
// is read; known is false if nobody can say.
func lacking(parted time.Time, d Departure) (gtids string, known bool) {
	if parted.IsZero() {
		return "", true
	}
	if d.At.Before(parted) {
		return "", false
	}
	return d.GTIDs, true
}

// mayRead lets a statement of a session that parted read its member's own server if
// that has all that the session may have seen. done says that the client has its answer.
func (s *session) mayRead(q *stmt) (done bool, err error) {
	gtids, known := lacking(s.parted, s.srv.opt.Group.Departure())
	if known && gtids != "" {
		rs, err := s.exec("SELECT GTID_SUBSET('" + gtids + "', @@GLOBAL.gtid_executed)")
		if err != nil {
			return true, s.notBegun(err)
		}
		known = rs[0].Err == nil && rs[0].Str(0, 0) == "1"
	}
	if !known {
		return true, s.refuse(q, wire.NewError(erUnknown, "HY000",
			"This member is out of the group, and its server may lack what this session has read on the group's primary; the statement was not run. Connect anew to read what the member has"))
	}
	s.parted = time.Time{}
	return false, nil
}

// Vacated waits until no command runs any more on another member's server that sessions
// have to leave, or ctx ends.
func (s *Server) Vacated(ctx context.Context) {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for !s.vacated() {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) vacated() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ss := range s.live {
		if b := ss.where.Load().backend; ss.working.Load() && !b.Local && s.opt.Group.Moved(b) {
			return false
		}
	}
	return true
}
