package relay

import (
	"errors"
	"fmt"

	"cohort/internal/wire"
)

// maxControl bounds a packet that has to be held in memory: OK, EOF, ERR.
const maxControl = 1 << 22

// maxRow bounds the rows that ResponseOptions.Row is called for.
const maxRow = 1 << 20

// endFlags are status flags that are about the end of a statement; the EOF that
// follows column definitions is sent before there is such a thing.
const endFlags = wire.StatusCursorExists | wire.StatusLastRowSent | wire.StatusDBDropped |
	wire.StatusMetadataChanged | wire.StatusQueryWasSlow | wire.StatusSessionStateChanged |
	wire.StatusPSOutParams

// scanner walks over the packets of one response. off bytes at the front of the
// backend's read buffer are accepted for the client and written in one piece as
// soon as something else has to happen.
type scanner struct {
	r   *Relay
	b   *wire.Conn
	c   *wire.Conn
	o   *ResponseOptions
	out *Outcome
	off int
	seq byte // expected next from the backend

	legacy bool // the client wants EOF packets
	// inRows: definitions are complete, and an ERR packet may come next.
	// inPacket: a packet was passed on in part.
	inRows, inPacket bool
	midEOF           int // offset+1 in the client's pending bytes of an EOF's status
	altmem           []byte
}

// unchanged are the options of a response that just passes.
var unchanged ResponseOptions

// Response reads the backend's response to the oldest outstanding command, whose
// code is given, and passes it on as o says (nil: unchanged). Queued commands are
// flushed first. An error wraps [ErrBackend] or [ErrClient]; an ERR packet is not
// an error but an Outcome. COM_CHANGE_USER and the dump commands have methods of
// their own.
func (r *Relay) Response(code byte, o *ResponseOptions) (Outcome, error) {
	if !HasResponse(code) {
		return Outcome{}, r.Flush()
	}
	if len(r.expect) == 0 {
		return Outcome{}, ErrNoResponse
	}
	// A backend that closed has perhaps said why before: read on all the same.
	flushErr := r.Flush()
	if o == nil {
		o = &unchanged
	}
	r.out = Outcome{}
	out := &r.out
	s := &r.sc
	*s = scanner{
		r: r, b: r.Backend.Conn, c: r.Client, o: o, out: out, seq: r.expect[0],
		legacy: !r.ClientCaps.Has(wire.DeprecateEOF), altmem: s.altmem,
	}
	r.expect = r.expect[:copy(r.expect, r.expect[1:])]
	r.active.Add(1)
	r.acc.busy.Add(1)
	err := s.run(code)
	r.acc.busy.Add(-1)
	r.active.Add(1)
	if err != nil {
		if r.begun = r.begun || out.Relayed; out.Relayed {
			r.torn = !s.inRows || s.inPacket
		}
		return *out, errors.Join(err, flushErr)
	}
	if !o.Swallow && !out.Held {
		if err := r.Client.Flush(); err != nil {
			return *out, clientErr(err)
		}
	}
	s.b.Release()
	return *out, nil
}

func (s *scanner) run(code byte) error {
	var err error
	switch code {
	case wire.ComStmtPrepare:
		err = s.prepared()
	case wire.ComStmtFetch, wire.ComFieldList:
		err = s.rows(false)
	case wire.ComStatistics:
		if _, _, err = s.next(); err == nil {
			s.out.Kind = KindOther
			err = s.accept()
		}
	default:
		err = s.results()
	}
	if err != nil {
		return err
	}
	return s.settle(false)
}

// next makes the next packet's header and first byte available.
func (s *scanner) next() (n int, first byte, err error) {
	for need := wire.HeaderSize + 1; ; {
		if b := s.b.Buffered()[s.off:]; len(b) >= wire.HeaderSize {
			var seq byte
			n, seq = wire.ParseHeader(b)
			if n == 0 || len(b) > wire.HeaderSize {
				if n > 0 {
					first = b[wire.HeaderSize]
				}
				// A server that closes the connection says why out of turn.
				if seq != s.seq && first != wire.HeaderERR {
					return 0, 0, backendErr(fmt.Errorf("%w: got %d, want %d", wire.ErrSequence, seq, s.seq))
				}
				return n, first, nil
			}
		} else {
			need = wire.HeaderSize
		}
		if err := s.settle(true); err != nil {
			return 0, 0, err
		}
		if err := s.b.Fill(need); err != nil {
			return 0, 0, backendErr(err)
		}
		need = wire.HeaderSize + 1
	}
}

// settle hands the accepted bytes to the client's side, in a write if flush says
// so (before blocking) or if they are many.
func (s *scanner) settle(flush bool) error {
	if s.off > 0 {
		b := s.b.Buffered()[:s.off]
		var err error
		if flush {
			s.midEOF = 0
			err = s.c.WriteThrough(b)
		} else {
			if len(b) > s.c.Room() {
				s.midEOF = 0
			}
			err = s.c.WriteRaw(b)
		}
		if err != nil {
			return clientErr(err)
		}
		s.b.Discard(s.off)
		s.off = 0
		return nil
	}
	if flush && len(s.c.Pending()) > 0 && !s.o.Swallow {
		s.midEOF = 0
		if err := s.c.Flush(); err != nil {
			return clientErr(err)
		}
	}
	return nil
}

// accept passes the next packet on unchanged but for its number, with its
// continuations if it is 16 MB long.
func (s *scanner) accept() error {
	for {
		b := s.b.Buffered()[s.off:]
		n, _ := wire.ParseHeader(b)
		size := wire.HeaderSize + n
		s.seq++
		s.out.Bytes += uint64(size)
		if s.o.Swallow {
			if err := s.skip(size); err != nil {
				return err
			}
		} else {
			s.out.Relayed = true
			b[3] = s.c.Seq
			s.c.Seq++
			if size <= len(b) {
				s.off += size
			} else if err := s.copyLong(size); err != nil {
				return err
			}
		}
		if n < wire.MaxPayload {
			return nil
		}
		if _, _, err := s.next(); err != nil {
			return err
		}
	}
}

// copyLong passes on a packet of which only a part is buffered.
func (s *scanner) copyLong(size int) error {
	s.inPacket = true
	have := len(s.b.Buffered()) - s.off
	s.off += have
	if err := s.settle(true); err != nil {
		return err
	}
	for left := size - have; left > 0; {
		if err := s.b.Fill(1); err != nil {
			return backendErr(err)
		}
		b := s.b.Buffered()
		b = b[:min(left, len(b))]
		if err := s.c.WriteThrough(b); err != nil {
			return clientErr(err)
		}
		s.b.Discard(len(b))
		left -= len(b)
	}
	s.inPacket = false
	return nil
}

func (s *scanner) skip(size int) error {
	for left := size; left > 0; {
		if err := s.b.Fill(1); err != nil {
			return backendErr(err)
		}
		k := min(left, len(s.b.Buffered()))
		s.b.Discard(k)
		left -= k
	}
	return nil
}

// whole makes the next packet, of n bytes, available in full.
func (s *scanner) whole(n int) ([]byte, error) {
	if n > maxControl {
		return nil, backendErr(fmt.Errorf("%w: closing packet of %d bytes", wire.ErrPacketTooLarge, n))
	}
	if len(s.b.Buffered())-s.off < wire.HeaderSize+n {
		if err := s.settle(false); err != nil {
			return nil, err
		}
		if err := s.b.Fill(wire.HeaderSize + n); err != nil {
			return nil, backendErr(err)
		}
	}
	b := s.b.Buffered()[s.off+wire.HeaderSize:]
	return b[:n:n], nil
}

// results handles everything that answers like COM_QUERY, with one result or
// several.
func (s *scanner) results() error {
	for {
		n, first, err := s.next()
		if err != nil {
			return err
		}
		if n == 0 {
			return backendErr(fmt.Errorf("%w: empty response", wire.ErrMalformed))
		}
		switch {
		case first == wire.HeaderERR:
			return s.failed(n)
		case first == wire.HeaderOK:
			if err := s.end(KindOK, n); err != nil {
				return err
			}
		case wire.IsEOF(first, n, wire.DeprecateEOF):
			if err := s.end(KindEOF, n); err != nil {
				return err
			}
		case first == wire.HeaderLocalFile:
			if err := s.localFile(); err != nil {
				return err
			}
			continue
		default:
			if err := s.resultSet(n); err != nil {
				return err
			}
		}
		if s.out.Kind == KindErr || s.out.Status&wire.StatusMoreResults == 0 {
			return nil
		}
		s.inRows = false
		s.out.Results++
	}
}

func (s *scanner) resultSet(n int) error {
	p, err := s.whole(n)
	if err != nil {
		return err
	}
	cols, defined, err := wire.ParseColumnCount(p, s.r.Backend.Caps)
	if err != nil {
		return backendErr(err)
	}
	if err := s.accept(); err != nil {
		return err
	}
	if defined {
		if err := s.definitions(cols); err != nil {
			return err
		}
	}
	return s.rows(s.legacy)
}

func (s *scanner) definitions(n int) error {
	for ; n > 0; n-- {
		if _, _, err := s.next(); err != nil {
			return err
		}
		if err := s.accept(); err != nil {
			return err
		}
	}
	return nil
}

// rows passes rows on up to what ends them. needEOF: the client first expects an
// EOF packet that the backend does not send.
func (s *scanner) rows(needEOF bool) error {
	for {
		s.inRows = !needEOF
		n, first, err := s.next()
		if err != nil {
			return err
		}
		switch {
		case n > 0 && first == wire.HeaderERR:
			if needEOF {
				if err := s.insertEOF(); err != nil {
					return err
				}
			}
			return s.failed(n)
		case n > 0 && wire.IsEOF(first, n, wire.DeprecateEOF):
			if needEOF && !s.o.Swallow {
				p, err := s.whole(n)
				if err != nil {
					return err
				}
				ok, err := wire.ParseOK(p, s.r.Backend.Caps)
				if err != nil {
					return backendErr(err)
				}
				// A cursor's definitions are ended by the EOF that says so.
				if ok.Status&wire.StatusCursorExists == 0 {
					if err := s.insertEOF(); err != nil {
						return err
					}
				}
			}
			return s.end(KindEOF, n)
		}
		if needEOF {
			if err := s.insertEOF(); err != nil {
				return err
			}
			needEOF = false
		}
		s.out.Rows++
		if s.o.Row != nil && s.o.Swallow && n <= maxRow {
			p, err := s.whole(n)
			if err != nil {
				return err
			}
			s.o.Row(p)
		}
		if err := s.accept(); err != nil {
			return err
		}
	}
}
