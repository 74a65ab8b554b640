package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is wrapped by every error about bytes that break the protocol.
var ErrMalformed = errors.New("malformed packet")

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// AppendLenencInt appends v as a length-encoded integer.
func AppendLenencInt(dst []byte, v uint64) []byte {
	switch {
	case v < 251:
		return append(dst, byte(v))
	case v < 1<<16:
		return append(dst, 0xFC, byte(v), byte(v>>8))
	case v < 1<<24:
		return append(dst, 0xFD, byte(v), byte(v>>8), byte(v>>16))
	}
	return binary.LittleEndian.AppendUint64(append(dst, 0xFE), v)
}

// AppendLenencString appends s behind its length.
func AppendLenencString[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(AppendLenencInt(dst, uint64(len(s))), s...)
}

// ReadLenencInt reads a length-encoded integer and returns what follows it.
// ok is false if b is short or starts with NULL (0xFB) or 0xFF.
func ReadLenencInt(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, b, false
	}
	switch c := b[0]; {
	case c < 0xFB:
		return uint64(c), b[1:], true
	case c == 0xFC && len(b) >= 3:
		return uint64(b[1]) | uint64(b[2])<<8, b[3:], true
	case c == 0xFD && len(b) >= 4:
		return uint64(b[1]) | uint64(b[2])<<8 | uint64(b[3])<<16, b[4:], true
	case c == 0xFE && len(b) >= 9:
		return binary.LittleEndian.Uint64(b[1:9]), b[9:], true
	}
	return 0, b, false
}

// ReadLenencString reads a length-encoded string; s shares b's memory.
func ReadLenencString(b []byte) (s, rest []byte, ok bool) {
	n, rest, ok := ReadLenencInt(b)
	if !ok || n > uint64(len(rest)) {
		return nil, b, false
	}
	return rest[:n:n], rest[n:], true
}

// readNulString reads up to a NUL byte, which it consumes.
func readNulString(b []byte) (s, rest []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return b[:i:i], b[i+1:], true
		}
	}
	return nil, b, false
}
