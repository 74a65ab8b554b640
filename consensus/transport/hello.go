package transport

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// A connection carries messages or chunks one way. Whoever connects says who it
// is, and the other side answers whether it is let in. Both begin with a length
// (uint16, big endian) and magic and version, whose shape no version may change.
const (
	magic      = "cohort-raft"
	version    = 2
	maxHello   = 1 << 10
	maxAddress = 300
	maxReason  = 500
)

// purpose is what a connection is for.
type purpose byte

const (
	forMessages purpose = 1
	forChunks   purpose = 2
	forCalls    purpose = 3
)

// hello introduces the one that connects.
type hello struct {
	version uint64
	purpose purpose
	replica uint64
	// generation is the forced membership that the replica lives in, 0 for none.
	generation uint64
	group      string
	address    string
}

func (h hello) append(b []byte) []byte {
	return appendBlock(b, func(b []byte) []byte {
		b = append(b, magic...)
		b = binary.AppendUvarint(b, h.version)
		b = append(b, byte(h.purpose))
		b = binary.AppendUvarint(b, h.replica)
		b = binary.AppendUvarint(b, h.generation)
		b = appendString(b, h.group)
		return appendString(b, h.address)
	})
}

// parseHello returns a hello of another version with nothing but that.
func parseHello(p []byte) (hello, error) {
	d := decoder{p: p}
	if string(d.bytes(uint64(len(magic)))) != magic {
		return hello{}, fmt.Errorf("%w: hello", ErrFrame)
	}
	h := hello{version: d.uvarint()}
	if d.bad || h.version != version {
		return h, d.err("hello")
	}
	h.purpose = purpose(d.byte())
	h.replica = d.uvarint()
	h.generation = d.uvarint()
	h.group = string(d.bytes(d.uvarint()))
	h.address = string(d.bytes(d.uvarint()))
	if h.purpose < forMessages || h.purpose > forCalls || h.replica == 0 || !validAddress(h.address) || len(d.p) > 0 {
		d.bad = true
	}
	return h, d.err("hello")
}

// appendReply appends the answer to a hello; no reason means welcome.
func appendReply(b []byte, reason string) []byte {
	return appendBlock(b, func(b []byte) []byte {
		b = append(b, magic...)
		b = binary.AppendUvarint(b, version)
		return appendString(b, reason[:min(len(reason), maxReason)])
	})
}

// parseReply returns the reason of a refusal.
func parseReply(p []byte) (string, error) {
	d := decoder{p: p}
	if string(d.bytes(uint64(len(magic)))) != magic {
		return "", fmt.Errorf("%w: reply", ErrFrame)
	}
	if v := d.uvarint(); !d.bad && v != version {
		return fmt.Sprintf("it speaks version %d of the protocol, this member %d", v, version), nil
	}
	reason := string(d.bytes(d.uvarint()))
	if len(d.p) > 0 {
		d.bad = true
	}
	return reason, d.err("reply")
}

// readBlock reads what appendBlock wrote.
func readBlock(r *bufio.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(head[:])
	if n > maxHello {
		return nil, fmt.Errorf("%w: hello of %d bytes", ErrFrame, n)
	}
	p := make([]byte, n)
	_, err := io.ReadFull(r, p)
	return p, err
}

func appendBlock(b []byte, fill func([]byte) []byte) []byte {
	start := len(b)
	b = fill(append(b, 0, 0))
	binary.BigEndian.PutUint16(b[start:], uint16(len(b)-start-2))
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder takes a block apart; after a mistake it returns zero values.
type decoder struct {
	p   []byte
	bad bool
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.p)) {
		d.bad, d.p = true, nil
		return nil
	}
	out := d.p[:n]
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
		d.bad, d.p = true, nil
		return 0
	}
	d.p = d.p[n:]
	return v
}

func (d *decoder) err(what string) error {
	if d.bad {
		return fmt.Errorf("%w: %s", ErrFrame, what)
	}
	return nil
}
