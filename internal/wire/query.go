package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Reply is the answer to one statement. Err is a *[ServerError] or nil; OK is
// the packet that ended the (last) result.
type Reply struct {
	Err     error
	OK      OK
	Columns []Column
	Rows    [][][]byte // nil value: NULL
}

// Str returns a value as a string, "" if it is NULL or not there.
func (r *Reply) Str(row, col int) string {
	if row >= len(r.Rows) || col >= len(r.Rows[row]) {
		return ""
	}
	return string(r.Rows[row][col])
}

// Exec runs one statement and returns its OK; rows, if any, are dropped.
func (cl *Client) Exec(ctx context.Context, sql string) (OK, error) {
	var r Reply
	err := cl.do(ctx, []string{sql}, func(int) *Reply { return &r }, dropRow)
	if err != nil {
		return OK{}, err
	}
	return r.OK, r.Err
}

func dropRow([][]byte) error { return nil }

// Query runs one statement and returns its rows (of the last result set).
func (cl *Client) Query(ctx context.Context, sql string) (*Reply, error) {
	r := new(Reply)
	if err := cl.do(ctx, []string{sql}, func(int) *Reply { return r }, nil); err != nil {
		return nil, err
	}
	return r, r.Err
}

// QueryFunc runs one statement and calls fn for each row; the row is valid
// during the call only. An error of fn breaks the connection.
func (cl *Client) QueryFunc(ctx context.Context, sql string, fn func(row [][]byte) error) (*Reply, error) {
	r := new(Reply)
	if err := cl.do(ctx, []string{sql}, func(int) *Reply { return r }, fn); err != nil {
		return nil, err
	}
	return r, r.Err
}

// Ping sends COM_PING.
func (cl *Client) Ping(ctx context.Context) (OK, error) {
	if cl.broken != nil {
		return OK{}, cl.broken
	}
	stop := closeOnDone(ctx, cl.Conn.nc)
	err := WriteCommand[string](cl.Conn, ComPing)
	if err == nil {
		err = cl.Conn.Flush()
	}
	var r Reply
	if err == nil {
		err = cl.readReply(&r, nil)
	}
	if err = cl.finish(ctx, stop, err); err != nil {
		return OK{}, err
	}
	return r.OK, r.Err
}

// pipelineChunk bounds how much is written before replies are read, so that
// neither end blocks on a full socket buffer.
const pipelineChunk = 64 << 10

// Pipeline sends every statement in one write and reads all replies. A failed
// statement does not stop those behind it. The error is about the connection:
// replies that are not there were perhaps executed.
func (cl *Client) Pipeline(ctx context.Context, sqls ...string) ([]Reply, error) {
	return cl.PipelineInto(ctx, make([]Reply, 0, len(sqls)), sqls...)
}

// PipelineInto is [Client.Pipeline] with the replies appended to dst. On an
// error dst holds the replies that were read in full.
func (cl *Client) PipelineInto(ctx context.Context, dst []Reply, sqls ...string) ([]Reply, error) {
	base, done := len(dst), 0
	for range sqls {
		dst = append(dst, Reply{})
	}
	err := cl.do(ctx, sqls, func(i int) *Reply { done = i; return &dst[base+i] }, nil)
	if err != nil {
		dst = dst[:base+done]
	}
	return dst, err
}

func (cl *Client) do(ctx context.Context, sqls []string, slot func(int) *Reply, fn func([][]byte) error) error {
	if cl.broken != nil {
		return cl.broken
	}
	if len(sqls) == 0 {
		return nil
	}
	stop := closeOnDone(ctx, cl.Conn.nc)
	return cl.finish(ctx, stop, cl.exchange(sqls, slot, fn))
}

// exchange writes the statements and reads their replies, chunk by chunk.
func (cl *Client) exchange(sqls []string, slot func(int) *Reply, fn func([][]byte) error) error {
	for sent, read := 0, 0; read < len(sqls); {
		first, queued := sent, 0
		for sent < len(sqls) && (sent == first || queued+len(sqls[sent]) <= pipelineChunk) {
			queued += len(sqls[sent]) + 16
			if err := cl.WriteQuery(sqls[sent]); err != nil {
				return err
			}
			sent++
		}
		if err := cl.Conn.Flush(); err != nil {
			return err
		}
		for ; read < sent; read++ {
			if err := cl.readReply(slot(read), fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish ends an exchange. A context that ended in the same moment has put a
// deadline on the connection: what was read is good, but no more can follow.
func (cl *Client) finish(ctx context.Context, stop func() bool, err error) error {
	if !stop() && err == nil {
		cl.broken = fmt.Errorf("%w: %w", ErrBroken, context.Cause(ctx))
		cl.Conn.Close()
	}
	if err != nil {
		return cl.fail(ctx, err)
	}
	cl.Conn.Release()
	return nil
}

// noAttributes precedes the text of a COM_QUERY under QueryAttributes: no
// parameters, one parameter set.
const noAttributes = "\x00\x01"

// WriteQuery queues a COM_QUERY as this connection's capabilities want it.
func (cl *Client) WriteQuery(sql string) error {
	if cl.Caps.Has(QueryAttributes) {
		return WriteCommand(cl.Conn, ComQuery, noAttributes, sql)
	}
	return WriteCommand(cl.Conn, ComQuery, sql)
}

func (cl *Client) fail(ctx context.Context, err error) error {
	err = cause(ctx, err)
	cl.broken = fmt.Errorf("%w: %w", ErrBroken, err)
	cl.Conn.Close()
	return err
}

var errLocalFile = errors.New("the server asks for a local file")

// readReply reads one command's whole answer, the last of several results
// staying in r.
func (cl *Client) readReply(r *Reply, fn func([][]byte) error) error {
	for {
		p, err := cl.Conn.ReadPacket(cl.MaxReply)
		if err != nil {
			return err
		}
		if len(p) == 0 {
			return malformed("empty reply")
		}
		switch {
		case p[0] == HeaderERR:
			e, err := ParseERR(p)
			if err != nil {
				return err
			}
			r.Err = e
			return nil
		case p[0] == HeaderLocalFile:
			return errLocalFile
		case p[0] == HeaderOK, p[0] == HeaderEOF:
			if r.OK, err = ParseOK(p, cl.Caps); err != nil {
				return err
			}
			r.OK.own()
		default:
			if err := cl.readRows(r, p, fn); err != nil || r.Err != nil {
				return err
			}
		}
		if r.OK.Status&StatusMoreResults == 0 {
			return nil
		}
	}
}

// own makes the slices of ok independent of the read buffer.
func (ok *OK) own() {
	ok.Info = bytes.Clone(ok.Info)
	ok.Trackers = bytes.Clone(ok.Trackers)
}

func (cl *Client) readRows(r *Reply, p []byte, fn func([][]byte) error) error {
	cols, defined, err := ParseColumnCount(p, cl.Caps)
	if err != nil {
		return err
	}
	r.Columns, r.Rows = nil, nil
	for i := 0; i < cols && defined; i++ {
		p, err := cl.Conn.ReadPacket(maxControlPacket)
		if err != nil {
			return err
		}
		c, err := ParseColumn(p)
		if err != nil {
			return err
		}
		r.Columns = append(r.Columns, c)
	}
	if !cl.Caps.Has(DeprecateEOF) {
		if p, err := cl.Conn.ReadPacket(maxControlPacket); err != nil {
			return err
		} else if _, err = ParseEOF(p); err != nil {
			return err
		}
	}
	for {
		p, err := cl.Conn.ReadPacket(cl.MaxReply)
		if err != nil {
			return err
		}
		if len(p) > 0 && p[0] == HeaderERR {
			e, err := ParseERR(p)
			if err != nil {
				return err
			}
			r.Err = e
			return nil
		}
		if len(p) > 0 && IsEOF(p[0], len(p), cl.Caps) {
			if r.OK, err = ParseEnd(p, cl.Caps); err != nil {
				return err
			}
			r.OK.own()
			return nil
		}
		if cl.row, err = ParseTextRow(p, cols, cl.row); err != nil {
			return err
		}
		if fn != nil {
			if err := fn(cl.row); err != nil {
				return err
			}
			continue
		}
		r.Rows = append(r.Rows, cloneRow(cl.row))
	}
}

// cloneRow copies a row with two allocations.
func cloneRow(row [][]byte) [][]byte {
	size := 0
	for _, v := range row {
		size += len(v)
	}
	mem := make([]byte, 0, size)
	out := make([][]byte, len(row))
	for i, v := range row {
		if v != nil {
			start := len(mem)
			mem = append(mem, v...)
			out[i] = mem[start:len(mem):len(mem)]
		}
	}
	return out
}
