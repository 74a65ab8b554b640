package proxy

import (
	"context"
	"errors"
	"net"
	"time"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

// errAgain: the server went away under a statement that certainly had no effect
// and of whose answer the client has seen nothing. It is run again elsewhere.
var errAgain = errors.New("proxy: run the statement again")

// maxTries bounds how often one command is begun again.
const maxTries = 5

// place is where a session runs, for other goroutines.
type place struct {
	backend Backend
	thread  uint32
	conn    net.Conn
}

const (
	// stuckAfter is how long a session may still wait for a server that is the primary
	// no more. One that is fenced ends its sessions sooner; one that stands still, or
	// cannot be reached, never does: of one that is not heard nothing is awaited.
	stuckAfter = time.Second
	// evictEvery is the pause between two looks at the sessions.
	evictEvery = 50 * time.Millisecond
)

// runEvict closes, until ctx ends, the server's side of sessions that are at work
// on a server which is not the primary any more: they then find the true outcome
// and go on elsewhere. An idle session moves by itself with its next command.
func (s *Server) runEvict(ctx context.Context) {
	t := time.NewTicker(evictEvery)
	defer t.Stop()
	since := make(map[*place]time.Time)
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		seen := make(map[*place]time.Time)
		s.mu.Lock()
		for ss := range s.live {
			at := ss.where.Load()
			if !s.opt.Group.Moved(at.backend) {
				continue
			}
			begun, ok := since[at]
			if !ok {
				begun = time.Now()
			}
			seen[at] = begun
			if time.Since(begun) < s.opt.stuckAfter && !s.opt.Group.Unheard(at.backend) {
				continue
			}
			if ss.own.TryLock() {
				ss.own.Unlock()
				continue
			}
			_ = at.conn.Close()
		}
		s.mu.Unlock()
		since = seen
	}
}

// newXID makes an xid for this session's server. The view may have moved on since
// the session was last found to be in the right place: an xid made for another
// primary would have no verdict for as long as that one lives.
func (s *session) newXID() (string, error) {
	xid := s.srv.opt.Group.NewXID()
	return xid, s.inPlace()
}

// inPlace leaves a server that sessions have to leave.
func (s *session) inPlace() error {
	if !s.srv.opt.Group.Moved(s.backend) {
		return nil
	}
	_ = s.r.Backend.Close()
	return ErrBackendLost
}

// notBegun ends a statement of which nothing was sent: it begins again, whatever it
// is, unless a part of it went to the old server.
func (s *session) notBegun(err error) error {
	if isBackendLost(err) && s.unheard() && s.whole() && s.goesOn() {
		return errAgain
	}
	return s.lostInTx(err)
}

func (s *session) inTransaction() bool {
	return s.tx.open() || s.xa.open || s.status&wire.StatusInTrans != 0
}

// repeat runs f, which works on the client's present command, and begins again
// on the new primary where f asks for it. s.answered tells, when it returns nil,
// whether the client was told of a failure to do so.
func (s *session) repeat(ctx context.Context, q *stmt, f func() error) error {
	var saved stmt
	if q != nil {
		saved = *q
	}
	for {
		s.cur, s.outside = q, !s.inTransaction()
		err := f()
		if !errors.Is(err, errAgain) {
			return err
		}
		s.tries++
		s.leave()
		if q != nil {
			*q = saved
		}
		if done, err := s.move(ctx); done || err != nil {
			if q != nil {
				q.failed = true
			}
			return err
		}
	}
}

// again reports whether the present statement, which was lost, can be begun
// again. proven: what it would have written is certainly rolled back.
func (s *session) again(proven bool) bool {
	return s.unheard() && s.repeatable(proven) && s.goesOn()
}

// unheard reports whether the present statement stands by itself and can be sent
// again without the client noticing.
func (s *session) unheard() bool {
	return s.outside && !s.answered && !s.r.Begun() && !s.cmd.Streamed && s.tries < maxTries
}

// whole reports whether all of the present command is at hand to be sent again, and
// that can be done.
func (s *session) whole() bool {
	q := s.cur
	if q == nil {
		switch s.cmd.Code {
		case wire.ComPing, wire.ComInitDB, wire.ComStatistics, wire.ComSetOption, wire.ComFieldList:
			return true
		}
		return false
	}
	return q.binary == nil || !q.binary.long
}

func (s *session) repeatable(proven bool) bool {
	if !s.whole() {
		return false
	}
	if s.cur == nil {
		return true
	}
	st := s.cur.effective()
	switch st.Class {
	case sqlparse.DML:
		return proven
	case sqlparse.Read, sqlparse.Set, sqlparse.Do:
		// A stored function may have written, and committed, by itself.
		return !st.Has(sqlparse.FlagCall)
	case sqlparse.Begin, sqlparse.Commit, sqlparse.Rollback, sqlparse.Use, sqlparse.Prepare, sqlparse.Deallocate, sqlparse.SetTransaction, sqlparse.Empty:
		return true
	}
	return false
}

// goesOn reports whether the client's session outlives the loss of its server.
func (s *session) goesOn() bool { return !s.alone() && s.unfit() == "" }

// alone reports whether the server ended just this session (KILL, for instance)
// and lives on: the client's session then ends too, as without us.
func (s *session) alone() bool {
	if !s.judged {
		s.judged, s.ends = true, s.endedAlone()
	}
	return s.ends
}

// aloneWait is how long the news that there is another primary may take, and
// aloneTimeout bounds asking a server whether it lives.
const (
	aloneWait    = time.Second
	aloneTimeout = 2 * time.Second
)

func (s *session) endedAlone() bool {
	if s.srv.opt.Group.Moved(s.backend) {
		return false
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.srv.opt.aloneTimeout)
	defer cancel()
	login := s.r.Login
	login.DB = ""
	cl, err := s.srv.acc.OpenBackend(ctx, dialer(s.backend), &login)
	if err != nil {
		return false
	}
	defer func() { _ = cl.Quit() }()
	r, err := cl.Query(ctx, "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME='Uptime'")
	if err != nil {
		return false
	}
	up, err := time.ParseDuration(r.Str(0, 0) + "s")
	// Both ends of Uptime are whole seconds: it may be one second off.
	if err != nil || time.Now().Add(-up-time.Second).After(s.since) || cl.ThreadID() <= s.r.ThreadID() {
		return false // another start of the server
	}
	wait := s.srv.opt.aloneWait
	over := time.After(wait)
	look := time.NewTicker(wait / 20)
	defer look.Stop()
	for !s.srv.opt.Group.Moved(s.backend) {
		select {
		case <-look.C:
		case <-over:
			return true
		case <-s.ctx.Done():
			return true
		}
	}
	return false
}

// leave gives the present server up; what was open there is rolled back.
func (s *session) leave() {
	s.landed()
	s.down = true
	_ = s.r.Backend.Close()
	if s.tx.explicit {
		s.owed = stateNone
	}
	s.tx, s.xa, s.oneShot = transaction{}, clientBranch{}, nil
	s.status &^= wire.StatusInTrans | wire.StatusInTransReadonly
	s.pendingGTID = ""
}

// survives decides, after a command ended with an error, whether the session
// goes on.
func (s *session) survives(err error) bool {
	if !isBackendLost(err) || errors.Is(err, errOutcome) || errors.Is(err, errClose) || !s.goesOn() {
		return false
	}
	if !s.answered && s.sendErr(wire.NewError(erDuringCommit, "HY000",
		"Lost connection to the primary's server during the statement; what it did is unknown")) != nil {
		return false
	}
	s.leave()
	return true
}

// tellLost answers a statement whose server went away before anything of it,
// or of the transaction around it, could be prepared.
func (s *session) tellLost() {
	switch {
	case s.alone():
		_ = s.sendErr(lostError())
	case s.unfit() != "":
		_ = s.sendErr(unfitError(s.unfit()))
	case s.outside:
		_ = s.sendErr(wire.NewError(erLockDeadlock, "40001",
			"The primary's server went away during the statement, which had no effect; try again"))
	default:
		_ = s.sendErr(s.undone())
	}
}

// undone is what the present command gets in a transaction whose server is gone: a
// COMMIT on a member that has left the group is answered as Group Replication does.
func (s *session) undone() *wire.ServerError {
	if s.isOnly(func(st *sqlparse.Statement) bool { return st.Class == sqlparse.Commit }) && s.outOfGroup() {
		return wire.NewError(erRunHook, "HY000", "Error on observer while running replication hook 'before_commit'.")
	}
	return rolledBackError()
}

// outOfGroup reports whether this member has left the group meanwhile: its sessions go
// on where nothing can be written.
func (s *session) outOfGroup() bool {
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	b, err := s.srv.opt.Group.Primary(ctx)
	return err == nil && b.Epoch == 0
}

func rolledBackError() *wire.ServerError {
	return wire.NewError(erLockDeadlock, "40001",
		"The primary's server went away during the transaction, which is rolled back; try restarting transaction")
}

func unfitError(why string) *wire.ServerError {
	return wire.NewError(erServerShutdown, "08S01",
		"The primary's server went away, and the session cannot go on elsewhere: %s; the connection is closed", why)
}

// settle makes sure, before a command, that the session is where the primary is.
// done says that the client has its answer, if there is one.
func (s *session) settle(ctx context.Context) (done bool, err error) {
	if !s.down {
		if !s.srv.opt.Group.Moved(s.backend) {
			return false, nil
		}
		s.judged, s.ends = true, false
	}
	s.working.Store(false) // nothing was sent yet
	code := s.cmd.Code
	switch code {
	case wire.ComQuit:
		return true, errClose
	case wire.ComStmtClose, wire.ComStmtSendLongData:
		return true, s.unanswered()
	case wire.ComPing:
		if s.inTransaction() { // which the next statement will be told of
			return true, s.sendOK(&wire.OK{Status: s.shownStatus(s.status)}, false)
		}
	case wire.ComResetConnection, wire.ComChangeUser:
		s.leave()
		s.locked, s.tempTables, s.prepared, s.texts = false, nil, nil, nil
		s.kept = kept{}
	}
	if s.alone() {
		return true, ErrBackendLost
	}
	if !s.down {
		s.readUserVars(ctx)
	}
	if why := s.unfit(); why != "" {
		s.log.Info().Str("reason", why).Msg("session ended: it cannot be moved to the new primary")
		return true, firstErr(s.sendErr(unfitError(why)), errClose)
	}
	if s.inTransaction() {
		rollback := s.isOnly(func(st *sqlparse.Statement) bool {
			return st.Class == sqlparse.Rollback && st.Chain != sqlparse.Yes && st.Release != sqlparse.Yes
		})
		s.leave()
		if rollback {
			return true, s.sendOK(&wire.OK{Status: s.shownStatus(s.status)}, false)
		}
		return true, s.sendErr(s.undone())
	}
	return s.move(ctx)
}

// isOnly recognises a COM_QUERY that is nothing but one statement of a kind.
func (s *session) isOnly(kind func(*sqlparse.Statement) bool) bool {
	if s.cmd.Code != wire.ComQuery || s.cmd.Streamed {
		return false
	}
	_, text, err := wire.SplitQuery(s.cmd.Arg(), s.r.ClientCaps)
	if err != nil {
		return false
	}
	st := sqlparse.Classify(text, s.mode)
	return st.Rest >= len(text) && kind(&st)
}

// move builds the session again and tells the client where that fails.
func (s *session) move(ctx context.Context) (done bool, err error) {
	err = s.rebuild(ctx)
	var u *unable
	switch {
	case err == nil:
		s.working.Store(true)
		return false, nil
	case errors.As(err, &u):
		s.log.Info().Err(err).Msg("session ended: it cannot be moved to the new primary")
		s.judged, s.ends = true, true
		return true, firstErr(s.sendErr(unfitError(u.why)), errClose)
	case s.ctx.Err() != nil:
		return true, err
	}
	return true, s.sendErr(wire.NewError(erUnknown, "HY000",
		"The group has no primary that takes sessions at present; the statement was not run (%v)", err))
}

// unfit says why the session cannot be built again on another server, "" if it
// can.
func (s *session) unfit() string {
	switch {
	case !s.r.Login.Secret.Usable():
		return "this member does not know the client's password, which it learns over TLS"
	case len(s.tempTables) > 0:
		return "it has temporary tables"
	case s.locked:
		return "it had locked tables"
	case s.kept.handlers > 0:
		return "it has open HANDLERs"
	case s.kept.taint != "":
		return s.kept.taint
	}
	for name, sql := range s.kept.userVars {
		if sql == "" {
			return "the value of its user variable @" + name + " is lost"
		}
	}
	return ""
}
