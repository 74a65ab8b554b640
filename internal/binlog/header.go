package binlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Sizes of the fixed parts of an event, in bytes.
const (
	HeaderSize   = 19
	ChecksumSize = 4
	// MinEventSize is the size of an event with an empty body and a checksum.
	MinEventSize = HeaderSize + ChecksumSize
	// MaxEventSize bounds the size of one event: mysqld itself refuses events
	// above 1 GiB (max_allowed_packet of the applier).
	MaxEventSize = 1 << 30
)

// RenderedServerID is the server id in every event that cohort renders. No
// member may use it: a receiver drops events that carry its own id without a
// word, which leaves a hole in its GTIDs.
// It stays below 2^31 since servers log it as a signed number.
const RenderedServerID uint32 = 2147418125 // 0x7FFF000D

// Type is the type code of an event.
type Type byte

// Event types that cohort reads or writes.
const (
	TypeStop               Type = 3
	TypeQuery              Type = 2
	TypeRotate             Type = 4
	TypeIntvar             Type = 5
	TypeRand               Type = 13
	TypeUserVar            Type = 14
	TypeFormatDescription  Type = 15
	TypeXID                Type = 16
	TypeBeginLoadQuery     Type = 17
	TypeExecuteLoadQuery   Type = 18
	TypeTableMap           Type = 19
	TypeIncident           Type = 26
	TypeHeartbeat          Type = 27
	TypeRowsQuery          Type = 29
	TypeWriteRows          Type = 30
	TypeUpdateRows         Type = 31
	TypeDeleteRows         Type = 32
	TypeGTID               Type = 33
	TypeAnonymousGTID      Type = 34
	TypePreviousGTIDs      Type = 35
	TypeTransactionContext Type = 36
	TypeViewChange         Type = 37
	TypeXAPrepare          Type = 38
	TypePartialUpdateRows  Type = 39
	TypeTransactionPayload Type = 40
	TypeHeartbeatV2        Type = 41
	TypeGTIDTagged         Type = 42
)

// Flags of the event header.
const (
	// FlagInUse marks the format description event of a file being written.
	FlagInUse uint16 = 0x1
	// FlagArtificial marks an event that is not part of any file.
	FlagArtificial uint16 = 0x20
	// FlagIgnorable marks an event that an older receiver may skip.
	FlagIgnorable uint16 = 0x80
)

// Errors of the codec. Every error of this package wraps one of them.
var (
	// ErrMalformed means that bytes are not the event they claim to be.
	ErrMalformed = errors.New("malformed binlog event")
	// ErrChecksum means that an event's CRC32 does not match its bytes.
	ErrChecksum = errors.New("binlog event checksum mismatch")
	// ErrTruncated means that bytes end in the middle of an event.
	ErrTruncated = errors.New("truncated binlog event")
)

// Header is the common header of an event (19 bytes, little endian).
type Header struct {
	// Timestamp is in seconds since the epoch.
	Timestamp uint32
	Type      Type
	ServerID  uint32
	// Size is the length of the whole event in bytes, header and checksum
	// included.
	Size uint32
	// LogPos is the position of the next event in the file of origin, 0 in
	// everything that cohort renders but format descriptions.
	LogPos uint32
	Flags  uint16
}

// ParseHeader reads the header at the start of b. It checks only that the size
// is at least a header's and at most MaxEventSize; b may hold less than Size.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes of header", ErrTruncated, len(b))
	}
	h := Header{
		Timestamp: binary.LittleEndian.Uint32(b),
		Type:      Type(b[4]),
		ServerID:  binary.LittleEndian.Uint32(b[5:]),
		Size:      binary.LittleEndian.Uint32(b[9:]),
		LogPos:    binary.LittleEndian.Uint32(b[13:]),
		Flags:     binary.LittleEndian.Uint16(b[17:]),
	}
	if h.Size < HeaderSize || h.Size > MaxEventSize {
		return h, fmt.Errorf("%w: event size %d", ErrMalformed, h.Size)
	}
	return h, nil
}

// AppendHeader appends h's 19 bytes to dst.
func AppendHeader(dst []byte, h Header) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, h.Timestamp)
	dst = append(dst, byte(h.Type))
	dst = binary.LittleEndian.AppendUint32(dst, h.ServerID)
	dst = binary.LittleEndian.AppendUint32(dst, h.Size)
	dst = binary.LittleEndian.AppendUint32(dst, h.LogPos)
	return binary.LittleEndian.AppendUint16(dst, h.Flags)
}

// SetHeader rewrites the server id and the log position of the event in place.
// The checksum is wrong afterwards: call FixChecksum, or AppendChecksum when
// the event has none yet. It panics if ev is shorter than a header.
func SetHeader(ev []byte, serverID, logPos uint32) {
	binary.LittleEndian.PutUint32(ev[5:], serverID)
	binary.LittleEndian.PutUint32(ev[13:], logPos)
}

// SetSize rewrites the size field of the event in place. It panics if ev is
// shorter than a header.
func SetSize(ev []byte, size uint32) {
	binary.LittleEndian.PutUint32(ev[9:], size)
}

// Checksum is the CRC32 (IEEE) over b, as mysqld computes it over an event
// without its last four bytes.
func Checksum(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

// AppendChecksum appends the CRC32 of dst[start:] to dst. The event that
// begins at start has no checksum yet, but its size field counts it already.
func AppendChecksum(dst []byte, start int) []byte {
	return binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(dst[start:]))
}

// FixChecksum recomputes the last four bytes of ev, a whole event with
// checksum. It panics if ev is shorter than MinEventSize.
func FixChecksum(ev []byte) {
	n := len(ev) - ChecksumSize
	binary.LittleEndian.PutUint32(ev[n:], crc32.ChecksumIEEE(ev[:n]))
}

// VerifyChecksum says whether ev is a whole event whose last four bytes are its
// CRC32.
func VerifyChecksum(ev []byte) error {
	if len(ev) < MinEventSize {
		return fmt.Errorf("%w: %d bytes", ErrTruncated, len(ev))
	}
	n := len(ev) - ChecksumSize
	if binary.LittleEndian.Uint32(ev[n:]) != crc32.ChecksumIEEE(ev[:n]) {
		return fmt.Errorf("%w: type %d, %d bytes", ErrChecksum, ev[4], len(ev))
	}
	return nil
}

// Rewrite appends to dst a copy of the event ev as cohort carries it: server
// id RenderedServerID, log position 0, CRC32 appended. hasChecksum says whether
// ev ends with a checksum of its own (which is dropped, not verified). Events
// inside a transaction payload have none.
func Rewrite(dst, ev []byte, hasChecksum bool) ([]byte, error) {
	h, err := ParseHeader(ev)
	if err != nil {
		return dst, err
	}
	if int(h.Size) != len(ev) {
		return dst, fmt.Errorf("%w: size field %d, %d bytes", ErrMalformed, h.Size, len(ev))
	}
	if hasChecksum {
		if len(ev) < MinEventSize {
			return dst, fmt.Errorf("%w: no room for a checksum", ErrMalformed)
		}
		ev = ev[:len(ev)-ChecksumSize]
	}
	start := len(dst)
	dst = append(dst, ev...)
	SetHeader(dst[start:], RenderedServerID, 0)
	SetSize(dst[start:], uint32(len(ev)+ChecksumSize))
	return AppendChecksum(dst, start), nil
}

// appendEvent appends a whole event with checksum whose body is body.
func appendEvent(dst []byte, h Header, body []byte) []byte {
	start := len(dst)
	h.Size = uint32(HeaderSize + len(body) + ChecksumSize)
	dst = AppendHeader(dst, h)
	dst = append(dst, body...)
	return AppendChecksum(dst, start)
}
