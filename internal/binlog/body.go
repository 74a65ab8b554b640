package binlog

import (
	"fmt"
	"io"
)

// Kind says how a body ends.
type Kind uint8

const (
	// KindTransaction is [Query BEGIN][rows …]; the XID event that commits it is
	// appended when it is rendered.
	KindTransaction Kind = 1
	// KindStatement is complete in itself, such as one DDL statement.
	KindStatement Kind = 2
)

// Meta is what rendering needs to know beside N, the dependency and the body.
// It travels through the ordered log.
type Meta struct {
	Kind Kind
	// GTIDFlags are the flags of the GTID event (GTIDFlagMayHaveSBR for
	// statements).
	GTIDFlags byte
	// OriginalCommitTimestamp is in microseconds since the epoch; it is written
	// as immediate timestamp too, since no member's own clock may show.
	OriginalCommitTimestamp uint64
	// OriginalServerVersion is as 90704 for 9.7.4.
	OriginalServerVersion uint32
	// Timestamp is that of the headers of the GTID and XID events, in seconds.
	Timestamp uint32
}

// Validate reports a Meta that cannot be rendered.
func (m Meta) Validate() error {
	if m.Kind != KindTransaction && m.Kind != KindStatement {
		return fmt.Errorf("%w: kind %d", ErrMalformed, m.Kind)
	}
	if m.OriginalCommitTimestamp > maxTimestampMicros {
		return fmt.Errorf("%w: commit timestamp %d", ErrMalformed, m.OriginalCommitTimestamp)
	}
	if m.OriginalServerVersion >= versionHasOriginal {
		return fmt.Errorf("%w: server version %d", ErrMalformed, m.OriginalServerVersion)
	}
	return nil
}

// BodyChecker is a writer that verifies, in one pass and without keeping the
// bytes, that what is written to it is a well-formed body: whole events with
// the rendered server id, position 0 and, if Checksums is set before the first
// Write, correct CRC32s; no GTID event and no control event; at least one
// event. Write fails at the first violation, Close if the last event is not
// complete.
type BodyChecker struct {
	// Checksums also verifies each event's CRC32 (about 0.1 ns per byte).
	Checksums bool

	head    [HeaderSize]byte
	headLen int
	left    uint32 // bytes of the current event that are still to come
	crc     uint32 // of the current event so far
	sum     [ChecksumSize]byte
	events  int
	err     error
}

var _ io.WriteCloser = (*BodyChecker)(nil)

// Write implements io.Writer.
func (c *BodyChecker) Write(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	done := 0
	for done < len(p) {
		b := p[done:]
		if c.left == 0 {
			n := copy(c.head[c.headLen:], b)
			c.headLen += n
			done += n
			if c.headLen == HeaderSize {
				if c.err = c.begin(); c.err != nil {
					return done, c.err
				}
			}
			continue
		}
		n := int(min(uint64(c.left), uint64(len(b))))
		if c.Checksums {
			c.checksum(b[:n])
		}
		c.left -= uint32(n)
		done += n
		if c.left == 0 {
			if c.err = c.end(); c.err != nil {
				return done, c.err
			}
		}
	}
	return done, nil
}

// Close reports whether the bytes ended with a whole event.
func (c *BodyChecker) Close() error {
	switch {
	case c.err != nil:
		return c.err
	case c.left != 0 || c.headLen != 0:
		return fmt.Errorf("%w: body ends inside an event", ErrTruncated)
	case c.events == 0:
		return fmt.Errorf("%w: empty body", ErrMalformed)
	}
	return nil
}

func (c *BodyChecker) begin() error {
	h, err := ParseHeader(c.head[:])
	if err != nil {
		return err
	}
	if h.Size < MinEventSize {
		return fmt.Errorf("%w: event size %d leaves no room for a checksum", ErrMalformed, h.Size)
	}
	if h.ServerID != RenderedServerID || h.LogPos != 0 {
		return fmt.Errorf("%w: event of type %d was not rewritten (server id %d, position %d)", ErrMalformed, h.Type, h.ServerID, h.LogPos)
	}
	switch h.Type {
	case TypeGTID, TypeGTIDTagged, TypeAnonymousGTID, TypeFormatDescription, TypePreviousGTIDs,
		TypeRotate, TypeStop, TypeHeartbeat, TypeHeartbeatV2, TypeXAPrepare, TypeTransactionPayload:
		return fmt.Errorf("%w: event of type %d in a body", ErrMalformed, h.Type)
	}
	c.left = h.Size - HeaderSize
	if c.Checksums {
		c.crc = updateChecksum(0, c.head[:])
	}
	return nil
}

// checksum feeds the next bytes of the event, of which the last four are the
// checksum itself.
func (c *BodyChecker) checksum(b []byte) {
	if c.left > ChecksumSize {
		n := min(uint32(len(b)), c.left-ChecksumSize)
		c.crc = updateChecksum(c.crc, b[:n])
		b = b[n:]
	}
	if len(b) > 0 {
		at := ChecksumSize - min(int(c.left), ChecksumSize)
		if c.left > ChecksumSize {
			at = 0
		}
		copy(c.sum[at:], b)
	}
}

func (c *BodyChecker) end() error {
	if c.Checksums {
		want := uint32(c.sum[0]) | uint32(c.sum[1])<<8 | uint32(c.sum[2])<<16 | uint32(c.sum[3])<<24
		if want != c.crc {
			return fmt.Errorf("%w: event of type %d in a body", ErrChecksum, c.head[4])
		}
	}
	c.events++
	c.headLen = 0
	return nil
}

// CheckBody verifies a body held in memory, checksums included.
func CheckBody(body []byte) error {
	c := BodyChecker{Checksums: true}
	if _, err := c.Write(body); err != nil {
		return err
	}
	return c.Close()
}

// NextEvent splits the first whole event (header to checksum) off b.
func NextEvent(b []byte) (ev, rest []byte, err error) {
	h, err := ParseHeader(b)
	if err != nil {
		return nil, nil, err
	}
	if uint64(h.Size) > uint64(len(b)) {
		return nil, nil, fmt.Errorf("%w: event of %d bytes, %d left", ErrTruncated, h.Size, len(b))
	}
	return b[:h.Size:h.Size], b[h.Size:], nil
}
