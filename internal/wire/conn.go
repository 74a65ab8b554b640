package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

const (
	bufSize  = 16 << 10 // pooled buffers, both directions
	idleSize = 1 << 10  // what a connection keeps while it waits for a command
)

// ErrPacketTooLarge is returned when a packet exceeds the reader's limit.
var ErrPacketTooLarge = errors.New("packet too large")

// ErrSequence is returned when a packet's sequence number is not the next one.
var ErrSequence = errors.New("packets out of order")

var bufPool = sync.Pool{New: func() any { return new([bufSize]byte) }}

// Conn frames packets on one connection. It has one read buffer and one write
// buffer, both borrowed from a pool while there is something in them, so that
// an idle connection costs about a kilobyte. A Conn belongs to one goroutine at
// a time, except for NetConn, the counters and Close.
type Conn struct {
	nc     net.Conn // transport, or the TLS connection over it
	raw    net.Conn // transport as given; for socket calls
	stream io.ReadWriter
	comp   *compressedStream

	// Seq is the sequence number the next packet we write gets. Reading a
	// packet sets it to that packet's number plus one.
	Seq byte

	buf    []byte // read buffer: idle, pooled or grown
	pooled *[bufSize]byte
	idle   []byte
	r, w   int // buf[r:w] is unread

	wbuf    []byte
	wpooled *[bufSize]byte

	hdr [HeaderSize + 1]byte // scratch

	in, out atomic.Uint64
}

// NewConn frames packets on nc.
func NewConn(nc net.Conn) *Conn { return &Conn{nc: nc, raw: nc, stream: nc} }

// NetConn is the connection that packets go over: TLS if it was upgraded.
func (c *Conn) NetConn() net.Conn { return c.nc }

// RawConn is the transport below TLS.
func (c *Conn) RawConn() net.Conn { return c.raw }

// BytesIn and BytesOut count bytes of the protocol, before compression.
func (c *Conn) BytesIn() uint64 { return c.in.Load() }

// BytesOut is the counterpart of BytesIn.
func (c *Conn) BytesOut() uint64 { return c.out.Load() }

// Close closes the transport. Buffers stay with a reader that is in the middle
// of something; they are not given back to the pool.
func (c *Conn) Close() error { return c.nc.Close() }

// Buffered returns what was read and not yet consumed. The slice is valid until
// the next Fill, Discard or read.
func (c *Conn) Buffered() []byte { return c.buf[c.r:c.w] }

// Discard consumes n of the buffered bytes.
func (c *Conn) Discard(n int) { c.r += n }

// Fill reads until at least n bytes are buffered. It may move what is buffered.
func (c *Conn) Fill(n int) error {
	if c.w-c.r >= n {
		return nil
	}
	if c.buf == nil {
		c.usePooled()
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	if n > len(c.buf)-c.r {
		c.makeRoom(n)
	}
	for c.w-c.r < n {
		k, err := c.stream.Read(c.buf[c.w:])
		c.w += k
		c.in.Add(uint64(k))
		if err != nil && c.w-c.r < n {
			if err == io.EOF && c.w > c.r {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

func (c *Conn) usePooled() {
	if c.pooled == nil {
		c.pooled = bufPool.Get().(*[bufSize]byte)
	}
	c.buf = c.pooled[:]
}

// makeRoom makes the buffer hold n bytes from r on. It grows by what arrives,
// at most doubling at a time, so a length in a header costs no memory by itself
// (callers bound n; ReadPacket fills in steps).
func (c *Conn) makeRoom(n int) {
	unread := c.buf[c.r:c.w]
	switch {
	case n <= len(c.buf):
		copy(c.buf, unread)
	case n <= bufSize && c.pooled == nil:
		c.usePooled()
		copy(c.buf, unread)
	default:
		size := max(2*len(c.buf), bufSize)
		for size < n {
			size *= 2
		}
		grown := make([]byte, size)
		copy(grown, unread)
		c.buf = grown
		if c.pooled != nil {
			bufPool.Put(c.pooled)
			c.pooled = nil
		}
	}
	c.w -= c.r
	c.r = 0
}

// WaitIdle blocks until n bytes are buffered like Fill, but waits with the small
// buffer: for connections that may be silent for long.
func (c *Conn) WaitIdle(n int) error {
	if c.w-c.r >= n {
		return nil
	}
	c.Release()
	if c.buf == nil {
		if c.idle == nil {
			c.idle = make([]byte, idleSize)
		}
		c.buf, c.r, c.w = c.idle, 0, 0
	}
	return c.Fill(n)
}

// Release gives the read buffer back if nothing is buffered. Slices from
// Buffered or ReadPacket are invalid afterwards.
func (c *Conn) Release() {
	if c.r != c.w {
		return
	}
	if c.pooled != nil {
		bufPool.Put(c.pooled)
		c.pooled = nil
	}
	c.buf, c.r, c.w = nil, 0, 0
}

// PeekHeader waits for a packet header and returns the payload length and the
// sequence number without consuming anything.
func (c *Conn) PeekHeader() (length int, seq byte, err error) {
	if err = c.Fill(HeaderSize); err != nil {
		return 0, 0, err
	}
	length, seq = ParseHeader(c.buf[c.r:c.w])
	return length, seq, nil
}

// ParseHeader reads a packet header; h has at least four bytes.
func ParseHeader(h []byte) (length int, seq byte) {
	_ = h[3]
	return int(h[0]) | int(h[1])<<8 | int(h[2])<<16, h[3]
}

// PutHeader writes a packet header; h has at least four bytes.
func PutHeader(h []byte, length int, seq byte) {
	_ = h[3]
	h[0], h[1], h[2], h[3] = byte(length), byte(length>>8), byte(length>>16), seq
}

// fillSteps fills n bytes with the buffer growing only as bytes arrive.
func (c *Conn) fillSteps(n int) error {
	for step := bufSize; ; step *= 2 {
		if step >= n {
			return c.Fill(n)
		}
		if err := c.Fill(step); err != nil {
			return err
		}
	}
}

// ReadPacket reads one logical packet of at most limit bytes, joining
// continuations, and sets Seq. The payload is valid until the next read.
func (c *Conn) ReadPacket(limit int) ([]byte, error) {
	n, seq, err := c.PeekHeader()
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrPacketTooLarge, n, limit)
	}
	if err = c.fillSteps(HeaderSize + n); err != nil {
		return nil, unexpected(err)
	}
	c.Seq = seq + 1
	p := c.buf[c.r+HeaderSize : c.r+HeaderSize+n : c.r+HeaderSize+n]
	c.r += HeaderSize + n
	if n < MaxPayload {
		return p, nil
	}
	whole := append([]byte(nil), p...)
	for n == MaxPayload {
		if n, seq, err = c.PeekHeader(); err != nil {
			return nil, unexpected(err)
		}
		if seq != c.Seq {
			return nil, ErrSequence
		}
		if n > limit-len(whole) {
			return nil, fmt.Errorf("%w: limit %d", ErrPacketTooLarge, limit)
		}
		c.Seq = seq + 1
		c.Discard(HeaderSize)
		for left := n; left > 0; {
			if err = c.Fill(1); err != nil {
				return nil, unexpected(err)
			}
			b := c.Buffered()
			b = b[:min(left, len(b))]
			whole = append(whole, b...)
			c.Discard(len(b))
			left -= len(b)
		}
	}
	return whole, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Pending returns the bytes waiting to be flushed, for patching in place.
func (c *Conn) Pending() []byte { return c.wbuf }

// Room returns how many bytes WriteRaw can take without writing to the socket.
func (c *Conn) Room() int { return bufSize - len(c.wbuf) }

// WriteRaw queues bytes that are already framed. Large ones are written on.
func (c *Conn) WriteRaw(b []byte) error { return queue(c, b) }

func queue[T ~string | ~[]byte](c *Conn, b T) error {
	if len(b) > bufSize-len(c.wbuf) {
		if err := c.Flush(); err != nil {
			return err
		}
		if len(b) >= bufSize {
			return c.write([]byte(b))
		}
	}
	if c.wpooled == nil {
		c.wpooled = bufPool.Get().(*[bufSize]byte)
		c.wbuf = c.wpooled[:0]
	}
	c.wbuf = append(c.wbuf, b...)
	return nil
}

// WriteThrough writes what is queued and then b, in one write if it is small.
func (c *Conn) WriteThrough(b []byte) error {
	if len(c.wbuf) > 0 {
		if len(b) <= bufSize-len(c.wbuf) {
			c.wbuf = append(c.wbuf, b...)
			return c.Flush()
		}
		if err := c.Flush(); err != nil {
			return err
		}
	}
	if len(b) == 0 {
		return nil
	}
	return c.write(b)
}

// WritePacket queues payload with the next sequence number, cut into physical
// packets if it is that long.
func (c *Conn) WritePacket(payload []byte) error {
	for {
		n := min(len(payload), MaxPayload)
		h := c.hdr[:HeaderSize]
		PutHeader(h, n, c.Seq)
		c.Seq++
		if err := c.WriteRaw(h); err != nil {
			return err
		}
		if err := c.WriteRaw(payload[:n]); err != nil {
			return err
		}
		payload = payload[n:]
		if n < MaxPayload {
			return nil
		}
	}
}

// WriteCommand queues a command packet: sequence 0, command byte, arguments.
func WriteCommand[T ~string | ~[]byte](c *Conn, code byte, args ...T) error {
	n := 1
	for _, a := range args {
		n += len(a)
	}
	c.Seq = 0
	if c.comp != nil && len(c.wbuf) == 0 {
		c.comp.resetSeq()
	}
	if n >= MaxPayload {
		whole := make([]byte, 0, n)
		whole = append(whole, code)
		for _, a := range args {
			whole = append(whole, a...)
		}
		return c.WritePacket(whole)
	}
	h := c.hdr[:]
	PutHeader(h, n, 0)
	h[HeaderSize] = code
	c.Seq = 1
	if err := c.WriteRaw(h); err != nil {
		return err
	}
	for _, a := range args {
		if err := queue(c, a); err != nil {
			return err
		}
	}
	return nil
}

// Flush writes what is queued.
func (c *Conn) Flush() error {
	if c.wpooled == nil {
		return nil
	}
	var err error
	if len(c.wbuf) > 0 {
		err = c.write(c.wbuf)
	}
	bufPool.Put(c.wpooled)
	c.wpooled, c.wbuf = nil, nil
	return err
}

func (c *Conn) write(b []byte) error {
	n, err := c.stream.Write(b)
	c.out.Add(uint64(n))
	return err
}
