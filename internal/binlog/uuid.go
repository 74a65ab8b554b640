package binlog

import (
	"encoding/hex"
	"fmt"
)

// UUID is a server's or the group's UUID as it stands in events.
type UUID [16]byte

// ParseUUID reads the textual form of 32 hexadecimal digits in groups of
// 8-4-4-4-12, in either case.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, fmt.Errorf("%w: %q is not a UUID", ErrMalformed, clip(s))
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(u[:], []byte(digits)); err != nil {
		return u, fmt.Errorf("%w: %q is not a UUID", ErrMalformed, clip(s))
	}
	return u, nil
}

// String is the lower-case textual form.
func (u UUID) String() string {
	var b [36]byte
	hex.Encode(b[:8], u[:4])
	b[8] = '-'
	hex.Encode(b[9:13], u[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], u[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], u[8:10])
	b[23] = '-'
	hex.Encode(b[24:], u[10:])
	return string(b[:])
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}
