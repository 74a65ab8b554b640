package peer

import (
	"fmt"
	"io"

	"cohort/internal/binlog"
)

// bodyReader is a body as its frames come. It verifies that the body is one that
// can stand in a group binlog: what reads it may write it to a file as it comes and
// still refuse it at its end.
type bodyReader struct {
	next  func() (frameType, []byte, error)
	left  int64  // still to come in frames
	part  []byte // of the present frame
	check binlog.BodyChecker
	err   error
}

// Read implements io.Reader.
func (b *bodyReader) Read(p []byte) (int, error) {
	if b.err == nil && len(b.part) == 0 {
		b.err = b.fill()
	}
	if b.err != nil {
		return 0, b.err
	}
	n := copy(p, b.part)
	b.part = b.part[n:]
	return n, nil
}

func (b *bodyReader) fill() error {
	if b.left == 0 {
		if err := b.check.Close(); err != nil {
			return fmt.Errorf("%w: %w", ErrFrame, err)
		}
		return io.EOF
	}
	typ, p, err := b.next()
	if err != nil {
		return unexpected(err)
	}
	if typ != frameRowsData || len(p) == 0 || int64(len(p)) > b.left {
		return fmt.Errorf("%w: type %d, %d bytes in a body", ErrFrame, typ, len(p))
	}
	if _, err := b.check.Write(p); err != nil {
		return fmt.Errorf("%w: %w", ErrFrame, err)
	}
	b.part = p
	b.left -= int64(len(p))
	return nil
}
