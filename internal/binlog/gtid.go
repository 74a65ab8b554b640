package binlog

import (
	"encoding/binary"
	"fmt"
)

// Flags of the GTID event itself (not of its header).
const (
	// GTIDFlagMayHaveSBR is set by mysqld for transactions that may hold
	// statements; absent for pure row transactions.
	GTIDFlagMayHaveSBR byte = 1
)

const (
	gtidPostHeaderSize    = 42
	logicalTimestampCode  = 2
	timestampBytes        = 7
	timestampHasOriginal  = uint64(1) << 55
	versionHasOriginal    = uint32(1) << 31
	undefinedVersion      = 999999
	maxTagLength          = 32
	gtidLastCommittedAt   = HeaderSize + 1 + 16 + 8 + 1
	gtidSequenceNumberAt  = gtidLastCommittedAt + 8
	maxTimestampMicros    = timestampHasOriginal - 1
	gtidEventMinimumBytes = HeaderSize + gtidPostHeaderSize
)

// GTID is the content of a GTID event, tagged (type 42) or not (type 33).
type GTID struct {
	Flags byte
	UUID  UUID
	// Tag is empty in events of type 33.
	Tag string
	GNO int64
	// LastCommitted and SequenceNumber are the logical clock of the file or
	// stream that the event stands in.
	LastCommitted  int64
	SequenceNumber int64
	// ImmediateCommitTimestamp and OriginalCommitTimestamp are in microseconds
	// since the epoch, 0 when unknown.
	ImmediateCommitTimestamp uint64
	OriginalCommitTimestamp  uint64
	// TransactionLength counts the bytes from this event's header to the end of
	// the transaction, checksums included. 0 when unknown.
	TransactionLength uint64
	// ImmediateServerVersion and OriginalServerVersion are as 90704 for 9.7.4;
	// 999999 when unknown.
	ImmediateServerVersion uint32
	OriginalServerVersion  uint32
	// CommitGroupTicket is 0 when absent.
	CommitGroupTicket uint64
}

// String is the GTID in MySQL's notation: uuid:n or uuid:tag:n.
func (g *GTID) String() string {
	if g.Tag != "" {
		return fmt.Sprintf("%s:%s:%d", g.UUID, g.Tag, g.GNO)
	}
	return fmt.Sprintf("%s:%d", g.UUID, g.GNO)
}

// EncodedGTIDSize is the size in bytes, checksum included, of the event that
// AppendGTID makes of g.
func EncodedGTIDSize(g *GTID) int {
	n := gtidEventMinimumBytes + timestampBytes + lenencSize(g.TransactionLength) + 4 + ChecksumSize
	if g.ImmediateCommitTimestamp != g.OriginalCommitTimestamp {
		n += timestampBytes
	}
	if g.ImmediateServerVersion != g.OriginalServerVersion {
		n += 4
	}
	if g.CommitGroupTicket != 0 {
		n += 8
	}
	return n
}

// AppendGTID appends g as an event of type 33 (g.Tag is not written) with
// header timestamp ts in seconds.
func AppendGTID(dst []byte, ts uint32, g *GTID) []byte {
	start := len(dst)
	dst = AppendHeader(dst, Header{
		Timestamp: ts, Type: TypeGTID, ServerID: RenderedServerID,
		Size: uint32(EncodedGTIDSize(g)),
	})
	dst = append(dst, g.Flags)
	dst = append(dst, g.UUID[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(g.GNO))
	dst = append(dst, logicalTimestampCode)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(g.LastCommitted))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(g.SequenceNumber))
	immediate := g.ImmediateCommitTimestamp & maxTimestampMicros
	original := g.OriginalCommitTimestamp & maxTimestampMicros
	if immediate != original {
		dst = appendUint56(dst, immediate|timestampHasOriginal)
		dst = appendUint56(dst, original)
	} else {
		dst = appendUint56(dst, immediate)
	}
	dst = appendLenenc(dst, g.TransactionLength)
	if g.ImmediateServerVersion != g.OriginalServerVersion {
		dst = binary.LittleEndian.AppendUint32(dst, g.ImmediateServerVersion|versionHasOriginal)
		dst = binary.LittleEndian.AppendUint32(dst, g.OriginalServerVersion&^versionHasOriginal)
	} else {
		dst = binary.LittleEndian.AppendUint32(dst, g.ImmediateServerVersion&^versionHasOriginal)
	}
	if g.CommitGroupTicket != 0 {
		dst = binary.LittleEndian.AppendUint64(dst, g.CommitGroupTicket)
	}
	return AppendChecksum(dst, start)
}

// PatchGTIDClock rewrites the logical clock of ev, a whole GTID event of type
// 33 with checksum, and its checksum. It fails on anything else.
func PatchGTIDClock(ev []byte, lastCommitted, sequenceNumber int64) error {
	if len(ev) < gtidEventMinimumBytes+ChecksumSize || Type(ev[4]) != TypeGTID {
		return fmt.Errorf("%w: not an untagged GTID event", ErrMalformed)
	}
	binary.LittleEndian.PutUint64(ev[gtidLastCommittedAt:], uint64(lastCommitted))
	binary.LittleEndian.PutUint64(ev[gtidSequenceNumberAt:], uint64(sequenceNumber))
	FixChecksum(ev)
	return nil
}

// DecodeGTID reads a GTID event of type 33, 34 or 42. ev is the whole event
// with its header and without its checksum.
func DecodeGTID(ev []byte) (GTID, error) {
	h, err := ParseHeader(ev)
	if err != nil {
		return GTID{}, err
	}
	switch h.Type {
	case TypeGTID, TypeAnonymousGTID:
		return decodeUntaggedGTID(ev[HeaderSize:])
	case TypeGTIDTagged:
		return decodeTaggedGTID(ev[HeaderSize:])
	}
	return GTID{}, fmt.Errorf("%w: type %d is not a GTID event", ErrMalformed, h.Type)
}

func decodeUntaggedGTID(b []byte) (GTID, error) {
	var g GTID
	r := reader{b: b}
	g.Flags = r.byte()
	copy(g.UUID[:], r.bytes(16))
	g.GNO = int64(r.uint64())
	if code := r.byte(); code != logicalTimestampCode && r.err == nil {
		return g, fmt.Errorf("%w: logical timestamp code %d", ErrMalformed, code)
	}
	g.LastCommitted = int64(r.uint64())
	g.SequenceNumber = int64(r.uint64())
	g.ImmediateServerVersion, g.OriginalServerVersion = undefinedVersion, undefinedVersion
	if r.err == nil && r.left() >= timestampBytes {
		g.ImmediateCommitTimestamp = r.uint56()
		g.OriginalCommitTimestamp = g.ImmediateCommitTimestamp
		if g.ImmediateCommitTimestamp&timestampHasOriginal != 0 {
			g.ImmediateCommitTimestamp &^= timestampHasOriginal
			g.OriginalCommitTimestamp = r.uint56()
		}
		if r.left() > 0 {
			g.TransactionLength = r.lenenc()
		}
		if r.left() >= 4 {
			g.ImmediateServerVersion = r.uint32()
			g.OriginalServerVersion = g.ImmediateServerVersion
			if g.ImmediateServerVersion&versionHasOriginal != 0 {
				g.ImmediateServerVersion &^= versionHasOriginal
				g.OriginalServerVersion = r.uint32()
			}
		}
		if r.left() >= 8 {
			g.CommitGroupTicket = r.uint64()
		}
	}
	if r.err != nil {
		return g, fmt.Errorf("GTID event: %w", r.err)
	}
	return g, nil
}

// Field numbers of the tagged GTID event.
const (
	fieldGTIDFlags = iota
	fieldUUID
	fieldGNO
	fieldTag
	fieldLastCommitted
	fieldSequenceNumber
	fieldImmediateTimestamp
	fieldOriginalTimestamp
	fieldTransactionLength
	fieldImmediateVersion
	fieldOriginalVersion
	fieldCommitGroupTicket
)

// decodeTaggedGTID reads the self-describing form: format version, message
// size, number of the last field that may not be ignored, then fields in
// ascending order, each a number and a value.
func decodeTaggedGTID(b []byte) (GTID, error) {
	var g GTID
	r := reader{b: b}
	if v := r.varlen(); v != 1 && v != 0 && r.err == nil {
		return g, fmt.Errorf("%w: tagged GTID event of format %d", ErrMalformed, v)
	}
	size := r.varlen()
	lastNeeded := r.varlen()
	if r.err == nil && size > uint64(len(b)) {
		return g, fmt.Errorf("%w: tagged GTID event claims %d of %d bytes", ErrTruncated, size, len(b))
	}
	hasOriginalTime, hasOriginalVersion := false, false
	next := uint64(0)
	for r.err == nil && r.left() > 0 {
		id := r.varlen()
		if r.err == nil && id < next {
			return g, fmt.Errorf("%w: tagged GTID event repeats field %d", ErrMalformed, id)
		}
		next = id + 1
		switch id {
		case fieldGTIDFlags:
			g.Flags = byte(r.varlen())
		case fieldUUID:
			for i := range g.UUID {
				g.UUID[i] = byte(r.varlen())
			}
		case fieldGNO:
			g.GNO = r.signedVarlen()
		case fieldTag:
			n := r.varlen()
			if n > maxTagLength {
				return g, fmt.Errorf("%w: tag of %d bytes", ErrMalformed, n)
			}
			g.Tag = string(r.bytes(int(n)))
		case fieldLastCommitted:
			g.LastCommitted = r.signedVarlen()
		case fieldSequenceNumber:
			g.SequenceNumber = r.signedVarlen()
		case fieldImmediateTimestamp:
			g.ImmediateCommitTimestamp = r.varlen()
		case fieldOriginalTimestamp:
			g.OriginalCommitTimestamp, hasOriginalTime = r.varlen(), true
		case fieldTransactionLength:
			g.TransactionLength = r.varlen()
		case fieldImmediateVersion:
			g.ImmediateServerVersion = uint32(r.varlen())
		case fieldOriginalVersion:
			g.OriginalServerVersion, hasOriginalVersion = uint32(r.varlen()), true
		case fieldCommitGroupTicket:
			g.CommitGroupTicket = r.varlen()
		default:
			if r.err == nil && id <= lastNeeded {
				return g, fmt.Errorf("%w: tagged GTID event needs unknown field %d", ErrMalformed, id)
			}
			// Values carry no length: nothing behind an unknown field can be read.
			r.b = nil
		}
	}
	if r.err != nil {
		return g, fmt.Errorf("tagged GTID event: %w", r.err)
	}
	if !hasOriginalTime {
		g.OriginalCommitTimestamp = g.ImmediateCommitTimestamp
	}
	if !hasOriginalVersion {
		g.OriginalServerVersion = g.ImmediateServerVersion
	}
	return g, nil
}
