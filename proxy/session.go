package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/wire"
	"cohort/proxy/relay"
	"cohort/sqlparse"
)

// session is one client joined to one connection to the primary's mysqld. It
// belongs to one goroutine, which reads a command, does what it takes, answers,
// and reads the next; fields are that goroutine's unless they say otherwise.
type session struct {
	srv     *Server
	r       *relay.Relay
	log     zerolog.Logger
	backend Backend

	// own is held while a command is worked on, or while the watch looks at why
	// the server is gone: whoever holds it owns both connections and all fields.
	own   sync.Mutex
	ended bool // by the watch
	// where is backend and thread id for other goroutines.
	where atomic.Pointer[place]
	ctx   context.Context // of serve
	// busy is since when, in ns of uptime, a command or a transaction of the session's runs, 0
	// while none does; harmless: one that neither writes nor is a transaction. For
	// other goroutines to read.
	busy     atomic.Int64
	harmless atomic.Bool
	// committing: its transaction's end was asked for, or a statement's that has run.
	// For other goroutines, too.
	committing atomic.Bool

	// working: a command may be at work on the server. For other goroutines, too.
	// used is when the last one ended there, late: that was the primary's no more by
	// then. parted: until then the session may have seen on another server what this
	// one lacks; see parted.go.
	working      atomic.Bool
	late         bool
	used, parted time.Time

	// What it takes to go on elsewhere, see rebuild.go.
	kept         kept
	stateChanged bool      // by the statement that runs, says the server
	since        time.Time // the session began on this backend
	down         bool      // the backend is lost or left
	judged, ends bool      // ends, once judged: the client's session ends with it
	gen          uint64    // counts the backends
	lastID       uint32    // highest prepared statement id the client was told
	blank        bool      // the diagnostics of the last statement are lost
	answered     bool      // the client has its whole answer
	outside      bool      // the statement began outside a transaction
	tries        int       // how often the command was begun again
	cur          *stmt

	cmd    *relay.Command
	textAt int    // where the statement's text begins in cmd.Payload
	prefix []byte // what stands there before the text, kept for several statements
	sent   bool   // cmd went to the backend and is consumed
	buf    []byte
	held   []byte // memory of the held reply's slices

	// What the server said last.
	status     wire.Status
	schema     string
	mode       sqlparse.Mode
	completion string // completion_type
	collation  uint16

	// What the client's own session_track settings ask for.
	shows     wire.TrackerSet
	shownVars string
	followed  string // session_track_system_variables as we set it

	tx transaction
	xa clientBranch
	// oneShot are SET TRANSACTION statements for the next transaction.
	oneShot []string
	// locked: LOCK TABLES. unwrapNext:
	// the next transaction is an ordinary one. All: see plain.
	locked, unwrapNext bool
	// pendingGTID is the set of local GTIDs committed and not yet ordered, as
	// far as the client was not answered yet; lastGTID the group's last one.
	pendingGTID, lastGTID string
	// owed is a transaction state that the next closing packet tells: the server
	// tells when explicit transactions begin and end, whatever was asked for.
	owed string
	// toldPlain is the state the client was told an ordinary transaction is in.
	toldPlain string
	// untracked: the session's own trackers are not as setup left them, since a
	// routine changed them. unlogged: sql_log_bin is off.
	untracked, unlogged bool
	tempTables          map[string]struct{}         // temporary ones, by tableKey
	tempUnnamed         bool                        // there are others
	routines            map[string]sqlparse.Routine // by callName
	diag                *diagnostics
	multi               bool // CLIENT_MULTI_STATEMENTS is on

	prepared map[uint32]*preparedStatement
	texts    map[string]preparedStatement
}

// shown reports whether a transaction that the first statement with autocommit
// off began is visible in the status flags.
func (t *transaction) shown() bool { return t.touched() }

func (s *session) info() SessionInfo {
	host, _, err := net.SplitHostPort(s.r.Client.RawConn().RemoteAddr().String())
	if err != nil {
		host = "localhost"
	}
	return SessionInfo{User: s.r.Login.User, Host: host, Schema: s.schema, ThreadID: s.r.ThreadID()}
}

// maxKept is how much memory a session keeps between commands.
const maxKept = 64 << 10

// serve runs the session to its end. ready is called once it takes commands.
func (s *session) serve(ctx context.Context, ready func()) (err error) {
	defer ready()
	defer func() {
		// A fault of ours ends this connection only.
		if p := recover(); p != nil {
			err = fmt.Errorf("proxy: panic: %v\n%s", p, debug.Stack())
		}
	}()
	if err := s.setup(); err != nil {
		return s.refuseAll(err)
	}
	s.since = time.Now()
	ready()
	for {
		cmd, err := s.r.ReadCommand()
		if err != nil {
			return err
		}
		if err := s.one(ctx, cmd); err != nil {
			return err
		}
	}
}

// one runs one command. An error ends the session.
func (s *session) one(ctx context.Context, cmd *relay.Command) error {
	s.own.Lock()
	defer s.own.Unlock()
	if s.ended {
		return ErrBackendLost
	}
	s.cmd, s.sent, s.prefix, s.answered, s.tries, s.cur = cmd, false, nil, false, 0, nil
	switch err := s.enter(ctx); {
	case errors.Is(err, errBlocked):
		return s.refuse(&stmt{}, errBlocked)
	case err != nil:
		return err
	}
	defer s.exit()
	s.working.Store(true)
	done, err := s.settle(ctx)
	if !done && err == nil {
		err = s.command(ctx)
	}
	s.landed()
	if cap(s.buf) > maxKept {
		s.buf = nil
	}
	if errors.Is(err, errStreamed) {
		return errors.Join(err, s.sendErr(wire.NewError(erNotSupportedYet, "42000",
			"This version of MySQL doesn't yet support 'this statement in a packet of more than 16 MB through cohort'")))
	}
	if err != nil && s.survives(err) {
		return nil
	}
	return err
}

// refuseAll answers the first command of a session that could not be set up (an
// expired password, for instance) and ends it: without its trackers nothing
// could be held back.
func (s *session) refuseAll(cause error) error {
	var se *wire.ServerError
	if errors.As(cause, &se) {
		if _, err := s.r.ReadCommand(); err == nil {
			_ = s.sendErr(se)
		}
	}
	return cause
}

// command runs one command of the client.
func (s *session) command(ctx context.Context) error {
	switch s.cmd.Code {
	case wire.ComQuery:
		return s.query(ctx)
	case wire.ComStmtPrepare:
		return s.prepare(ctx)
	case wire.ComStmtExecute:
		return s.execute(ctx)
	case wire.ComStmtClose:
		if arg := s.cmd.Arg(); len(arg) >= 4 {
			return s.closeStatement(binary.LittleEndian.Uint32(arg))
		}
		return s.oneWay()
	case wire.ComStmtSendLongData, wire.ComStmtReset, wire.ComStmtFetch:
		return s.ofStatement(ctx)
	case wire.ComQuit:
		_ = s.oneWay()
		return errClose
	case wire.ComResetConnection:
		return s.reset(ctx)
	case wire.ComChangeUser:
		return s.changeUser(ctx)
	case wire.ComSetOption:
		if arg := s.cmd.Arg(); len(arg) >= 2 {
			on := arg[0] == 0 && arg[1] == 0
			err := s.pass(ctx)
			if err == nil {
				s.multi = on
			}
			return err
		}
	case wire.ComBinlogDump, wire.ComBinlogDumpGTID:
		if err := s.r.Tunnel(); err != nil {
			return err
		}
		return errClose
	case wire.ComClone, wire.ComSubscribeGroupReplicationStream:
		return s.sendErr(wire.NewError(erNotSupportedYet, "42000",
			"This version of MySQL doesn't yet support 'this command through cohort; connect to the server itself'"))
	}
	return s.pass(ctx)
}

// oneWay forwards a command that has no answer.
func (s *session) oneWay() error {
	if err := s.r.Forward(); err != nil {
		return err
	}
	return s.r.Flush()
}

// pass forwards a command that begins and ends nothing.
func (s *session) pass(ctx context.Context) error {
	code := s.cmd.Code
	if code != wire.ComPing && code != wire.ComStatistics {
		s.diag = nil
	}
	var r reply
	err := s.repeat(ctx, nil, func() (err error) {
		if !s.sent {
			err = s.r.Forward()
		} else {
			err = s.r.Queue(code, s.cmd.Arg())
		}
		s.sent = true
		if err == nil {
			r, err = s.response(code, false)
		}
		if err != nil {
			return s.lostInTx(err)
		}
		return nil
	})
	if err != nil || s.answered {
		return err
	}
	if e := s.settleDirect(ctx, "command"); e != nil {
		return s.sendErr(e)
	}
	if r.err != nil {
		return s.sendErr(r.err)
	}
	return s.sendFinal(&r, false)
}

// reset handles COM_RESET_CONNECTION, which does not leave XA's state ROLLBACK
// ONLY by itself.
func (s *session) reset(ctx context.Context) error {
	if err := s.dropTx(); err != nil {
		return s.lostInTx(err)
	}
	if err := s.r.Forward(); err != nil {
		return err
	}
	r, err := s.response(wire.ComResetConnection, false)
	if err != nil {
		return s.lostInTx(err)
	}
	if r.err != nil {
		return s.sendErr(r.err)
	}
	return s.fresh(ctx, &r)
}

func (s *session) dropTx() error {
	s.xa = clientBranch{}
	if !s.tx.open() {
		return nil
	}
	_, err := s.rollbackTx()
	return err
}

// fresh forgets everything about the session before a reset, and answers.
func (s *session) fresh(ctx context.Context, r *reply) error {
	s.tx, s.xa, s.oneShot, s.diag = transaction{}, clientBranch{}, nil, nil
	s.locked, s.tempUnnamed, s.unwrapNext, s.owed = false, false, false, ""
	s.prepared, s.texts, s.tempTables, s.routines = nil, nil, nil, nil
	s.kept = kept{}
	s.parted = time.Time{}
	if e := s.settleDirect(ctx, "command"); e != nil {
		return s.sendErr(e)
	}
	own := *r
	trackers := append(wire.Trackers(nil), r.ok.Trackers...)
	own.ok.Trackers = trackers
	own.ok.Info = nil
	if err := s.setup(); err != nil {
		return err
	}
	return s.sendFinal(&own, false)
}

func (s *session) changeUser(ctx context.Context) error {
	if err := s.dropTx(); err != nil {
		return s.lostInTx(err)
	}
	out, err := s.r.ChangeUser(&relay.ResponseOptions{Hold: true})
	if err != nil {
		return err
	}
	if out.Kind == relay.KindErr {
		return errClose
	}
	s.status = out.Status
	return s.fresh(ctx, &reply{out: out, ok: out.OK})
}

// query handles COM_QUERY: one statement, or several if the client may.
func (s *session) query(ctx context.Context) error {
	attrs, text, err := wire.SplitQuery(s.cmd.Arg(), s.r.ClientCaps)
	if err != nil {
		return s.sendErr(wire.NewError(1835, "HY000", "Malformed communication packet."))
	}
	s.textAt = 1 + len(attrs)
	st := sqlparse.Classify(text, s.mode)
	if !s.multi || st.Rest >= len(text) {
		return s.statement(ctx, &stmt{st: st, text: text, query: true})
	}
	if s.cmd.Streamed {
		return s.sendErr(wire.NewError(erNotSupportedYet, "42000",
			"This version of MySQL doesn't yet support 'several statements in a packet of more than 16 MB through cohort'"))
	}
	// LOCAL INFILE reads from the client in between: the text has to be ours.
	text = append([]byte(nil), text...)
	s.prefix = append([]byte(nil), s.cmd.Payload[:s.textAt]...)
	for {
		q := stmt{st: st, text: text[:st.End], query: true, more: st.Rest < len(text)}
		if st.Class == sqlparse.Empty && q.more {
			q.text, q.more = text, false // a syntax error, with the words of the server
		}
		if err := s.statement(ctx, &q); err != nil {
			return err
		}
		if q.failed || !q.more {
			return nil
		}
		text = text[st.Rest:]
		st = sqlparse.Classify(text, s.mode)
	}
}

// statement runs one statement of the text protocol.
func (s *session) statement(ctx context.Context, q *stmt) error {
	switch q.st.Class {
	case sqlparse.Prepare:
		return s.prepareText(ctx, q)
	case sqlparse.Execute:
		s.executeText(q)
	}
	return s.run(ctx, q)
}

func errorCondition(e *wire.ServerError) condition {
	return condition{level: "Error", code: strconv.Itoa(int(e.Code)), message: e.Message, state: e.State}
}
