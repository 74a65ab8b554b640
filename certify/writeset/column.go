package writeset

import (
	"encoding/binary"
)

// width says how to step over a column's value in a row image.
type width struct {
	// fixed is the size in bytes, if prefix is 0.
	fixed int
	// prefix is the size in bytes of the length in front of the value.
	prefix int
}

// widthOf derives it from type and metadata; ok is false for types that do not
// occur in row events.
func widthOf(t byte, meta uint16) (w width, ok bool) {
	switch t {
	case typeTiny, typeYear:
		return width{fixed: 1}, true
	case typeShort:
		return width{fixed: 2}, true
	case typeInt24, typeDate, typeNewdate, typeTime:
		return width{fixed: 3}, true
	case typeLong, typeFloat, typeTimestamp:
		return width{fixed: 4}, true
	case typeLonglong, typeDouble, typeDatetime:
		return width{fixed: 8}, true
	case typeNull:
		return width{}, true
	case typeTimestamp2:
		return width{fixed: 4 + fraction(meta)}, true
	case typeDatetime2:
		return width{fixed: 5 + fraction(meta)}, true
	case typeTime2:
		return width{fixed: 3 + fraction(meta)}, true
	case typeNewDecimal:
		n := decimalSize(int(meta>>8), int(meta&0xff))
		return width{fixed: n}, n > 0
	case typeBit:
		n := int(meta >> 8)
		if meta&0xff != 0 {
			n++
		}
		return width{fixed: n}, n > 0
	case typeEnum, typeSet:
		n := int(meta & 0xff)
		return width{fixed: n}, n > 0 && n <= 8
	case typeString:
		real, length := stringMeta(meta)
		switch {
		case real == typeEnum || real == typeSet:
			return width{fixed: length}, length > 0 && length <= 8
		case length > 255:
			return width{prefix: 2}, true
		}
		return width{prefix: 1}, true
	case typeVarchar, typeVarString:
		if meta > 255 {
			return width{prefix: 2}, true
		}
		return width{prefix: 1}, true
	case typeBlob, typeGeometry, typeJSON, typeVector:
		n := int(meta)
		return width{prefix: n}, n >= 1 && n <= 4
	}
	return width{}, false
}

func fraction(meta uint16) int { return (int(meta) + 1) / 2 }

// decimalSize is the size in bytes of a DECIMAL(precision, scale): nine digits
// in four bytes, the rest in as many as they need.
func decimalSize(precision, scale int) int {
	if scale > precision || precision > 65 {
		return 0
	}
	rest := [...]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4}
	whole := precision - scale
	return whole/9*4 + rest[whole%9] + scale/9*4 + rest[scale%9]
}

// take cuts the value at the start of row; ok is false if row is too short.
func (w width) take(row []byte) (value, rest []byte, ok bool) {
	n := w.fixed
	switch w.prefix {
	case 0:
	case 1:
		if len(row) < 1 {
			return nil, nil, false
		}
		n = int(row[0])
		row = row[1:]
	case 2:
		if len(row) < 2 {
			return nil, nil, false
		}
		n = int(binary.LittleEndian.Uint16(row))
		row = row[2:]
	case 3:
		if len(row) < 3 {
			return nil, nil, false
		}
		n = int(row[0]) | int(row[1])<<8 | int(row[2])<<16
		row = row[3:]
	default:
		if len(row) < 4 {
			return nil, nil, false
		}
		n = int(binary.LittleEndian.Uint32(row))
		row = row[4:]
	}
	if n > len(row) {
		return nil, nil, false
	}
	return row[:n:n], row[n:], true
}

// form says how a value is normalised, so that equal keys have equal bytes.
type form uint8

const (
	formRaw     form = iota // bytes of a fixed size decide
	formFloat               // as formRaw, but -0 is 0
	formDouble              //
	formDecimal             // as formRaw, but -0 is 0
	formBytes               // a string of bytes
	formBin                 // a string under a _bin collation with PAD SPACE
	formWeights             // a string under any other collation
	formNone                // cannot be normalised: all values are alike
)

// formOf is the form of everything but strings.
func formOf(t byte) form {
	switch t {
	case typeFloat:
		return formFloat
	case typeDouble:
		return formDouble
	case typeNewDecimal:
		return formDecimal
	case typeJSON, typeGeometry, typeVector, typeNull, typeDecimal:
		return formNone
	}
	return formRaw
}

// appendFixed appends a normalised value of fixed size.
func appendFixed(dst, v []byte, f form) []byte {
	switch f {
	case formFloat, formDouble:
		// IEEE: only the sign bit, little endian last.
		n := len(v)
		if n > 0 && v[n-1] == 0x80 && zero(v[:n-1]) {
			dst = append(dst, v[:n-1]...)
			return append(dst, 0)
		}
	case formDecimal:
		// Negative values are complemented, the sign bit of positive ones is
		// set: -0 is 0x7f ff…, 0 is 0x80 00….
		if len(v) > 0 && v[0] == 0x7f && ones(v[1:]) {
			dst = append(dst, 0x80)
			for range v[1:] {
				dst = append(dst, 0)
			}
			return dst
		}
	}
	return append(dst, v...)
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func ones(b []byte) bool {
	for _, c := range b {
		if c != 0xff {
			return false
		}
	}
	return true
}
