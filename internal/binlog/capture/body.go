package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// memoryLimit is how much of a body is held in memory; what is longer goes to a
// spill file as a whole.
const memoryLimit = 4 << 20

// Body is the rewritten events of one transaction (see package binlog). It is
// read-only and may be read by several goroutines at once.
type Body struct {
	mem  []byte
	file *os.File
	size int64
}

// NewBody makes a body of bytes in memory, which it then owns.
func NewBody(b []byte) *Body { return &Body{mem: b, size: int64(len(b))} }

// Len is the length in bytes.
func (b *Body) Len() int64 { return b.size }

// Bytes is the body if it is held in memory, otherwise nil.
func (b *Body) Bytes() []byte { return b.mem }

// Reader returns a new reader over the whole body.
func (b *Body) Reader() io.ReadSeeker {
	if b.file != nil {
		return io.NewSectionReader(b.file, 0, b.size)
	}
	return bytes.NewReader(b.mem)
}

// ReadAt implements io.ReaderAt.
func (b *Body) ReadAt(p []byte, off int64) (int, error) {
	return io.NewSectionReader(b.readerAt(), 0, b.size).ReadAt(p, off)
}

func (b *Body) readerAt() io.ReaderAt {
	if b.file != nil {
		return b.file
	}
	return bytes.NewReader(b.mem)
}

// Close frees the spill file, if there is one. It may be called on nil.
func (b *Body) Close() error {
	if b == nil || b.file == nil {
		return nil
	}
	f := b.file
	b.file = nil
	return f.Close()
}

// builder gathers a body. Once it is longer than memoryLimit it writes to a
// spill file whose name is removed at once, so that nothing is left behind by
// a crash. buf is reused: finish copies out of it.
type builder struct {
	dir  string
	buf  []byte
	file *os.File
	size int64
	skip bool // the body is not wanted (any more)
}

// reset starts a body, dropping one that was not finished.
func (b *builder) reset(keep bool) {
	b.drop()
	b.skip = !keep
}

func (b *builder) drop() {
	if b.file != nil {
		b.file.Close() // nothing in it is wanted
		b.file = nil
	}
	b.buf = b.buf[:0]
	b.size = 0
	b.skip = true
}

// flush moves what is in memory to the file once it is too much. It is called
// after each event; the event itself was appended to buf.
func (b *builder) added(before int) error {
	b.size += int64(len(b.buf) - before)
	if len(b.buf) <= memoryLimit && (b.file == nil || len(b.buf) < 1<<18) {
		return nil
	}
	if b.file == nil {
		f, err := os.CreateTemp(b.dir, "body-*")
		if err != nil {
			return fmt.Errorf("capture: spill file: %w", err)
		}
		b.file = f
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("capture: spill file: %w", err)
		}
	}
	return b.flush()
}

func (b *builder) flush() error {
	if _, err := b.file.Write(b.buf); err != nil {
		return fmt.Errorf("capture: write spill file: %w", err)
	}
	if cap(b.buf) > memoryLimit+1<<20 {
		b.buf = nil // one huge event grew it
	}
	b.buf = b.buf[:0]
	return nil
}

// finish hands the body over; nil if it was dropped.
func (b *builder) finish() (*Body, error) {
	if b.skip {
		b.drop()
		return nil, nil
	}
	var out *Body
	if b.file != nil {
		if err := b.flush(); err != nil {
			return nil, err
		}
		out = &Body{file: b.file, size: b.size}
		b.file = nil
	} else {
		out = &Body{mem: bytes.Clone(b.buf), size: b.size}
		if out.size != int64(len(out.mem)) {
			return nil, errors.New("capture: body length was miscounted")
		}
	}
	b.drop()
	return out, nil
}
