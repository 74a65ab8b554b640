package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"cohort/internal/rawnet"
	"cohort/internal/wire"
	"cohort/proxy/relay"
)

// unable: the session cannot be built again, now or later.
type unable struct{ why string }

func (u *unable) Error() string { return "proxy: build a session again: " + u.why }

var errReadOnly = errors.New("proxy: the primary's server does not take writes yet")

func dialer(b Backend) relay.Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		return new(rawnet.Dialer).DialContext(ctx, b.Network, b.Addr)
	}
}

// rebuild opens the session anew on the present primary's server and gives it
// what it had. It waits up to RebuildWait for a primary.
func (s *session) rebuild(ctx context.Context) error {
	begun, from := time.Now(), s.backend
	ctx, cancel := context.WithTimeout(ctx, s.srv.opt.RebuildWait)
	defer cancel()
	_ = s.r.Backend.Close()
	s.down = true
	login := s.r.Login
	login.DB = s.schema
	pause := 20 * time.Millisecond
	for {
		err := s.attempt(ctx, &login)
		if err == nil {
			s.log.Debug().Str("from", from.Addr).Str("to", s.backend.Addr).Uint64("epoch", s.backend.Epoch).
				Uint32("thread", s.r.ThreadID()).Dur("took", time.Since(begun)).Msg("session moved to the new primary")
			s.srv.rebuilt.Add(1)
			return nil
		}
		var u *unable
		if errors.As(err, &u) || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 500*time.Millisecond)
		case <-ctx.Done():
			return err
		}
	}
}

// attempt is one attempt.
func (s *session) attempt(ctx context.Context, login *relay.Login) error {
	var b Backend
	cl, err := s.srv.acc.OpenBackend(ctx, func(ctx context.Context) (c net.Conn, err error) {
		c, b, err = s.srv.dial(ctx)
		return c, err
	}, login)
	var se *wire.ServerError
	switch {
	case errors.As(err, &se) && se.Code == 1049 && login.DB != "":
		login.DB = "" // dropped meanwhile
		return err
	case errors.As(err, &se) && (!passes(se.Code) || se.Code == erOfflineMode && b.Epoch == 0):
		// A member that is out of the group may stay in offline mode.
		return &unable{fmt.Sprintf("the server refused its login (%v)", se)}
	case errors.Is(err, relay.ErrNoSecret):
		return &unable{s.unfit()}
	case err != nil:
		return err
	}
	_ = s.r.Backend.Close()
	s.r.SetBackend(cl)
	s.parted = partedAt(s.backend, b, s.parted, stay{s.since, s.used, s.late})
	s.backend, s.since, s.late = b, time.Now(), false
	s.where.Store(&place{b, cl.ThreadID(), cl.Conn.RawConn()})
	s.gen++
	defer context.AfterFunc(ctx, func() { _ = cl.Close() })()
	if err := s.restore(); err != nil {
		_ = cl.Close()
		return err
	}
	s.down, s.judged, s.ends, s.tempUnnamed = false, false, false, false
	s.blank, s.stateChanged = s.diag == nil, false
	return nil
}

// passes: another attempt may not meet this error of a login.
func passes(code uint16) bool {
	switch code {
	case 1040, 1053, 1203, 1226, 2003, erOfflineMode: // too many connections, shutdown, offline mode, no primary
		return true
	}
	return false
}

// restore gives the session on a new server what it had.
func (s *session) restore() error {
	shows, shown, owed, oneShot := s.shows, s.shownVars, s.owed, s.oneShot
	if err := s.setup(); err != nil {
		return s.refusal(err)
	}
	// A server that has just started, or is not a primary yet, refuses writes.
	ro, err := s.exec("SELECT @@GLOBAL.super_read_only OR @@GLOBAL.read_only")
	if err != nil {
		return err
	}
	if ro[0].Str(0, 0) == "1" && s.backend.Epoch != 0 {
		return errReadOnly
	}
	s.shows, s.shownVars, s.owed, s.oneShot, s.toldPlain = shows, shown, owed, oneShot, ""
	var sqls []string
	if f := follow(shown); f != s.followed {
		s.followed = f
		sqls = append(sqls, "SET SESSION session_track_system_variables='"+f+"'")
	}
	sqls = append(sqls, s.kept.sql()...)
	rs, err := s.exec(sqls...)
	if err != nil {
		return err
	}
	for i := range rs {
		if rs[i].Err != nil {
			return &unable{fmt.Sprintf("%s: %v", sqls[i], rs[i].Err)}
		}
	}
	if s.multi != s.r.Login.Caps.Has(wire.MultiStatements) {
		arg := []byte{1, 0}
		if s.multi {
			arg[0] = 0
		}
		var rep wire.Reply
		if err := s.r.Queue(wire.ComSetOption, arg); err != nil {
			return err
		}
		if err := s.swallow(wire.ComSetOption, &rep); err != nil {
			return err
		}
	}
	sqls = nil
	for _, p := range s.texts {
		if p.full != nil {
			sqls = append(sqls, "PREPARE "+string(p.name)+" FROM "+quote(string(p.full), s.mode.NoBackslashEscapes))
		}
	}
	sqls = append(sqls, oneShot...)
	// A statement that cannot be prepared any more is unknown to EXECUTE.
	if _, err = s.exec(sqls...); err != nil {
		return err
	}
	for _, p := range s.prepared {
		p.lost, p.long = p.lost || p.long, false
	}
	return nil
}

// refusal makes a server's own error final.
func (s *session) refusal(err error) error {
	var se *wire.ServerError
	if errors.As(err, &se) && !isBackendLost(err) {
		return &unable{se.Error()}
	}
	return err
}

// sql returns statements that set the variables.
func (k *kept) sql() []string {
	var out []string
	names := slices.SortedFunc(maps.Keys(k.vars), func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, n := range names {
		v := k.vars[n]
		switch {
		case n == "character_set_results" && v == "":
			v = "NULL"
		case !numeric(v):
			v = quote(v, false)
		}
		out = append(out, "SET SESSION `"+n+"`="+v)
	}
	for _, n := range slices.Sorted(maps.Keys(k.userVars)) {
		out = append(out, "SET @`"+strings.ReplaceAll(n, "`", "``")+"`="+k.userVars[n])
	}
	if k.role != "" {
		out = append(out, k.role)
	}
	if k.insertID != 0 {
		out = append(out, "SET SESSION last_insert_id="+strconv.FormatUint(k.insertID, 10))
	}
	return out
}

// rank orders variables: a character set resets its collation, and sql_mode
// decides how the values of the others are spelled.
func rank(name string) int {
	switch {
	case strings.HasPrefix(name, "character_set_"):
		return 0
	case name == "collation_connection":
		return 1
	case name == "sql_mode":
		return 3
	}
	return 2
}

func quote(v string, noBackslash bool) string {
	if !noBackslash {
		v = strings.ReplaceAll(v, `\`, `\\`)
	}
	return "'" + strings.ReplaceAll(v, "'", "''") + "'"
}

// readUserVars asks a server that the session is about to leave for the values
// that only it knows.
func (s *session) readUserVars(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for name, sql := range s.kept.userVars {
		if sql != "" {
			continue
		}
		v := "@`" + strings.ReplaceAll(name, "`", "``") + "`"
		r, err := s.r.Backend.Query(ctx, "SELECT "+v+", HEX("+v+"), CHARSET("+v+"), COLLATION("+v+")")
		if err != nil || len(r.Rows) != 1 || len(r.Columns) != 4 {
			return
		}
		s.kept.setUserVar(name, userValue(r))
	}
}

// userValue spells the value in the first column.
func userValue(r *wire.Reply) string {
	if r.Rows[0][0] == nil {
		return "NULL"
	}
	switch r.Columns[0].Type {
	case 1, 2, 3, 8, 9, 0, 246:
		return r.Str(0, 0)
	case 4, 5:
		if v := r.Str(0, 0); strings.ContainsAny(v, "eE") {
			return v
		}
		return r.Str(0, 0) + "e0"
	}
	if r.Str(0, 2) == "binary" {
		return "x'" + r.Str(0, 1) + "'"
	}
	return "_" + r.Str(0, 2) + " x'" + r.Str(0, 1) + "' COLLATE " + r.Str(0, 3)
}
