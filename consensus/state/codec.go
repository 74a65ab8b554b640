package state

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var (
	// ErrMalformed is returned for bytes that are no entry, item or state.
	ErrMalformed = errors.New("state: malformed")
	// errNoSuchLife is ErrMalformed.
	errNoSuchLife = fmt.Errorf("%w: incarnation of the future", ErrMalformed)
	// ErrUnsupported is returned for formats and rules of a later release. A
	// member that meets one must stop: going on would let it decide
	// differently from the others.
	ErrUnsupported = errors.New("state: not supported by this release")
)

// Control items are lists of fields, so that a later release can add some. A
// field is a varint key, tag*2 for a varint value and tag*2+1 for bytes with
// their varint length. Unknown tags are skipped; absent fields are zero.

func appendUint(b []byte, tag int, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(tag)<<1)
	return binary.AppendUvarint(b, v)
}

func appendString(b []byte, tag int, s string) []byte {
	if s == "" {
		return b
	}
	b = binary.AppendUvarint(b, uint64(tag)<<1|1)
	return appendBytes(b, s)
}

// appendBytes appends s behind its length.
func appendBytes[T string | []byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// fields calls f for each field in b; num is set for varint fields, raw for
// the others.
func fields(b []byte, f func(tag int, num uint64, raw []byte)) error {
	r := reader{b: b}
	for len(r.b) > 0 {
		key := r.uvarint()
		var num uint64
		var raw []byte
		if key&1 == 0 {
			num = r.uvarint()
		} else {
			raw = r.bytes()
		}
		if r.bad || key>>1 > 1<<30 {
			return fmt.Errorf("%w: field", ErrMalformed)
		}
		f(int(key>>1), num, raw)
	}
	return nil
}

// reader consumes bytes; bad is set, and stays set, at the first shortage.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() {
	r.bad, r.b = true, nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bool() bool { return r.byte() != 0 }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes returns the next length-prefixed bytes, not copied.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string { return string(r.bytes()) }

func (r *reader) fixed() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// count reads the number of elements that take at least size bytes each.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

// layout is an item's fields: that at place i has tag i+1. Fields are only ever
// added at the end.
type layout []place

// place is where a field's value is: one of the two is set.
type place struct {
	num *uint64
	str *string
}

func number(p *uint64) place { return place{num: p} }

func text(p *string) place { return place{str: p} }

func (l layout) append(b []byte) []byte {
	for i, p := range l {
		if p.num != nil {
			b = appendUint(b, i+1, *p.num)
		} else {
			b = appendString(b, i+1, *p.str)
		}
	}
	return b
}

// decode sets the values of the fields that are there. It skips fields that this
// release does not know.
func (l layout) decode(b []byte) error {
	return fields(b, func(tag int, num uint64, raw []byte) {
		switch {
		case tag < 1 || tag > len(l):
		case l[tag-1].num != nil:
			*l[tag-1].num = num
		default:
			*l[tag-1].str = string(raw)
		}
	})
}
