package binlog

import (
	"encoding/binary"
	"fmt"
)

// Magic is how every binary log file begins.
const Magic = "\xfebin"

// MagicSize is the length of Magic and so the position of the first event.
const MagicSize = 4

const (
	serverVersionSize     = 50
	checksumAlgorithmCRC  = 1
	checksumAlgorithmNone = 0
	binlogVersion         = 4
)

// postHeaderLengths are those of a 9.7 server's format description, for event
// types 1 to 42. A receiver rejects any type that this list does not cover.
var postHeaderLengths = [42]byte{
	0, 13, 0, 8, 0, 0, 0, 0, 4, 0, // 1-10: Query 13, Rotate 8, append block 4
	4, 0, 0, 0, 99, 0, 4, 26, 8, 0, // 11-20: format description 99, load 4 and 26, table map 8
	0, 0, 0, 0, 0, 2, 0, 0, 0, 10, // 21-30: incident 2, rows 10
	10, 10, 42, 42, 0, 18, 52, 0, 10, 40, // 31-40: GTID 42, context 18, view change 52, rows 10, payload 40
	0, 0, // 41-42
}

// AppendFormatDescription appends the event that describes all that follow in
// a file or stream: binlog version 4, created 0 (so that a receiver keeps its
// temporary tables), CRC32 checksums. serverVersion is the text of @@version,
// cut to 49 bytes.
//
// Its log position is that of a file's first event, never 0: a parallel applier
// that finds a format description with a position inside a transaction knows
// that the receiver connected again and rolls the incomplete half back before
// the transaction comes once more (sql/rpl_replica.cc, exec_relay_log_event).
// With position 0 it would run both halves together, and the server crashes.
func AppendFormatDescription(dst []byte, ts uint32, serverVersion string, flags uint16) []byte {
	body := make([]byte, 0, 2+serverVersionSize+4+1+len(postHeaderLengths)+1)
	body = binary.LittleEndian.AppendUint16(body, binlogVersion)
	var version [serverVersionSize]byte
	copy(version[:serverVersionSize-1], serverVersion)
	body = append(body, version[:]...)
	body = binary.LittleEndian.AppendUint32(body, 0)
	body = append(body, HeaderSize)
	body = append(body, postHeaderLengths[:]...)
	body = append(body, checksumAlgorithmCRC)
	return appendEvent(dst, Header{
		Timestamp: ts, Type: TypeFormatDescription, ServerID: RenderedServerID, Flags: flags,
		LogPos: uint32(MagicSize + HeaderSize + len(body) + ChecksumSize),
	}, body)
}

// FormatDescription is what cohort needs to know of a format description.
type FormatDescription struct {
	ServerVersion     string
	Created           uint32
	PostHeaderLengths []byte
	// Checksums says whether the events that follow end with a CRC32.
	Checksums bool
}

// ParseFormatDescription reads a format description of a server that knows
// checksums (5.6.1 and later). ev is the whole event as it stands in the file:
// this event always ends with four bytes of checksum.
func ParseFormatDescription(ev []byte) (FormatDescription, error) {
	var f FormatDescription
	h, err := ParseHeader(ev)
	if err != nil {
		return f, err
	}
	if h.Type != TypeFormatDescription {
		return f, fmt.Errorf("%w: type %d is not a format description", ErrMalformed, h.Type)
	}
	const fixed = 2 + serverVersionSize + 4 + 1
	if len(ev) < HeaderSize+fixed+1+ChecksumSize {
		return f, fmt.Errorf("format description: %w", ErrTruncated)
	}
	b := ev[HeaderSize : len(ev)-ChecksumSize]
	if v := binary.LittleEndian.Uint16(b); v != binlogVersion {
		return f, fmt.Errorf("%w: binlog version %d", ErrMalformed, v)
	}
	version := b[2 : 2+serverVersionSize]
	for i, c := range version {
		if c == 0 {
			version = version[:i]
			break
		}
	}
	f.ServerVersion = string(version)
	f.Created = binary.LittleEndian.Uint32(b[2+serverVersionSize:])
	if n := b[fixed-1]; n != HeaderSize {
		return f, fmt.Errorf("%w: event headers of %d bytes", ErrMalformed, n)
	}
	f.PostHeaderLengths = b[fixed : len(b)-1]
	switch alg := b[len(b)-1]; alg {
	case checksumAlgorithmCRC:
		f.Checksums = true
	case checksumAlgorithmNone:
	default:
		return f, fmt.Errorf("%w: checksum algorithm %d", ErrMalformed, alg)
	}
	return f, nil
}

// AppendPreviousGTIDs appends the event that says which GTIDs the earlier files
// hold.
func AppendPreviousGTIDs(dst []byte, ts uint32, set GTIDSet) []byte {
	return appendEvent(dst, Header{Timestamp: ts, Type: TypePreviousGTIDs, ServerID: RenderedServerID, Flags: FlagIgnorable}, AppendGTIDSet(nil, set))
}

// ParsePreviousGTIDs reads the event that AppendPreviousGTIDs makes, or a
// server's. ev is the whole event without its checksum.
func ParsePreviousGTIDs(ev []byte) (GTIDSet, error) {
	h, err := ParseHeader(ev)
	if err != nil {
		return nil, err
	}
	if h.Type != TypePreviousGTIDs {
		return nil, fmt.Errorf("%w: type %d is not a previous GTIDs event", ErrMalformed, h.Type)
	}
	return ParseGTIDSet(ev[HeaderSize:])
}

// AppendRotate appends an artificial rotate event: it tells a receiver the name
// of the file that the following events are said to stand in.
func AppendRotate(dst []byte, file string, position uint64) []byte {
	body := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(file)), position)
	body = append(body, file...)
	return appendEvent(dst, Header{Type: TypeRotate, ServerID: RenderedServerID, Flags: FlagArtificial}, body)
}

// ParseRotate reads a rotate event, ev being the whole event without its
// checksum.
func ParseRotate(ev []byte) (file string, position uint64, err error) {
	h, err := ParseHeader(ev)
	if err != nil {
		return "", 0, err
	}
	if h.Type != TypeRotate || len(ev) < HeaderSize+8 {
		return "", 0, fmt.Errorf("%w: not a rotate event", ErrMalformed)
	}
	return string(ev[HeaderSize+8:]), binary.LittleEndian.Uint64(ev[HeaderSize:]), nil
}

// AppendHeartbeat appends a heartbeat of the second form (type 41), whose
// position is not limited to 32 bits. A receiver that counts more bytes since
// the rotate event than position stops for good, so position must never fall
// behind what was sent.
func AppendHeartbeat(dst []byte, file string, position uint64) []byte {
	const fieldEnd, fieldFile, fieldPosition = 0, 1, 2
	body := appendLenenc([]byte{fieldFile}, uint64(len(file)))
	body = append(body, file...)
	body = appendLenenc(append(body, fieldPosition), uint64(lenencSize(position)))
	body = appendLenenc(body, position)
	body = append(body, fieldEnd)
	return appendEvent(dst, Header{Type: TypeHeartbeatV2, ServerID: RenderedServerID}, body)
}

// XIDSize is the size in bytes of a whole XID event with checksum.
const XIDSize = HeaderSize + 8 + ChecksumSize

// AppendXID appends the XID event that commits a row transaction.
func AppendXID(dst []byte, ts uint32, xid uint64) []byte {
	start := len(dst)
	dst = AppendHeader(dst, Header{Timestamp: ts, Type: TypeXID, ServerID: RenderedServerID, Size: XIDSize})
	dst = binary.LittleEndian.AppendUint64(dst, xid)
	return AppendChecksum(dst, start)
}

// ParseXID reads an XID event, ev being the whole event without its checksum.
func ParseXID(ev []byte) (uint64, error) {
	h, err := ParseHeader(ev)
	if err != nil {
		return 0, err
	}
	if h.Type != TypeXID || len(ev) < HeaderSize+8 {
		return 0, fmt.Errorf("%w: not an XID event", ErrMalformed)
	}
	return binary.LittleEndian.Uint64(ev[HeaderSize:]), nil
}
