package binlog

import (
	"encoding/binary"
	"fmt"
)

// Query is the content of a Query event. The status variables are kept as raw
// bytes: cohort passes them on and never interprets them.
type Query struct {
	ThreadID uint32
	// ExecTime is in seconds.
	ExecTime   uint32
	ErrorCode  uint16
	StatusVars []byte
	Schema     []byte
	SQL        []byte
}

const queryPostHeaderSize = 13

// ParseQuery reads a Query event. ev is the whole event with its header and
// without its checksum; the result aliases it.
func ParseQuery(ev []byte) (Query, error) {
	var q Query
	if h, err := ParseHeader(ev); err != nil {
		return q, err
	} else if h.Type != TypeQuery {
		return q, fmt.Errorf("%w: type %d is not a Query event", ErrMalformed, h.Type)
	}
	r := reader{b: ev[HeaderSize:]}
	q.ThreadID = r.uint32()
	q.ExecTime = r.uint32()
	schemaLen := int(r.byte())
	q.ErrorCode = r.uint16()
	statusLen := int(r.uint16())
	q.StatusVars = r.bytes(statusLen)
	q.Schema = r.bytes(schemaLen)
	if zero := r.byte(); zero != 0 && r.err == nil {
		return Query{}, fmt.Errorf("%w: schema name of a Query event is not terminated", ErrMalformed)
	}
	q.SQL = r.b
	if r.err != nil {
		return Query{}, fmt.Errorf("Query event: %w", r.err)
	}
	return q, nil
}

// AppendQuery appends q as an event with header timestamp ts (seconds) and
// header flags. Schema must be at most 255 bytes and StatusVars at most 65535.
func AppendQuery(dst []byte, ts uint32, flags uint16, q *Query) ([]byte, error) {
	if len(q.Schema) > 255 || len(q.StatusVars) > 65535 {
		return dst, fmt.Errorf("%w: schema of %d bytes, status variables of %d", ErrMalformed, len(q.Schema), len(q.StatusVars))
	}
	size := HeaderSize + queryPostHeaderSize + len(q.StatusVars) + len(q.Schema) + 1 + len(q.SQL) + ChecksumSize
	if size > MaxEventSize {
		return dst, fmt.Errorf("%w: statement of %d bytes", ErrMalformed, len(q.SQL))
	}
	start := len(dst)
	dst = AppendHeader(dst, Header{Timestamp: ts, Type: TypeQuery, ServerID: RenderedServerID, Size: uint32(size), Flags: flags})
	dst = binary.LittleEndian.AppendUint32(dst, q.ThreadID)
	dst = binary.LittleEndian.AppendUint32(dst, q.ExecTime)
	dst = append(dst, byte(len(q.Schema)))
	dst = binary.LittleEndian.AppendUint16(dst, q.ErrorCode)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(q.StatusVars)))
	dst = append(dst, q.StatusVars...)
	dst = append(dst, q.Schema...)
	dst = append(dst, 0)
	dst = append(dst, q.SQL...)
	return AppendChecksum(dst, start), nil
}

// AppendBegin appends the Query event "BEGIN" that opens a row transaction,
// with the status variables, schema and thread id of q (that is, of the XA
// START event that it replaces). mysqld writes it with header flag 0x8
// (suppress use).
func AppendBegin(dst []byte, ts uint32, q *Query) ([]byte, error) {
	b := *q
	b.SQL, b.ExecTime, b.ErrorCode = []byte("BEGIN"), 0, 0
	return AppendQuery(dst, ts, 0x8, &b)
}
