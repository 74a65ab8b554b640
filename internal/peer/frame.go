package peer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"cohort/internal/applied"
)

// A connection carries frames: a length (uint32, big endian; of what follows),
// a type (one byte), and the payload. Numbers inside payloads are unsigned
// varints as in encoding/binary. Version 1; the first frames, whose shape no
// version may change, say which version each side speaks.
const (
	// MaxFrame is the largest frame either side accepts, bytes, without its
	// length; it bounds the memory that one connection can make us take.
	MaxFrame = 4 << 20
	// maxHello bounds frames of a connection that has not authenticated yet.
	maxHello = 1 << 10
	// maxBatch is how many ranges one applied frame carries at most.
	maxBatch = 4096
	// Version is the protocol's version.
	Version = 1
)

type frameType byte

const (
	frameGreeting  frameType = 1 // server → client: version, nonce, member id
	frameLogin     frameType = 2 // client → server: version, nonce, member id, proof
	frameWelcome   frameType = 3 // server → client: proof
	frameApplied   frameType = 4 // server → client: reset flag, ranges
	frameHeartbeat frameType = 5 // both: state (empty from the client)
	frameRequest   frameType = 6 // client → server: id, method, payload
	frameResponse  frameType = 7 // server → client: id, failure flag, payload or text
	frameNotices   frameType = 8 // client → server: texts
)

// Sentinel errors; test with errors.Is.
var (
	// ErrFrame is wrapped by every error about bytes that are no valid frame.
	ErrFrame = errors.New("peer: malformed frame")
	// ErrAuth says that the other side did not prove that it knows the token,
	// or is another member than the one expected.
	ErrAuth = errors.New("peer: authentication failed")
	// ErrVersion says that the other side speaks another version.
	ErrVersion = errors.New("peer: protocol version not supported")
	// ErrTooLarge says that a request or response is above MaxFrame.
	ErrTooLarge = errors.New("peer: message too large")
)

// readFrame reads one frame of at most limit bytes into buf, which it grows and
// returns. Memory grows with what arrives, not with what the length claims.
func readFrame(r *bufio.Reader, buf []byte, limit int) (frameType, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return 0, buf, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 1 || n > uint32(limit) {
		return 0, buf, fmt.Errorf("%w: length %d", ErrFrame, n)
	}
	typ, err := r.ReadByte()
	if err != nil {
		return 0, buf, unexpected(err)
	}
	buf = buf[:0]
	for left := int(n) - 1; left > 0; {
		step := min(left, 64<<10)
		start := len(buf)
		buf = append(buf, make([]byte, step)...)
		if _, err := io.ReadFull(r, buf[start:]); err != nil {
			return 0, buf, unexpected(err)
		}
		left -= step
	}
	return frameType(typ), buf, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendFrame appends a frame to b; fill appends the payload.
func appendFrame(b []byte, typ frameType, fill func([]byte) []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(typ))
	if fill != nil {
		b = fill(b)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// appendApplied appends u as one or more applied frames. Each range is its
// distance from the end of the one before (zigzag, since numbers may arrive out
// of order) and its length less one, so that the usual range takes two bytes.
func appendApplied(b []byte, u applied.Update) []byte {
	reset := u.Reset
	for first := true; first || len(u.Ranges) > 0; first = false {
		n := min(len(u.Ranges), maxBatch)
		b = appendFrame(b, frameApplied, func(b []byte) []byte {
			flag := byte(0)
			if reset {
				flag = 1
			}
			b = append(b, flag)
			b = binary.AppendUvarint(b, uint64(n))
			last := uint64(0)
			for _, r := range u.Ranges[:n] {
				b = binary.AppendVarint(b, int64(r.From-last))
				b = binary.AppendUvarint(b, r.To-r.From)
				last = r.To
			}
			return b
		})
		u.Ranges, reset = u.Ranges[n:], false
	}
	return b
}

// parseApplied is the reverse of one frame of appendApplied.
func parseApplied(p []byte) (applied.Update, error) {
	d := decoder{p: p}
	u := applied.Update{}
	switch d.byte() {
	case 0:
	case 1:
		u.Reset = true
	default:
		d.fail()
	}
	n := d.uvarint()
	if n > maxBatch {
		d.fail()
	}
	last := uint64(0)
	for i := uint64(0); i < n && !d.bad; i++ {
		from := last + uint64(d.varint())
		to := from + d.uvarint()
		if from == 0 || to < from {
			d.fail()
			break
		}
		u.Ranges = append(u.Ranges, applied.Range{From: from, To: to})
		last = to
	}
	return u, d.end("applied")
}

// decoder takes a payload apart; after a mistake it returns zero values and end
// reports it.
type decoder struct {
	p   []byte
	bad bool
}

func (d *decoder) fail() { d.bad, d.p = true, nil }

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.p)) {
		d.fail()
		return nil
	}
	out := d.p[:n:n]
	d.p = d.p[n:]
	return out
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.p)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.p = d.p[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.p)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.p = d.p[n:]
	return v
}

// string reads a length and as many bytes.
func (d *decoder) string() string { return string(d.bytes(d.uvarint())) }

// end returns ErrFrame unless the payload was right and is used up.
func (d *decoder) end(what string) error {
	if d.bad || len(d.p) > 0 {
		return fmt.Errorf("%w: %s", ErrFrame, what)
	}
	return nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
