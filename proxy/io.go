package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"context"

	"cohort/internal/wire"
	"cohort/proxy/relay"
)

// reply is how a statement of the client's ended. Nothing of its final packet
// went to the client yet.
type reply struct {
	out  relay.Outcome
	ok   wire.OK           // owned; zero when err is set
	err  *wire.ServerError // the ERR packet
	rows bool              // it ended a result set
	// streamed: a part of the response is already with the client, so that the
	// statement cannot be run again.
	streamed bool
}

func isBackendLost(err error) bool {
	return errors.Is(err, relay.ErrBackend) || errors.Is(err, ErrBackendLost)
}

func backendError(err error) error { return fmt.Errorf("%w: %w", ErrBackendLost, err) }

func foldEqual(b []byte, s string) bool { return strings.EqualFold(string(b), s) }

// noteOK keeps what an OK of the backend says about the session. It is called
// for every closing packet, in order.
func (s *session) noteOK(ok *wire.OK) {
	s.status = ok.Status
	s.noteState(ok)
	if s.mode.NoBackslashEscapes != (ok.Status&wire.StatusNoBackslashEscapes != 0) {
		s.mode.NoBackslashEscapes = !s.mode.NoBackslashEscapes
	}
	if len(ok.Trackers) == 0 {
		return
	}
	for typ := range ok.Trackers.All() {
		switch typ {
		case wire.TrackTxState:
			if st, told := ok.Trackers.TxState(); told {
				s.tx.state = st
			}
		case wire.TrackSchema:
			s.schema, _ = ok.Trackers.Schema()
		case wire.TrackStateChange:
			s.stateChanged = true
		case wire.TrackGTIDs:
			if g := ok.Trackers.GTID(); g != "" {
				if s.pendingGTID != "" {
					g = s.pendingGTID + "," + g
				}
				s.pendingGTID = g
			}
		case wire.TrackSystemVariables:
			for name, value := range ok.Trackers.SysVars() {
				s.sysVar(name, value)
			}
		}
	}
}

// exec runs statements of our own, in one write, and returns all replies.
func (s *session) exec(sqls ...string) ([]wire.Reply, error) {
	rs, err := s.execEnd(sqls...)
	if err == nil && len(rs) > 0 {
		s.notePending(&rs[len(rs)-1].OK)
	}
	return rs, err
}

// execEnd is exec for statements whose last one ends a transaction: the caller
// looks at the GTID of that one by itself.
func (s *session) execEnd(sqls ...string) ([]wire.Reply, error) {
	for _, sql := range sqls {
		if err := s.r.QueueQuery(sql); err != nil {
			return nil, err
		}
	}
	rs := make([]wire.Reply, len(sqls))
	for i := range rs {
		if err := s.swallow(wire.ComQuery, &rs[i]); err != nil {
			return nil, err
		}
		if i < len(rs)-1 {
			s.notePending(&rs[i].OK)
		}
	}
	return rs, nil
}

// swallow reads one response to a command of our own.
func (s *session) swallow(code byte, rep *wire.Reply) error {
	var row [][]byte
	opt := relay.ResponseOptions{Swallow: true, Row: func(p []byte) {
		// Our own queries have at most eight columns; the row says how many.
		var n int
		for rest := p; len(rest) > 0; n++ {
			if rest[0] == 0xfb {
				rest = rest[1:]
				continue
			}
			var ok bool
			if _, rest, ok = wire.ReadLenencString(rest); !ok {
				return
			}
		}
		var err error
		if row, err = wire.ParseTextRow(p, n, row); err != nil {
			return
		}
		own := make([][]byte, len(row))
		for i, v := range row {
			own[i] = bytes.Clone(v)
		}
		rep.Rows = append(rep.Rows, own)
	}}
	out, err := s.r.Response(code, &opt)
	if err != nil {
		return err
	}
	if out.Err != nil {
		rep.Err = out.Err
		return nil
	}
	rep.OK = out.OK
	rep.OK.Info = nil
	rep.OK.Trackers = bytes.Clone(out.Trackers)
	s.status = out.Status
	if st, told := rep.OK.Trackers.TxState(); told {
		s.tx.state = st
	}
	for name, value := range rep.OK.Trackers.SysVars() {
		s.sysVar(name, value)
	}
	return nil
}

// ping asks for the status flags and keeps the diagnostics area.
func (s *session) ping() (wire.OK, error) {
	if err := s.r.Queue(wire.ComPing, nil); err != nil {
		return wire.OK{}, err
	}
	var rep wire.Reply
	if err := s.swallow(wire.ComPing, &rep); err != nil {
		return wire.OK{}, err
	}
	if rep.Err != nil {
		return wire.OK{}, backendError(rep.Err)
	}
	return rep.OK, nil
}

// forward sends pre and then the client's statement, in one write, and reads
// the replies up to the statement's final packet, which is held back.
func (s *session) forward(_ context.Context, pre []string, q *stmt) ([]wire.Reply, reply, error) {
	for _, sql := range pre {
		if err := s.r.QueueQuery(sql); err != nil {
			return nil, reply{}, err
		}
	}
	if err := s.send(q); err != nil {
		return nil, reply{}, err
	}
	var rs []wire.Reply
	if len(pre) > 0 {
		rs = make([]wire.Reply, len(pre))
		for i := range rs {
			if err := s.swallow(wire.ComQuery, &rs[i]); err != nil {
				return nil, reply{}, err
			}
			s.notePending(&rs[i].OK)
		}
	}
	r, err := s.response(s.cmd.Code, q.more)
	return rs, r, err
}

// notePending keeps the GTID of an earlier statement whose ERR packet could not
// carry it.
func (s *session) notePending(ok *wire.OK) {
	if g := ok.Trackers.GTID(); g != "" {
		if s.pendingGTID != "" {
			g = s.pendingGTID + "," + g
		}
		s.pendingGTID = g
	}
}

// send queues the statement's command for the backend.
func (s *session) send(q *stmt) error {
	switch {
	case q.payload != nil:
		s.sent = true
		return s.r.ForwardAs(q.payload)
	case q.query:
		if !s.sent && len(q.text) == len(s.cmd.Payload)-s.textAt && sameMemory(q.text, s.cmd.Payload[s.textAt:]) {
			s.sent = true
			return s.r.Forward()
		}
		if s.cmd.Streamed {
			return errStreamed
		}
		s.sent = true
		prefix := s.prefix
		if prefix == nil {
			prefix = s.cmd.Payload[:s.textAt]
		}
		s.buf = append(append(s.buf[:0], prefix...), q.text...)
		return s.r.ForwardAs(s.buf)
	case !s.sent:
		s.sent = true
		return s.r.Forward()
	case s.cmd.Streamed:
		return errStreamed
	}
	return s.r.Queue(s.cmd.Code, s.cmd.Arg())
}

// errStreamed: a command too long to be kept would have to be sent twice.
var errStreamed = errors.New("proxy: the statement is too long to be run again in another way")

func sameMemory(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// response relays the backend's response to code but for its final packet.
func (s *session) response(code byte, _ bool) (reply, error) {
	opt := relay.ResponseOptions{Hold: true, Rewrite: s.rewrite}
	if code == wire.ComStmtPrepare {
		opt.StmtID = s.clientID
	}
	out, err := s.r.Response(code, &opt)
	if err != nil {
		return reply{}, err
	}
	r := reply{out: out, streamed: out.Relayed}
	if out.Kind == relay.KindErr {
		r.err = out.Err
		return r, nil
	}
	if out.Kind == relay.KindOther {
		return r, nil
	}
	s.noteOK(&out.OK)
	r.ok = out.OK
	r.rows = out.Kind == relay.KindEOF
	// What is held outlives further responses.
	if n := len(out.Info) + len(out.Trackers); n > 0 {
		s.held = append(append(s.held[:0], out.Info...), out.Trackers...)
		r.ok.Info = s.held[:len(out.Info):len(out.Info)]
		r.ok.Trackers = wire.Trackers(s.held[len(out.Info):n:n])
	}
	return r, nil
}

// rewrite alters a closing packet on its way to the client.
func (s *session) rewrite(out *relay.Outcome, last bool) bool {
	if out.Kind == relay.KindErr {
		return false
	}
	if !last {
		s.noteOK(&out.OK)
	}
	status := s.shownStatus(out.Status)
	changed := status != out.Status
	out.Status = status
	if (len(out.Trackers) > 0 || s.owed != "") && s.r.ClientCaps.Has(wire.SessionTrack) {
		out.Trackers = s.shownTrackers(out.Trackers)
		changed = true
	}
	return changed
}

// shownStatus is what an ordinary transaction would show.
func (s *session) shownStatus(st wire.Status) wire.Status {
	if s.tx.open() && (s.tx.auto || !s.tx.explicit && !s.tx.shown()) {
		st &^= wire.StatusInTrans | wire.StatusInTransReadonly
	}
	return st&^wire.StatusMoreResults | st&wire.StatusMoreResults
}

// shownTrackers leaves only what the client's own settings ask for.
func (s *session) shownTrackers(t wire.Trackers) wire.Trackers {
	out := make(wire.Trackers, 0, len(t))
	for typ, data := range t.All() {
		switch {
		case typ == wire.TrackGTIDs:
			if s.shows.Has(typ) && s.lastGTID != "" {
				out = wire.AppendTracker(out, typ, s.lastGTID)
			}
		case typ == wire.TrackSystemVariables:
			out = s.appendShownVars(out, data)
		case typ == wire.TrackTxState && (s.tx.auto || s.owed != ""):
		case typ == wire.TrackTxState && !s.tx.open() && !s.shows.Has(typ):
			if s.tellsPlain(data) {
				out = wire.AppendLenencString(append(out, byte(typ)), data)
			}
		case s.shows.Has(typ):
			out = wire.AppendLenencString(append(out, byte(typ)), data)
		}
	}
	if s.owed != "" {
		out = wire.AppendTracker(out, wire.TrackTxState, s.owed)
		s.owed = ""
	}
	return out
}

// tellsPlain reports whether the server would tell an ordinary transaction's
// state to a client that did not ask for it: when it begins, and when one that
// was told of ends.
func (s *session) tellsPlain(data []byte) bool {
	v, _, _ := wire.ReadLenencString(data)
	switch {
	case string(v) == s.toldPlain:
	case string(v) == stateBegun, string(v) == stateSnapshot, string(v) == stateNone && s.toldPlain != "":
		s.toldPlain = string(v)
		if s.toldPlain == stateNone {
			s.toldPlain = ""
		}
		return true
	}
	return false
}

// appendShownVars appends the variables that the client's own
// session_track_system_variables names; each one is an entry of its own.
func (s *session) appendShownVars(out wire.Trackers, data []byte) wire.Trackers {
	for len(data) > 0 {
		name, rest, ok := wire.ReadLenencString(data)
		if !ok {
			break
		}
		_, rest, ok = wire.ReadLenencString(rest)
		if !ok {
			break
		}
		if s.showsVar(string(name)) {
			out = wire.AppendLenencString(append(out, byte(wire.TrackSystemVariables)), data[:len(data)-len(rest)])
		}
		data = rest
	}
	return out
}

// sendFinal sends the packet that was held.
func (s *session) sendFinal(r *reply, more bool) error {
	out := r.out
	if r.err == nil && (out.Kind == relay.KindOK || out.Kind == relay.KindEOF) {
		out.OK = r.ok
	}
	s.answered = !more
	if !out.Held {
		return nil
	}
	return s.r.Finish(&out, &relay.ResponseOptions{MoreResults: more, Rewrite: s.rewrite})
}

func (s *session) sendOK(ok *wire.OK, more bool) error {
	own := *ok
	if more {
		own.Status |= wire.StatusMoreResults
	}
	if len(own.Trackers) > 0 || s.owed != "" {
		own.Trackers = s.shownTrackers(own.Trackers)
	}
	s.answered = !more
	return s.r.SendOK(&own)
}

func (s *session) sendErr(e *wire.ServerError) error {
	err := s.r.SendError(e)
	s.answered = err == nil
	return err
}

func (s *session) sendResult(cols []wire.Column, rows [][][]byte, ok *wire.OK) error {
	s.answered = ok.Status&wire.StatusMoreResults == 0
	return s.r.SendResult(cols, rows, ok)
}
