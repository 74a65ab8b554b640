package capture

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"cohort/internal/binlog"
)

// Fields of a Transaction_payload event (MySQL source:
// libs/mysql/binlog/event/codecs/binary.cpp) and its compression codes.
const (
	payloadEnd         = 0
	payloadSize        = 1
	payloadCompression = 2
	payloadFullSize    = 3

	compressionZstd = 0
	compressionNone = 255
)

// payload reads the events that a Transaction_payload event wraps, one at a
// time, so that what is unpacked never lies in memory as a whole.
type payload struct {
	dec *zstd.Decoder
	br  *bufio.Reader
	buf []byte
}

// open begins with a Transaction_payload event's body, which must stay valid
// while next is called.
func (p *payload) open(body []byte) error {
	compression := uint64(compressionNone)
	for {
		field, rest, ok := lenenc(body)
		if !ok {
			return fmt.Errorf("transaction payload: %w", binlog.ErrTruncated)
		}
		body = rest
		if field == payloadEnd {
			break
		}
		length, rest, ok := lenenc(body)
		if !ok || length > uint64(len(rest)) {
			return fmt.Errorf("transaction payload: %w", binlog.ErrTruncated)
		}
		if field == payloadCompression {
			if compression, _, ok = lenenc(rest[:length]); !ok {
				return fmt.Errorf("transaction payload: %w", binlog.ErrTruncated)
			}
		}
		body = rest[length:]
	}
	var r io.Reader = bytes.NewReader(body)
	switch compression {
	case compressionNone:
	case compressionZstd:
		if p.dec == nil {
			dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
			if err != nil {
				return fmt.Errorf("transaction payload: %w", err)
			}
			p.dec = dec
		}
		if err := p.dec.Reset(r); err != nil {
			return fmt.Errorf("transaction payload: %w", err)
		}
		r = p.dec
	default:
		return fmt.Errorf("%w: transaction payload with compression %d", binlog.ErrMalformed, compression)
	}
	if p.br == nil {
		p.br = bufio.NewReaderSize(r, 64<<10)
	} else {
		p.br.Reset(r)
	}
	return nil
}

// next returns the next event, which has no checksum and is valid until the
// next call; io.EOF after the last one.
func (p *payload) next() ([]byte, error) {
	head, err := p.br.Peek(binlog.HeaderSize)
	if err != nil {
		if err == io.EOF && len(head) == 0 {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("transaction payload: %w", noEOF(err))
	}
	h, err := binlog.ParseHeader(head)
	if err != nil {
		return nil, fmt.Errorf("transaction payload: %w", err)
	}
	if cap(p.buf) > keepBuffer {
		p.buf = nil
	}
	if uint32(cap(p.buf)) < h.Size && h.Size <= keepBuffer {
		p.buf = make([]byte, 0, max(h.Size, 4096))
	}
	if h.Size <= keepBuffer {
		p.buf = p.buf[:h.Size]
		if _, err := io.ReadFull(p.br, p.buf); err != nil {
			return nil, fmt.Errorf("transaction payload: %w", noEOF(err))
		}
		return p.buf, nil
	}
	// A claimed size is believed only as far as there are bytes to it.
	var big bytes.Buffer
	if _, err := io.CopyN(&big, p.br, int64(h.Size)); err != nil {
		return nil, fmt.Errorf("transaction payload: %w", noEOF(err))
	}
	return big.Bytes(), nil
}

func (p *payload) close() {
	if p.dec != nil {
		p.dec.Close()
		p.dec = nil
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// lenenc reads a length-encoded integer.
func lenenc(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	n := 0
	switch b[0] {
	case 0xfc:
		n = 2
	case 0xfd:
		n = 3
	case 0xfe:
		n = 8
	case 0xfb, 0xff:
		return 0, nil, false
	default:
		return uint64(b[0]), b[1:], true
	}
	if len(b) < 1+n {
		return 0, nil, false
	}
	var t [8]byte
	copy(t[:], b[1:1+n])
	return binary.LittleEndian.Uint64(t[:]), b[1+n:], true
}
