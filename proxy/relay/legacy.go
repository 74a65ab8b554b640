package relay

import (
	"encoding/binary"
	"fmt"

	"cohort/internal/wire"
)

// insertEOF writes the EOF packet that ends column definitions for a client
// without DeprecateEOF. Its status is not known yet: the session's last one, or
// that of the result's end if this is still in the buffer by then.
func (s *scanner) insertEOF() error {
	if s.o.Swallow {
		return nil
	}
	if err := s.settle(false); err != nil {
		return err
	}
	if s.c.Room() < 16 {
		if err := s.settle(true); err != nil {
			return err
		}
	}
	ok := wire.OK{Status: s.r.Status &^ (endFlags | wire.StatusMoreResults)}
	s.r.enc = wire.AppendEOF(s.r.enc[:0], &ok, 0)
	if err := s.c.WritePacket(s.r.enc); err != nil {
		return clientErr(err)
	}
	s.out.Relayed = true
	s.midEOF = len(s.c.Pending()) - 2 + 1
	return nil
}

func (s *scanner) patchEOF(status wire.Status) {
	if s.midEOF > 0 && s.midEOF+1 <= len(s.c.Pending()) {
		binary.LittleEndian.PutUint16(s.c.Pending()[s.midEOF-1:], uint16(status&^endFlags))
	}
	s.midEOF = 0
}

// prepared handles the answer to COM_STMT_PREPARE.
func (s *scanner) prepared() error {
	n, first, err := s.next()
	if err != nil {
		return err
	}
	if first == wire.HeaderERR {
		return s.failed(n)
	}
	p, err := s.whole(n)
	if err != nil {
		return err
	}
	if first != wire.HeaderOK || len(p) < 12 {
		return backendErr(fmt.Errorf("%w: COM_STMT_PREPARE response", wire.ErrMalformed))
	}
	s.out.Kind = KindOther
	s.out.StmtID = binary.LittleEndian.Uint32(p[1:])
	s.out.Columns = binary.LittleEndian.Uint16(p[5:])
	s.out.Params = binary.LittleEndian.Uint16(p[7:])
	s.out.Warnings = binary.LittleEndian.Uint16(p[10:])
	if s.o.StmtID != nil {
		s.out.ClientID = s.o.StmtID(s.out.StmtID)
		binary.LittleEndian.PutUint32(p[1:], s.out.ClientID)
	}
	defined := len(p) < 13 || !s.r.Backend.Caps.Has(wire.OptionalResultsetMetadata) || p[12] != 0
	if err := s.accept(); err != nil {
		return err
	}
	for _, count := range [...]uint16{s.out.Params, s.out.Columns} {
		if count == 0 {
			continue
		}
		if defined {
			if err := s.definitions(int(count)); err != nil {
				return err
			}
		}
		if s.legacy {
			if err := s.insertEOF(); err != nil {
				return err
			}
		}
	}
	return nil
}
