package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"cohort/internal/binlog/groupbinlog"
)

// donate serves one donor connection, which the caller closes.
func (s *Server) donate(ctx context.Context, c *conn, member string) error {
	c.timeout = s.o.RowsTimeout
	typ, p, err := c.read(maxHello)
	if err != nil {
		return err
	}
	if typ != frameRowsRequest {
		return fmt.Errorf("%w: type %d instead of a request for rows", ErrFrame, typ)
	}
	if p, err = summed(typ, p); err != nil {
		return err
	}
	q, err := parseRowsRequest(p)
	if err != nil {
		return err
	}
	refuse := func(e *RefusedError) error {
		if s.o.Rows != nil {
			e.First, e.Last = s.o.Rows.Range()
		}
		return errors.Join(e, c.write(func(b []byte) []byte { return appendSummed(b, frameRowsRefused, e.append) }))
	}
	if s.o.Rows == nil {
		return refuse(&RefusedError{Text: "this member is no donor"})
	}
	select {
	case s.donations <- struct{}{}:
		defer func() { <-s.donations }()
	default:
		return refuse(&RefusedError{Text: "this member serves others already"})
	}
	if _, last := s.o.Rows.Range(); last < q.to {
		return refuse(&RefusedError{Text: "this member does not have everything yet"})
	}
	r, err := s.o.Rows.NewReader(q.after)
	if err == nil {
		defer r.Close()
		r.Pin()
		s.o.Logger.Info().Str("member", member).Uint64("first", q.after+1).Uint64("last", q.to).Msg("peer channel: a member fetches transactions from here")
		w := &rowsWriter{c: c, buf: make([]byte, 0, rowsWrite+2*rowsChunk)}
		if err = w.send(ctx, r, q.to); err == nil {
			return nil
		}
		if w.mid {
			return err // nothing but the rest of a body may follow
		}
	}
	switch {
	case errors.Is(err, groupbinlog.ErrPurged):
		return refuse(&RefusedError{Purged: true, Text: "this member has purged what is needed"})
	case errors.Is(err, groupbinlog.ErrReset), errors.Is(err, groupbinlog.ErrCorrupt), errors.Is(err, groupbinlog.ErrClosed):
		return errors.Join(err, refuse(&RefusedError{Text: "this member cannot read its group binlog"}))
	}
	return err
}

// rowsWriter gathers frames into large writes. A receiver that is slow holds up
// the writes, and so the reading.
type rowsWriter struct {
	c   *conn
	buf []byte
	mid bool // part of a transaction was sent
}

func (w *rowsWriter) frame(typ frameType, fill func([]byte) []byte) error {
	w.buf = appendSummed(w.buf, typ, fill)
	if len(w.buf) >= rowsWrite {
		return w.flush()
	}
	return nil
}

// flush writes what was gathered; nobody else writes on this connection.
func (w *rowsWriter) flush() error {
	if err := w.c.SetWriteDeadline(time.Now().Add(w.c.timeout)); err != nil {
		return err
	}
	_, err := w.c.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

func (w *rowsWriter) send(ctx context.Context, r *groupbinlog.Reader, to uint64) error {
	chunk := make([]byte, rowsChunk)
	for r.NextN() <= to {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		t, ok, err := r.TryNext()
		if err != nil {
			return err
		}
		if !ok {
			return groupbinlog.ErrReset // it was there
		}
		body, size := t.Body()
		row := Row{N: t.N, Dep: t.Dep, Meta: t.Meta, Size: size}
		w.mid = true
		if err := w.frame(frameRowsTxn, row.append); err != nil {
			return err
		}
		for left := size; left > 0; {
			part := chunk[:min(left, rowsChunk)]
			if _, err := io.ReadFull(body, part); err != nil {
				return fmt.Errorf("%w: transaction %d: %w", groupbinlog.ErrCorrupt, t.N, err)
			}
			if err := w.frame(frameRowsData, func(b []byte) []byte { return append(b, part...) }); err != nil {
				return err
			}
			left -= int64(len(part))
		}
		w.mid = false
	}
	if err := w.frame(frameRowsEnd, nil); err != nil {
		return err
	}
	return w.flush()
}

// Fetch are the options of FetchRows.
type Fetch struct {
	// Donor is whom to ask; Self is the server_uuid of this member.
	Donor Target
	Self  string
	// After and To: transactions After+1 to To are wanted.
	After, To uint64
	// Take is called with each of them, in order. It reads the whole body, which is
	// valid during the call only; an error of the body is the donor's failure and
	// to be returned. Any other error is its own and comes back as a *TakeError.
	Take func(Row, io.Reader) error
	// Options are those of a subscriber: Dial, TLS and Timeout count, the last for
	// the handshake. RowsTimeout defaults to DefaultRowsTimeout.
	SubscriberOptions
}

// FetchRows asks a donor for transactions. What Take was called with before an
// error counts. Errors beside those of connections: *RefusedError, *TakeError,
// ErrFrame, ErrAuth.
func FetchRows(ctx context.Context, f Fetch) error {
	f.SubscriberOptions.Self = f.Self
	s := NewSubscriber(f.SubscriberOptions)
	c, err := s.connectAs(ctx, f.Donor, frameRowsLogin)
	if err != nil {
		return err
	}
	defer c.Close()
	defer closeOnDone(ctx, c)()
	err = f.receive(c)
	if err != nil && ctx.Err() != nil {
		if _, own := errors.AsType[*TakeError](err); !own {
			return context.Cause(ctx)
		}
	}
	return err
}

func (f *Fetch) receive(c *conn) error {
	c.timeout = f.RowsTimeout
	if c.timeout <= 0 {
		c.timeout = DefaultRowsTimeout
	}
	c.r = bufio.NewReaderSize(c.Conn, 64<<10) // nothing of the rows was sent yet
	q := rowsRequest{f.After, f.To}
	if err := c.write(func(b []byte) []byte { return appendSummed(b, frameRowsRequest, q.append) }); err != nil {
		return err
	}
	return f.take(func() (frameType, []byte, error) {
		typ, p, err := c.read(maxRowsFrame)
		if err == nil {
			p, err = summed(typ, p)
		}
		return typ, p, err
	})
}

// take hands on what next returns.
func (f *Fetch) take(next func() (frameType, []byte, error)) error {
	for want := f.After + 1; ; want++ {
		typ, p, err := next()
		if err != nil {
			return unexpected(err)
		}
		switch typ {
		case frameRowsRefused:
			e, err := parseRefused(p)
			if err != nil {
				return err
			}
			return e
		case frameRowsEnd:
			if want != f.To+1 || len(p) > 0 {
				return fmt.Errorf("%w: the rows end with %d, not %d", ErrFrame, want-1, f.To)
			}
			return nil
		case frameRowsTxn:
		default:
			return fmt.Errorf("%w: type %d among rows", ErrFrame, typ)
		}
		row, err := parseRow(p)
		if err != nil {
			return err
		}
		if row.N != want || row.N > f.To {
			return fmt.Errorf("%w: transaction %d where %d must be", ErrFrame, row.N, want)
		}
		body := &bodyReader{next: next, left: row.Size}
		body.check.Checksums = true
		err = f.Take(row, body)
		switch {
		case body.err != nil && !errors.Is(body.err, io.EOF):
			return body.err
		case err != nil:
			return &TakeError{err}
		case body.left > 0 || len(body.part) > 0:
			return &TakeError{errBodyLeft}
		}
	}
}
