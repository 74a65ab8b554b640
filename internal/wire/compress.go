package wire

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Algorithm is how the compressed protocol compresses.
type Algorithm uint8

// The algorithms of the compressed protocol.
const (
	NoCompression Algorithm = iota
	Zlib
	Zstd
)

const (
	compHeader    = 7       // length 3, sequence 1, length before compression 3
	minCompress   = 50      // shorter payloads go uncompressed, as the server does
	compressChunk = 1 << 16 // longest piece compressed at once
)

// compressedStream is the compressed protocol as a byte stream. A frame is
// decompressed as it is read, so a length in its header allocates nothing.
type compressedStream struct {
	nc    net.Conn
	algo  Algorithm
	level int
	seq   byte // of the next frame we write: one more than the last read

	frame io.LimitedReader // compressed bytes of the frame being read
	plain int              // bytes of it still to come out
	dec   io.Reader        // nil when the frame is not compressed
	zlr   io.ReadCloser
	zst   *zstd.Decoder
	out   bytes.Buffer
}

// EnableCompression switches c to the compressed protocol; both ends do so
// right after the OK that ends authentication. level is the zstd level, 0 for
// the default.
func (c *Conn) EnableCompression(algo Algorithm, level int) {
	if algo == NoCompression {
		return
	}
	c.comp = &compressedStream{nc: c.takeBuffered(), algo: algo, level: level}
	c.comp.frame.R = c.comp.nc
	c.stream = c.comp
}

// SyncSeq sets the number of our next packet to what a server uses after it read
// a command: over compression it counts frames, not packets.
func (c *Conn) SyncSeq() {
	if c.comp != nil {
		c.Seq = c.comp.seq
	}
}

// Compression returns the algorithm in use.
func (c *Conn) Compression() Algorithm {
	if c.comp == nil {
		return NoCompression
	}
	return c.comp.algo
}

// resetSeq starts a new command from our side.
func (s *compressedStream) resetSeq() { s.seq = 0 }

func (s *compressedStream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for s.plain == 0 {
		if err := s.nextFrame(); err != nil {
			return 0, err
		}
	}
	p = p[:min(len(p), s.plain)]
	var n int
	var err error
	if s.dec == nil {
		n, err = s.frame.Read(p)
	} else {
		n, err = s.dec.Read(p)
	}
	s.plain -= n
	if s.plain == 0 {
		// What is left of the frame is the codec's trailer.
		if _, derr := io.Copy(io.Discard, &s.frame); derr != nil {
			return n, derr
		}
		return n, nil
	}
	if err == io.EOF {
		if n > 0 {
			return n, nil
		}
		return 0, fmt.Errorf("%w: compressed frame ends early", ErrMalformed)
	}
	if err != nil && s.dec != nil {
		return n, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return n, err
}

func (s *compressedStream) nextFrame() error {
	var h [compHeader]byte
	if _, err := io.ReadFull(s.nc, h[:]); err != nil {
		return err
	}
	length, seq := ParseHeader(h[:])
	s.seq = seq + 1
	s.frame.N = int64(length)
	s.plain = int(h[4]) | int(h[5])<<8 | int(h[6])<<16
	if s.plain == 0 {
		s.plain, s.dec = length, nil
		return nil
	}
	return s.startDecoder()
}

func (s *compressedStream) startDecoder() error {
	if s.algo == Zlib {
		if s.zlr == nil {
			zr, err := zlib.NewReader(&s.frame)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrMalformed, err)
			}
			s.zlr = zr
		} else if err := s.zlr.(zlib.Resetter).Reset(&s.frame, nil); err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		s.dec = s.zlr
		return nil
	}
	if s.zst == nil {
		zr, err := zstd.NewReader(&s.frame, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(32<<20))
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		s.zst = zr
	} else if err := s.zst.Reset(&s.frame); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	s.dec = s.zst
	return nil
}

var zlibWriters = sync.Pool{New: func() any { return zlib.NewWriter(io.Discard) }}

var zstdEncoders sync.Map // level → *zstd.Encoder; EncodeAll is safe for all

func zstdEncoder(level int) (*zstd.Encoder, error) {
	if level < 1 || level > 22 {
		level = 3
	}
	if e, ok := zstdEncoders.Load(level); ok {
		return e.(*zstd.Encoder), nil
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithEncoderConcurrency(2), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<17))
	if err != nil {
		return nil, err
	}
	kept, _ := zstdEncoders.LoadOrStore(level, e)
	return kept.(*zstd.Encoder), nil
}

func (s *compressedStream) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		piece := p[done:min(len(p), done+compressChunk)]
		if err := s.writeFrame(piece); err != nil {
			return done, err
		}
		done += len(piece)
	}
	return done, nil
}

func (s *compressedStream) writeFrame(piece []byte) error {
	var h [compHeader]byte
	s.out.Reset()
	s.out.Write(h[:])
	plain := 0
	if len(piece) >= minCompress {
		if err := s.compress(piece); err != nil {
			return err
		}
		plain = len(piece)
	}
	if plain == 0 || s.out.Len()-compHeader >= len(piece) {
		plain = 0
		s.out.Truncate(compHeader)
		s.out.Write(piece)
	}
	b := s.out.Bytes()
	PutHeader(b, len(b)-compHeader, s.seq)
	s.seq++
	b[4], b[5], b[6] = byte(plain), byte(plain>>8), byte(plain>>16)
	_, err := s.nc.Write(b)
	return err
}

func (s *compressedStream) compress(piece []byte) error {
	if s.algo == Zlib {
		w := zlibWriters.Get().(*zlib.Writer)
		defer zlibWriters.Put(w)
		w.Reset(&s.out)
		if _, err := w.Write(piece); err != nil {
			return err
		}
		return w.Close()
	}
	e, err := zstdEncoder(s.level)
	if err != nil {
		return err
	}
	s.out.Write(e.EncodeAll(piece, s.out.AvailableBuffer()))
	return nil
}
