package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"

	"cohort/internal/wire"
	"cohort/proxy/relay"
	"cohort/sqlparse"
)

// maxNamed bounds the statements whose class a session remembers, for each of
// the two protocols. The server has max_prepared_stmt_count for all sessions.
const maxNamed = 1 << 14

// preparedStatement is what is remembered of one: its class, and its text where
// that is short or matters.
type preparedStatement struct {
	st      sqlparse.Statement
	text    []byte
	targets []sqlparse.TableName
	effects effects

	// full is the whole text, to prepare it again on another server; nil where
	// that is not remembered. name is the statement's as spelled by PREPARE.
	full []byte
	name []byte
	// id is the server's, which is the client's too until the session moves; gen
	// tells on which of the session's servers it is valid.
	id      uint32
	gen     uint64
	params  uint16
	columns uint16
	bound   bool   // the server has the types
	types   []byte // of the parameters, as the client sent them last
	long    bool   // parameters were sent by COM_STMT_SEND_LONG_DATA
	lost    bool   // those were sent to a server that is gone
}

func keepText(st *sqlparse.Statement, text []byte) []byte {
	switch st.Class {
	case sqlparse.Set, sqlparse.SetTransaction, sqlparse.Commit, sqlparse.Rollback, sqlparse.Maintenance, sqlparse.Unknown, sqlparse.Call,
		sqlparse.CreateTemporary, sqlparse.DropTemporary, sqlparse.DDL:
		return bytes.Clone(text[:min(len(text), 4096)])
	}
	return nil
}

// prepare handles COM_STMT_PREPARE.
func (s *session) prepare(ctx context.Context) error {
	text := s.cmd.Arg()
	st := sqlparse.Classify(text, s.mode)
	q := stmt{st: st, text: text, query: true}
	s.textAt = 1
	s.diag = nil
	if s.srv.opt.Admin != nil && concernsGroup(&st) {
		return s.sendErr(errUnpreparable)
	}
	if st.Has(sqlparse.FlagForbidden | sqlparse.FlagGroupTable | sqlparse.FlagGroupVar | sqlparse.FlagShowVars) {
		if done, err := s.special(ctx, &q, nil); done || err != nil {
			return err
		}
	}
	var r reply
	err := s.repeat(ctx, &stmt{st: sqlparse.Statement{Class: sqlparse.Prepare}}, func() (err error) {
		if err = s.send(&q); err != nil {
			return err
		}
		if r, err = s.response(wire.ComStmtPrepare, false); err != nil {
			return s.lostDuring(&stmt{st: sqlparse.Statement{Class: sqlparse.Prepare}}, err)
		}
		return nil
	})
	if err != nil || s.answered {
		return err
	}
	if r.err != nil {
		return s.sendErr(r.err)
	}
	s.answered = true
	if r.out.Kind == relay.KindOther {
		s.remember(&r, &st, text)
	}
	return nil
}

// remember keeps what was prepared by COM_STMT_PREPARE.
func (s *session) remember(r *reply, st *sqlparse.Statement, text []byte) {
	if len(s.prepared) >= maxNamed {
		s.kept.spoil("it prepared too many statements")
		return
	}
	p := &preparedStatement{st: *st, text: keepText(st, text), targets: s.targets(st, text), effects: effectsOf(st, text, s.mode),
		id: r.out.StmtID, gen: s.gen, params: r.out.Params, columns: r.out.Columns}
	if s.cmd.Streamed {
		s.kept.spoil("it prepared a statement that is too long to be remembered")
	} else if s.kept.spend(len(text)) {
		p.full = bytes.Clone(text)
	}
	if s.prepared == nil {
		s.prepared = make(map[uint32]*preparedStatement)
	}
	s.prepared[r.out.ClientID] = p
}

// execute handles COM_STMT_EXECUTE.
func (s *session) execute(ctx context.Context) error {
	q := stmt{execute: true}
	if arg := s.cmd.Arg(); len(arg) >= 4 {
		if p, ok := s.prepared[binary.LittleEndian.Uint32(arg)]; ok {
			q.inner, q.innerText, q.targets, q.effects, q.known = p.st, p.text, p.targets, p.effects, true
			q.binary = p
		} else if s.gen > 0 {
			s.diag = nil
			return s.sendErr(unknownStatement(arg, "mysql_stmt_precheck"))
		}
	}
	q.st = sqlparse.Statement{Class: sqlparse.Execute}
	return s.run(ctx, &q)
}

// statementName is the key of a statement prepared by PREPARE.
func statementName(b []byte) string {
	if len(b) >= 2 && (b[0] == '`' || b[0] == '"') {
		b = bytes.ReplaceAll(b[1:len(b)-1], []byte{b[0], b[0]}, []byte{b[0]})
	}
	return strings.ToLower(string(b))
}

// noteText looks at PREPARE before it is sent: EXECUTE must know the class of
// what it executes.
func (s *session) noteText(q *stmt) (preparedStatement, error) {
	arg := q.st.Arg.Of(q.text)
	if len(arg) == 0 {
		return preparedStatement{}, nil
	}
	var text []byte
	switch arg[0] {
	case '\'', '"':
		text = unescape(arg, s.mode)
	case '@':
		rs, err := s.exec("SELECT " + string(arg))
		if err != nil {
			return preparedStatement{}, err
		}
		if rs[0].Err != nil {
			return preparedStatement{}, nil
		}
		text = []byte(rs[0].Str(0, 0))
	}
	st := sqlparse.Classify(text, s.mode)
	p := preparedStatement{st: st, text: bytes.Clone(text[:min(len(text), 4096)]), targets: s.targets(&st, text), effects: effectsOf(&st, text, s.mode)}
	if s.kept.spend(len(text)) {
		p.full = bytes.Clone(text)
	}
	return p, nil
}

// prepareText handles PREPARE.
func (s *session) prepareText(ctx context.Context, q *stmt) error {
	p, err := s.noteText(q)
	if err != nil {
		return s.lostDuring(q, err)
	}
	if p.st.Has(sqlparse.FlagForbidden) {
		in := stmt{st: p.st, text: p.text}
		_, err := s.special(ctx, &in, nil)
		q.failed = true
		return err
	}
	if s.srv.opt.Admin != nil && concernsGroup(&p.st) {
		return s.refuse(q, errUnpreparable)
	}
	name := statementName(q.st.Name.Of(q.text))
	if err := s.run(ctx, q); err != nil {
		return err
	}
	s.forget(q) // PREPARE drops one of the same name, also when it fails
	if !q.failed && len(s.texts) >= maxNamed {
		s.kept.spoil("it prepared too many statements")
	} else if !q.failed {
		if s.texts == nil {
			s.texts = make(map[string]preparedStatement)
		}
		p.name = bytes.Clone(q.st.Name.Of(q.text))
		s.texts[name] = p
	}
	return nil
}

// executeText resolves EXECUTE.
func (s *session) executeText(q *stmt) {
	q.execute = true
	if p, ok := s.texts[statementName(q.st.Name.Of(q.text))]; ok {
		q.inner, q.innerText, q.targets, q.effects, q.known = p.st, p.text, p.targets, p.effects, true
	}
}

func (s *session) forget(q *stmt) {
	name := statementName(q.st.Name.Of(q.text))
	s.kept.memory -= len(s.texts[name].full)
	delete(s.texts, name)
}

// unescape returns the content of a string literal.
func unescape(lit []byte, mode sqlparse.Mode) []byte {
	if len(lit) < 2 {
		return nil
	}
	quote, in := lit[0], lit[1:len(lit)-1]
	out := make([]byte, 0, len(in))
	for i := 0; i < len(in); i++ {
		c := in[i]
		switch {
		case c == quote && i+1 < len(in) && in[i+1] == quote:
			i++
		case c == '\\' && !mode.NoBackslashEscapes && i+1 < len(in):
			i++
			switch c = in[i]; c {
			case 'n':
				c = '\n'
			case 't':
				c = '\t'
			case 'r':
				c = '\r'
			case '0':
				c = 0
			}
		}
		out = append(out, c)
	}
	return out
}
