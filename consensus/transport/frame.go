package transport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"
)

// A frame is the length of its payload (uint32, big endian), a type with flags
// (one byte), a CRC-32C of these five bytes and the payload (uint32; 0 under
// TLS, which has better), and the payload. The other side answers with single
// bytes.
const (
	headSize = 9
	// maxFrame is dragonboat's bound of a batch (64 MB) and room for the message
	// that goes over it; it bounds the memory that one connection can take.
	maxFrame = 72 << 20
	// keepBuffer is the largest buffer that is kept for the next frame.
	keepBuffer = 1 << 20
	// maxPiece is how much of a frame is written at once.
	maxPiece   = 256 << 10
	readBuffer = 64 << 10
)

type frameType byte

const (
	frameBatch frameType = 1
	frameChunk frameType = 2
	// flagAsk wants an ack when the frame has been taken.
	flagAsk frameType = 0x80
)

// The answers.
const (
	ack  byte = 6
	nack byte = 21
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// growFrame returns b, or a new buffer, with room for a frame of n payload
// bytes, and the part for the payload.
func growFrame(b []byte, n int) (frame, payload []byte) {
	if cap(b) < headSize+n {
		b = make([]byte, headSize+n)
	}
	b = b[:headSize+n]
	return b, b[headSize:]
}

// sealFrame fills in the head of a frame whose payload is there.
func sealFrame(b []byte, typ frameType, sum bool) {
	binary.BigEndian.PutUint32(b, uint32(len(b)-headSize))
	b[4] = byte(typ)
	crc := uint32(0)
	if sum {
		crc = checksum(b[:5], b[headSize:])
	}
	binary.BigEndian.PutUint32(b[5:], crc)
}

func checksum(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
}

// frameReader reads frames. The payload is valid until the next read.
type frameReader struct {
	r     *bufio.Reader
	sum   bool
	large []byte
	owed  int // of r, not yet discarded
}

func (f *frameReader) next() (frameType, []byte, error) {
	if f.owed > 0 {
		f.r.Discard(f.owed) // was peeked at, so it is there
		f.owed = 0
	}
	if cap(f.large) > keepBuffer {
		f.large = nil
	}
	var head [headSize]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxFrame {
		return 0, nil, fmt.Errorf("%w: %d bytes", ErrFrame, n)
	}
	payload, err := f.payload(int(n))
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	want := uint32(0)
	if f.sum {
		want = checksum(head[:5], payload)
	}
	if binary.BigEndian.Uint32(head[5:]) != want {
		return 0, nil, fmt.Errorf("%w: checksum", ErrFrame)
	}
	return frameType(head[4]), payload, nil
}

// payload reads n bytes, small ones without a copy. Memory grows with what
// arrives, not with what the length claims.
func (f *frameReader) payload(n int) ([]byte, error) {
	if n <= f.r.Size() {
		p, err := f.r.Peek(n)
		if err == nil {
			f.owed = n
		}
		return p, err
	}
	b := f.large[:0]
	for len(b) < n {
		step := min(n-len(b), max(len(b), keepBuffer))
		if cap(b)-len(b) < step {
			b = append(make([]byte, 0, len(b)+step), b...)
		}
		start := len(b)
		b = b[:start+step]
		if _, err := io.ReadFull(f.r, b[start:]); err != nil {
			return nil, err
		}
	}
	f.large = b
	return b, nil
}

// cork gathers the records that TLS makes of one write, so that they leave in
// one write of the connection.
type cork struct {
	net.Conn
	mu  sync.Mutex // TLS may answer the other side's TLS meanwhile
	on  bool
	buf []byte
}

// Write implements net.Conn.
func (k *cork) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.on {
		return k.Conn.Write(b)
	}
	k.buf = append(k.buf, b...)
	return len(b), nil
}

// through writes b to c, the TLS connection above k; k may be nil.
func (k *cork) through(c net.Conn, b []byte) error {
	if k == nil {
		_, err := c.Write(b)
		return err
	}
	k.mu.Lock()
	k.on = true
	k.mu.Unlock()
	_, err := c.Write(b)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.on = false
	if err == nil {
		_, err = k.Conn.Write(k.buf)
	}
	if k.buf = k.buf[:0]; cap(k.buf) > keepBuffer {
		k.buf = nil
	}
	return err
}
