package loadgen

import (
	"encoding/binary"
	"fmt"
)

// results reads every result of a command. first asks for the first column of
// the first row, which only the text protocol carries in readable form.
func (c *Conn) results(first bool) (Reply, error) {
	var r Reply
	for {
		if err := c.result(&r, first); err != nil {
			return r, err
		}
		if r.Status&statusMoreResults == 0 {
			return r, nil
		}
	}
}

func (c *Conn) result(r *Reply, first bool) error {
	length, lead, err := c.header()
	if err != nil {
		return err
	}
	p, err := c.keep(length)
	if err != nil {
		return err
	}
	switch {
	case length == 0:
		return fmt.Errorf("%w: empty packet", ErrProtocol)
	case lead == 0x00:
		return parseOK(p, r)
	case lead == 0xff:
		return parseError(p)
	case lead == 0xfb:
		return fmt.Errorf("%w: LOAD DATA LOCAL is not for this client", ErrProtocol)
	}
	columns, _, ok := lenenc(p)
	if !ok {
		return fmt.Errorf("%w: column count", ErrProtocol)
	}
	if err := c.skipDefinitions(int(columns)); err != nil {
		return err
	}
	return c.rows(r, first)
}

// skipDefinitions drops n column definitions and, without DEPRECATE_EOF, the
// EOF packet behind them.
func (c *Conn) skipDefinitions(n int) error {
	if n == 0 {
		return nil
	}
	if !c.deprecateEOF {
		n++
	}
	for range n {
		length, _, err := c.header()
		if err != nil {
			return err
		}
		if err := c.skip(length); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) rows(r *Reply, first bool) error {
	for {
		length, lead, err := c.header()
		if err != nil {
			return err
		}
		switch {
		case lead == 0xff && length > 0:
			p, err := c.keep(length)
			if err != nil {
				return err
			}
			return parseError(p)
		case lead == 0xfe && length > 0 && length < maxPayload && (c.deprecateEOF || length < 9):
			p, err := c.keep(length)
			if err != nil {
				return err
			}
			if c.deprecateEOF {
				return parseOK(p, r)
			}
			if len(p) < 5 {
				return fmt.Errorf("%w: EOF of %d bytes", ErrProtocol, len(p))
			}
			r.Status = binary.LittleEndian.Uint16(p[3:])
			return nil
		case first && r.Rows == 0:
			p, err := c.keep(length)
			if err != nil {
				return err
			}
			if n, rest, ok := lenenc(p); ok && n <= uint64(len(rest)) {
				r.First = string(rest[:n])
			}
		default:
			if err := c.skip(length); err != nil {
				return err
			}
		}
		r.Rows++
	}
}

func parseOK(p []byte, r *Reply) error {
	affected, rest, ok := lenenc(p[1:])
	if ok {
		_, rest, ok = lenenc(rest)
	}
	if !ok || len(rest) < 2 {
		return fmt.Errorf("%w: OK of %d bytes", ErrProtocol, len(p))
	}
	r.Affected, r.Status = affected, binary.LittleEndian.Uint16(rest)
	return nil
}

func parseError(p []byte) error {
	if len(p) < 3 {
		return fmt.Errorf("%w: ERR of %d bytes", ErrProtocol, len(p))
	}
	e := &ServerError{Number: binary.LittleEndian.Uint16(p[1:])}
	rest := p[3:]
	if len(rest) >= 6 && rest[0] == '#' {
		e.SQLState, rest = string(rest[1:6]), rest[6:]
	}
	e.Message = string(rest)
	return e
}

// lenenc reads a length-encoded integer. NULL (0xfb) reads as not ok.
func lenenc(p []byte) (v uint64, rest []byte, ok bool) {
	if len(p) == 0 {
		return 0, nil, false
	}
	width := 0
	switch p[0] {
	case 0xfb, 0xff:
		return 0, nil, false
	case 0xfc:
		width = 2
	case 0xfd:
		width = 3
	case 0xfe:
		width = 8
	default:
		return uint64(p[0]), p[1:], true
	}
	if len(p) <= width {
		return 0, nil, false
	}
	for i := width; i > 0; i-- {
		v = v<<8 | uint64(p[i])
	}
	return v, p[width+1:], true
}
