package writeset

import (
	"encoding/binary"
	"fmt"

	"cohort/internal/binlog"
)

// Column types of the binary log (MySQL source: include/field_types.h).
const (
	typeDecimal    = 0
	typeTiny       = 1
	typeShort      = 2
	typeLong       = 3
	typeFloat      = 4
	typeDouble     = 5
	typeNull       = 6
	typeTimestamp  = 7
	typeLonglong   = 8
	typeInt24      = 9
	typeDate       = 10
	typeTime       = 11
	typeDatetime   = 12
	typeYear       = 13
	typeNewdate    = 14
	typeVarchar    = 15
	typeBit        = 16
	typeTimestamp2 = 17
	typeDatetime2  = 18
	typeTime2      = 19
	typeVector     = 242
	typeJSON       = 245
	typeNewDecimal = 246
	typeEnum       = 247
	typeSet        = 248
	typeTinyBlob   = 249
	typeMediumBlob = 250
	typeLongBlob   = 251
	typeBlob       = 252
	typeVarString  = 253
	typeString     = 254
	typeGeometry   = 255
)

// maxColumns is InnoDB's limit of columns in a table, with room.
const maxColumns = 4096

// tableMap is what a Table_map event says. The layout is that of MySQL's
// Table_map_log_event; names alias the event.
type tableMap struct {
	id     uint64
	schema []byte
	table  []byte
	types  []byte
	meta   []uint16
	// collations are those of the character columns in order (63 for binary),
	// empty if the event does not say.
	collations []uint16
}

// parseTableMap reads an event's body behind the common header.
func parseTableMap(b []byte) (tableMap, error) {
	var m tableMap
	if len(b) < 8+1 {
		return m, truncated("table map")
	}
	m.id = tableID(b)
	b = b[8:]
	var ok bool
	if m.schema, b, ok = name(b); !ok {
		return m, truncated("table map")
	}
	if m.table, b, ok = name(b); !ok {
		return m, truncated("table map")
	}
	n, b, ok := lenenc(b)
	if !ok || n > uint64(len(b)) {
		return m, truncated("table map")
	}
	if n > maxColumns {
		return m, fmt.Errorf("%w: table of %d columns", binlog.ErrMalformed, n)
	}
	m.types, b = b[:n], b[n:]
	metaLen, b, ok := lenenc(b)
	if !ok || metaLen > uint64(len(b)) {
		return m, truncated("table map")
	}
	meta, b := b[:metaLen], b[metaLen:]
	m.meta = make([]uint16, n)
	for i, t := range m.types {
		size := metaSize(t)
		if size > len(meta) {
			return m, truncated("table map's column metadata")
		}
		switch {
		case size == 1:
			m.meta[i] = uint16(meta[0])
		case size == 2 && (t == typeString || t == typeNewDecimal || t == typeEnum || t == typeSet):
			m.meta[i] = uint16(meta[0])<<8 | uint16(meta[1])
		case size == 2:
			m.meta[i] = binary.LittleEndian.Uint16(meta)
		}
		meta = meta[size:]
	}
	nulls := (int(n) + 7) / 8
	if nulls > len(b) {
		return m, truncated("table map")
	}
	return m, m.optional(b[nulls:])
}

// Optional metadata fields (MySQL source: Optional_metadata_field_type).
const (
	optionalDefaultCharset = 2
	optionalColumnCharset  = 3
)

func (m *tableMap) optional(b []byte) error {
	for len(b) > 0 {
		kind := b[0]
		n, rest, ok := lenenc(b[1:])
		if !ok || n > uint64(len(rest)) {
			return truncated("table map's optional metadata")
		}
		value := rest[:n]
		b = rest[n:]
		switch kind {
		case optionalDefaultCharset:
			def, value, ok := lenenc(value)
			if !ok {
				return truncated("default character set")
			}
			m.collations = make([]uint16, m.characterColumns())
			for i := range m.collations {
				m.collations[i] = uint16(def)
			}
			for len(value) > 0 {
				at, rest, ok1 := lenenc(value)
				coll, rest, ok2 := lenenc(rest)
				if !ok1 || !ok2 || at >= uint64(len(m.collations)) {
					return truncated("default character set")
				}
				m.collations[at], value = uint16(coll), rest
			}
		case optionalColumnCharset:
			m.collations = m.collations[:0]
			for len(value) > 0 {
				coll, rest, ok := lenenc(value)
				if !ok {
					return truncated("column character sets")
				}
				m.collations, value = append(m.collations, uint16(coll)), rest
			}
		}
	}
	return nil
}

func (m *tableMap) characterColumns() int {
	n := 0
	for i := range m.types {
		if isCharacter(m.types[i], m.meta[i]) {
			n++
		}
	}
	return n
}

// isCharacter says whether mysqld counts a column among the character columns
// of the optional metadata.
func isCharacter(t byte, meta uint16) bool {
	switch realType(t, meta) {
	case typeString, typeVarString, typeVarchar, typeBlob:
		return true
	}
	return false
}

// realType resolves ENUM and SET, which hide behind STRING.
func realType(t byte, meta uint16) byte {
	if t != typeString {
		return t
	}
	if r, _ := stringMeta(meta); r != 0 {
		return r
	}
	return typeString
}

// stringMeta unpacks the metadata of STRING: the real type and the maximal
// length in bytes (for CHAR above 255 bytes two bits of the length hide in the
// type).
func stringMeta(meta uint16) (real byte, length int) {
	hi, lo := byte(meta>>8), int(meta&0xff)
	if hi&0x30 != 0x30 {
		return hi | 0x30, lo | int(hi&0x30^0x30)<<4
	}
	return hi, lo
}

func metaSize(t byte) int {
	switch t {
	case typeString, typeNewDecimal, typeVarString, typeVarchar, typeBit, typeEnum, typeSet:
		return 2
	case typeBlob, typeDouble, typeFloat, typeGeometry, typeVector, typeJSON,
		typeTime2, typeDatetime2, typeTimestamp2:
		return 1
	}
	return 0
}

func tableID(b []byte) uint64 {
	return uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint16(b[4:]))<<32
}

// name reads a length byte, the name and its terminating zero.
func name(b []byte) (v, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < int(b[0])+2 {
		return nil, nil, false
	}
	n := int(b[0])
	return b[1 : 1+n], b[2+n:], true
}

// lenenc reads a length-encoded integer.
func lenenc(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	n := 0
	switch b[0] {
	case 0xfc:
		n = 2
	case 0xfd:
		n = 3
	case 0xfe:
		n = 8
	case 0xfb, 0xff:
		return 0, nil, false
	default:
		return uint64(b[0]), b[1:], true
	}
	if len(b) < 1+n {
		return 0, nil, false
	}
	var t [8]byte
	copy(t[:], b[1:1+n])
	return binary.LittleEndian.Uint64(t[:]), b[1+n:], true
}

func truncated(what string) error { return fmt.Errorf("%s: %w", what, binlog.ErrTruncated) }
