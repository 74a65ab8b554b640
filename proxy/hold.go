package proxy

import (
	"context"
	"sync/atomic"
	"time"

	"cohort/internal/uptime"
	"cohort/internal/wire"
	"cohort/sqlparse"
)

// gate is where commands wait while the group changes its primary as planned.
//
// A session says that it is at work before it looks whether it has to wait, and
// who closes the gate does so before he looks who is at work: one of the two sees
// the other, so nothing begins unseen.
type gate struct {
	closed atomic.Pointer[closedGate] // nil: open
	// logins are clients on their way in.
	logins atomic.Int64
	left   chan struct{} // capacity 1; something has ended
}

// closedGate is one time that the gate is closed.
type closedGate struct {
	all bool
	// refuse: new transactions are refused instead of waiting.
	refuse bool
	over   chan struct{} // closed when it is open, or closed in another way
}

// Hold has new transactions wait before they begin, and statements that may write;
// with all also everything else that needs the primary's server, and logins. What
// runs goes on.
func (s *Server) Hold(all bool) { s.gate.set(&closedGate{all: all, over: make(chan struct{})}) }

// Refuse is Hold, except that new transactions and statements that may write are
// refused.
func (s *Server) Refuse(all bool) {
	s.gate.set(&closedGate{all: all, refuse: true, over: make(chan struct{})})
}

// errBlocked is what they get.
var errBlocked = wire.NewError(4094, "HY000", "All queries have been blocked while function 'group_replication_set_as_primary()' is executing. Please refer timeout parameter of function 'group_replication_set_as_primary()'.")

// Release ends Hold.
func (s *Server) Release() { s.gate.set(nil) }

func (g *gate) set(c *closedGate) {
	if was := g.closed.Load(); was != nil && c != nil && was.all == c.all && was.refuse == c.refuse {
		return
	}
	if was := g.closed.Swap(c); was != nil {
		close(was.over)
	}
}

// Drain waits until nothing runs that Hold would have had wait, or ctx ends. It
// returns how much runs then, and for how long the oldest of it has.
func (s *Server) Drain(ctx context.Context, all bool) (running int, oldest time.Duration) {
	// The signal may have gone to another call.
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		if running, oldest = s.running(all); running == 0 {
			return 0, 0
		}
		select {
		case <-s.gate.left:
		case <-t.C:
		case <-ctx.Done():
			return running, oldest
		}
	}
}

func (s *Server) running(all bool) (n int, oldest time.Duration) {
	if all {
		n = int(s.gate.logins.Load())
	}
	now := int64(uptime.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	for ss := range s.live {
		since := ss.busy.Load()
		if since == 0 || ss.harmless.Load() && !all {
			continue
		}
		n++
		oldest = max(oldest, time.Duration(now-since))
	}
	return n, oldest
}

// End ends the connections of the clients that Drain waits for, except of those whose
// transaction is being committed: the group decides that, and they are told.
func (s *Server) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ss := range s.live {
		if ss.busy.Load() != 0 && !ss.harmless.Load() && !ss.committing.Load() {
			_ = ss.r.Close()
		}
	}
}

// ended says that something may have ended that Drain waits for.
func (g *gate) ended() {
	if g.closed.Load() == nil {
		return
	}
	select {
	case g.left <- struct{}{}:
	default:
	}
}

// login lets a client in, unless all has to wait. done is called once the session
// is there, or is not.
func (g *gate) login(ctx context.Context) (done func(), err error) {
	for {
		g.logins.Add(1)
		c := g.closed.Load()
		if c == nil || !c.all {
			return func() { g.logins.Add(-1); g.ended() }, nil
		}
		g.logins.Add(-1)
		g.ended()
		select {
		case <-c.over:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// enter is called before each command. Outside a transaction the command waits while
// the gate is closed to it.
func (s *session) enter(ctx context.Context) error {
	if s.busy.Load() != 0 {
		return nil // what has begun may end
	}
	for {
		s.harmless.Store(false)
		s.busy.Store(int64(uptime.Now()))
		c := s.srv.gate.closed.Load()
		if c == nil {
			return nil
		}
		if !s.waits(c.all) {
			s.harmless.Store(true)
			return nil
		}
		s.rest()
		if c.refuse && !s.cmd.Streamed && s.waits(false) {
			return errBlocked
		}
		// Soon only the server that the session is about to leave knows them.
		if !s.down && !s.srv.opt.Group.Moved(s.backend) {
			s.readUserVars(ctx)
		}
		select {
		case <-c.over:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// rest says that nothing of the session's runs.
func (s *session) rest() {
	s.busy.Store(0)
	s.srv.gate.ended()
}

// exit is called after each command.
func (s *session) exit() {
	if s.busy.Load() != 0 && !s.inTransaction() && !s.locked {
		s.rest()
	}
}

// waits reports whether the gate is closed to the present command, which is outside
// a transaction.
func (s *session) waits(all bool) bool {
	var st sqlparse.Statement
	switch s.cmd.Code {
	case wire.ComQuit, wire.ComPing, wire.ComStmtClose, wire.ComStmtSendLongData:
		return false
	case wire.ComQuery:
		_, text, err := wire.SplitQuery(s.cmd.Arg(), s.r.ClientCaps)
		if err != nil || s.cmd.Streamed {
			return true
		}
		st = sqlparse.Classify(text, s.mode)
		if s.multi && st.Rest < len(text) {
			return true
		}
	case wire.ComStmtExecute:
		p := s.statementOf()
		if p == nil {
			return true
		}
		st = p.st
	default:
		return all
	}
	return !administers(&st) && (all || s.begins(&st))
}

// administers: it may be what the gate is closed for, and needs no server.
func administers(st *sqlparse.Statement) bool {
	return st.Class == sqlparse.StartGroup || st.Class == sqlparse.StopGroup || st.Has(sqlparse.FlagGroupFunc)
}

// begins reports whether a statement outside a transaction may write or begin one.
func (s *session) begins(st *sqlparse.Statement) bool {
	if s.status&wire.StatusAutocommit == 0 && startsTx(st) {
		return true
	}
	switch st.Class {
	case sqlparse.Read:
		return st.Has(sqlparse.FlagCall | sqlparse.FlagLocking)
	case sqlparse.Set, sqlparse.Do:
		return st.Has(sqlparse.FlagFrom | sqlparse.FlagCall)
	case sqlparse.Empty, sqlparse.Commit, sqlparse.Rollback, sqlparse.Savepoint, sqlparse.RollbackTo, sqlparse.ReleaseSavepoint,
		sqlparse.SetTransaction, sqlparse.XARecover, sqlparse.UnlockTables, sqlparse.Prepare, sqlparse.Deallocate, sqlparse.Diagnostics,
		sqlparse.Use, sqlparse.StartGroup, sqlparse.StopGroup:
		return false
	}
	return true
}
