package proxy

import (
	"bytes"
	"context"
	"encoding/binary"

	"cohort/internal/wire"
	"cohort/proxy/relay"
)

// clientID is the id the client is told for a statement the server prepared: the
// server's own until the session moves, and one that was never used afterwards.
func (s *session) clientID(id uint32) uint32 {
	if s.gen > 0 {
		id = s.lastID + 1
	}
	s.lastID = max(s.lastID, id)
	return id
}

// statementOf is what the present command's statement id stands for.
func (s *session) statementOf() (p *preparedStatement) {
	if arg := s.cmd.Arg(); len(arg) >= 4 {
		p = s.prepared[binary.LittleEndian.Uint32(arg)]
	}
	return p
}

// address puts the server's id into the present command.
func (s *session) address(p *preparedStatement) {
	binary.LittleEndian.PutUint32(s.cmd.Payload[1:], p.id)
}

// closeStatement handles COM_STMT_CLOSE.
func (s *session) closeStatement(id uint32) error {
	p := s.prepared[id]
	delete(s.prepared, id)
	if p == nil {
		if s.gen > 0 {
			return s.r.DropCommand()
		}
		return s.oneWay()
	}
	s.kept.memory -= len(p.full) + len(p.types)
	if p.gen != s.gen {
		return s.r.DropCommand()
	}
	s.address(p)
	return s.oneWay()
}

// unanswered handles a command without an answer while there is no server.
func (s *session) unanswered() error {
	if p := s.statementOf(); p != nil {
		if s.cmd.Code == wire.ComStmtClose {
			s.kept.memory -= len(p.full) + len(p.types)
			delete(s.prepared, binary.LittleEndian.Uint32(s.cmd.Arg()))
		} else {
			p.lost = true
		}
	}
	return s.r.DropCommand()
}

// ofStatement handles the other commands on a prepared statement.
func (s *session) ofStatement(ctx context.Context) error {
	code := s.cmd.Code
	p := s.statementOf()
	if p == nil && s.gen > 0 {
		// The server may have given this id to another statement.
		if code == wire.ComStmtSendLongData {
			return s.r.DropCommand()
		}
		return s.sendErr(unknownStatement(s.cmd.Arg(), "mysqld_stmt_"+map[byte]string{wire.ComStmtReset: "reset", wire.ComStmtFetch: "fetch"}[code]))
	}
	if p == nil {
		if code == wire.ComStmtSendLongData {
			return s.oneWay()
		}
		return s.pass(ctx)
	}
	switch code {
	case wire.ComStmtSendLongData:
		if e, err := s.prepareAgain(p); err != nil || e != nil {
			p.lost = true
			return firstErr(err, s.r.DropCommand())
		}
		p.long = true
		s.address(p)
		return s.oneWay()
	case wire.ComStmtReset:
		p.long, p.lost = false, false
		if p.gen != s.gen {
			return s.sendOK(&wire.OK{Status: s.shownStatus(s.status)}, false)
		}
	case wire.ComStmtFetch:
		if p.gen != s.gen {
			return s.sendErr(wire.NewError(1421, "HY000", "The statement (%d) has no open cursor.", binary.LittleEndian.Uint32(s.cmd.Arg())))
		}
	}
	s.address(p)
	return s.pass(ctx)
}

// unknownStatement is the server's answer to an id that it never gave.
func unknownStatement(arg []byte, command string) *wire.ServerError {
	var id uint32
	if len(arg) >= 4 {
		id = binary.LittleEndian.Uint32(arg)
	}
	return wire.NewError(1243, "HY000", "Unknown prepared statement handler (%d) given to %s", id, command)
}

// prepareAgain prepares p on the session's present server, if it is not there. e
// is what that server says against it.
func (s *session) prepareAgain(p *preparedStatement) (e *wire.ServerError, err error) {
	if p.gen == s.gen {
		return nil, nil
	}
	if p.full == nil {
		return wire.NewError(1243, "HY000", "Unknown prepared statement handler (0) given to EXECUTE"), nil
	}
	if err := s.r.Queue(wire.ComStmtPrepare, p.full); err != nil {
		return nil, err
	}
	out, err := s.r.Response(wire.ComStmtPrepare, &relay.ResponseOptions{Swallow: true})
	if err != nil || out.Err != nil {
		return out.Err, err
	}
	p.id, p.gen, p.bound = out.StmtID, s.gen, false
	return nil, nil
}

// ready makes COM_STMT_EXECUTE understood by the session's present server. done
// says that the client has an error.
func (s *session) ready(q *stmt) (done bool, err error) {
	p := q.binary
	if p.lost {
		p.lost = false
		return true, s.refuse(q, wire.NewError(erUnknown, "HY000",
			"The long parameters of this execution were lost with the primary's server; send them again"))
	}
	e, err := s.prepareAgain(p)
	if err != nil {
		return false, s.lostInTx(err)
	}
	if e != nil {
		return true, s.refuse(q, e)
	}
	s.address(p)
	at, n, ok := typesAt(s.cmd.Payload, p.params, s.r.Login.Caps)
	if !ok {
		return false, nil
	}
	if s.cmd.Payload[at] == 1 {
		types := s.cmd.Payload[at+1 : n]
		if p.bound = true; !bytes.Equal(types, p.types) && s.kept.spend(len(types)-len(p.types)) {
			p.types = bytes.Clone(types)
		}
		return false, nil
	}
	if p.bound || p.types == nil {
		return false, nil
	}
	// The client relies on the types it sent to another server.
	if s.cmd.Streamed {
		return true, s.refuse(q, wire.NewError(erUnknown, "HY000",
			"The primary's server went away, and with it the types of this statement's parameters; prepare it again"))
	}
	q.payload = append(append(append(append([]byte{}, s.cmd.Payload[:at]...), 1), p.types...), s.cmd.Payload[at+1:]...)
	p.bound = true
	return false, nil
}

// typesAt finds the flag in COM_STMT_EXECUTE that says whether types follow, and
// where those end.
func typesAt(b []byte, params uint16, caps wire.Capability) (at, end int, ok bool) {
	if len(b) < 10 {
		return 0, 0, false
	}
	n, rest := uint64(params), b[10:]
	named := caps.Has(wire.QueryAttributes)
	if named && (params > 0 || b[5]&8 != 0) { // PARAMETER_COUNT_AVAILABLE
		if n, rest, ok = wire.ReadLenencInt(rest); !ok || n > 1<<16 {
			return 0, 0, false
		}
	}
	bitmap := int(n+7) / 8
	if n == 0 || len(rest) <= bitmap {
		return 0, 0, false
	}
	at = len(b) - len(rest) + bitmap
	if rest = rest[bitmap+1:]; b[at] != 1 {
		return at, at + 1, true
	}
	for range n {
		if len(rest) < 2 {
			return 0, 0, false
		}
		rest = rest[2:]
		if named {
			if _, rest, ok = wire.ReadLenencString(rest); !ok {
				return 0, 0, false
			}
		}
	}
	return at, len(b) - len(rest), true
}
