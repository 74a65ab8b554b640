package binlog

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// reader takes values off b. After the first failure err is set and every
// further value is zero, so that parsers check once at the end.
type reader struct {
	b   []byte
	err error
}

func (r *reader) left() int { return len(r.b) }

// bytes returns the next n bytes (aliasing the input), nil on failure.
func (r *reader) bytes(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.b) {
		r.err = fmt.Errorf("%w: need %d bytes, have %d", ErrTruncated, n, len(r.b))
		r.b = nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.bytes(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if v := r.bytes(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if v := r.bytes(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if v := r.bytes(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (r *reader) uint56() uint64 { return r.little(7) }

func (r *reader) little(n int) uint64 {
	var t [8]byte
	copy(t[:], r.bytes(n))
	return binary.LittleEndian.Uint64(t[:])
}

// lenenc reads a length-encoded integer of the client protocol.
func (r *reader) lenenc() uint64 {
	switch c := r.byte(); c {
	case 0xfc:
		return r.little(2)
	case 0xfd:
		return r.little(3)
	case 0xfe:
		return r.uint64()
	case 0xfb, 0xff:
		if r.err == nil {
			r.err = fmt.Errorf("%w: length byte %#x", ErrMalformed, c)
		}
		return 0
	default:
		return uint64(c)
	}
}

// varlen reads an unsigned integer of mysql::serialization: the number of
// trailing one bits of the first byte is the number of bytes that follow it.
func (r *reader) varlen() uint64 {
	if r.err != nil {
		return 0
	}
	if len(r.b) == 0 {
		r.err = fmt.Errorf("%w: integer expected", ErrTruncated)
		return 0
	}
	n := bits.TrailingZeros8(^r.b[0]) + 1
	if n == 9 {
		r.bytes(1)
		return r.uint64()
	}
	return r.little(n) >> n
}

// signedVarlen reads a signed one: the sign is the lowest bit, negative values
// are stored complemented.
func (r *reader) signedVarlen() int64 {
	v := r.varlen()
	if v&1 != 0 {
		return ^int64(v >> 1)
	}
	return int64(v >> 1)
}

func lenencSize(v uint64) int {
	switch {
	case v < 251:
		return 1
	case v < 1<<16:
		return 3
	case v < 1<<24:
		return 4
	}
	return 9
}

func appendLenenc(dst []byte, v uint64) []byte {
	switch {
	case v < 251:
		return append(dst, byte(v))
	case v < 1<<16:
		return append(dst, 0xfc, byte(v), byte(v>>8))
	case v < 1<<24:
		return append(dst, 0xfd, byte(v), byte(v>>8), byte(v>>16))
	}
	return binary.LittleEndian.AppendUint64(append(dst, 0xfe), v)
}

func appendUint56(dst []byte, v uint64) []byte {
	return append(dst, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48))
}
