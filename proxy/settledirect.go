package proxy

import (
	"context"
	"strings"

	"cohort/internal/wire"
)

// settleDirect waits for what committed under local GTIDs, if anything did. It
// returns what the client is told instead of success.
func (s *session) settleDirect(ctx context.Context, what string) *wire.ServerError {
	if s.pendingGTID == "" {
		return nil
	}
	s.committing.Store(true)
	defer s.committing.Store(false)
	set := s.pendingGTID
	s.pendingGTID = ""
	for _, g := range lastGTIDs(set) {
		t := s.srv.opt.Group.ExpectDirect(g)
		o, err := t.Wait(ctx)
		switch {
		case err != nil:
			t.Cancel()
			return unknownOutcome(what, err)
		case !o.Committed:
			return outcomeError(o)
		}
		s.lastGTID = o.GTID
	}
	return nil
}

// lastGTIDs returns the last GTID of each source and tag in a GTID set. A
// session's own commits are logged, captured and ordered in the order of their
// numbers, so that waiting for the last one waits for all.
func lastGTIDs(set string) []string {
	var out []string
	for part := range strings.SplitSeq(set, ",") {
		fields := strings.Split(strings.TrimSpace(part), ":")
		if len(fields) < 2 {
			continue
		}
		uuid, tag, last := fields[0], "", ""
		flush := func() {
			if last != "" {
				out = append(out, uuid+tag+":"+last)
			}
			last = ""
		}
		for _, f := range fields[1:] {
			if f == "" {
				continue
			}
			if f[0] < '0' || f[0] > '9' { // a tag begins
				flush()
				tag = ":" + f
				continue
			}
			if i := strings.IndexByte(f, '-'); i >= 0 {
				f = f[i+1:]
			}
			last = f
		}
		flush()
	}
	return out
}
