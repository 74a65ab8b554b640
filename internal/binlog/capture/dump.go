package capture

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"

	"cohort/internal/binlog"
	"cohort/internal/rawnet"
)

const (
	dumpNonBlock   = 1 // BINLOG_DUMP_NON_BLOCK: EOF at the end instead of waiting
	maxPacket      = 1<<24 - 1
	readBufferSize = 256 << 10
	// keepBuffer is the largest event buffer kept for the next event.
	keepBuffer = 1 << 20
)

// dump is one binary log dump connection. It uses go-mysql to log in and reads
// packets itself, into one buffer that is used again for each event.
type dump struct {
	conn    *client.Conn
	raw     net.Conn
	br      *bufio.Reader
	timeout time.Duration
	buf     []byte
	stop    func() bool
}

// dialDump logs in, registers and asks for the binary log from start on.
// heartbeat is mysqld's period of heartbeats (0: none), timeout how long the
// connection may be silent. Cancelling ctx breaks the connection.
func dialDump(ctx context.Context, opt *Options, start StartAt, flags uint16, heartbeat, timeout time.Duration) (*dump, error) {
	if start.Pos > math.MaxUint32 {
		return nil, fmt.Errorf("%w: position %d of %s", ErrPosition, start.Pos, start.File)
	}
	d := &dump{timeout: timeout}
	dialer := opt.Dialer
	if dialer == nil {
		dialer = (&rawnet.Dialer{Dialer: net.Dialer{Timeout: timeout}}).DialContext
	}
	keep := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer(ctx, network, addr)
		d.raw = c
		return c, err
	}
	conn, err := client.ConnectWithDialer(ctx, opt.Network, opt.Addr, opt.User, opt.Password, "", keep, func(c *client.Conn) error {
		c.ReadTimeout, c.WriteTimeout = timeout, timeout
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("capture: connect to mysqld: %w", err)
	}
	d.conn = conn
	if _, ok := conn.Conn.Conn.(*tls.Conn); ok {
		conn.Close()
		return nil, errors.New("capture: the dump connection must not use TLS")
	}
	d.stop = context.AfterFunc(ctx, func() { d.raw.Close() })
	if err := d.start(opt, start, flags, heartbeat); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *dump) start(opt *Options, start StartAt, flags uint16, heartbeat time.Duration) error {
	for _, stmt := range []string{
		// Events arrive as they are in the file, checksums included; without
		// this mysqld refuses a reader that does not know checksums.
		"SET @source_binlog_checksum = @@global.binlog_checksum, @master_binlog_checksum = @@global.binlog_checksum",
		fmt.Sprintf("SET @source_heartbeat_period = %d, @master_heartbeat_period = %d", heartbeat.Nanoseconds(), heartbeat.Nanoseconds()),
		// A random uuid: mysqld ends an older dump of the same uuid, and two
		// captures (a start-up scan and the live one) may overlap.
		"SET @u = UUID()",
		"SET @replica_uuid = @u, @slave_uuid = @u",
	} {
		if _, err := d.conn.Execute(stmt); err != nil {
			return fmt.Errorf("capture: %s: %w", stmt, err)
		}
	}
	cmd := make([]byte, 4, 32+len(start.File))
	cmd = append(cmd, mysql.COM_BINLOG_DUMP)
	cmd = binary.LittleEndian.AppendUint32(cmd, uint32(max(start.Pos, binlog.MagicSize)))
	cmd = binary.LittleEndian.AppendUint16(cmd, flags)
	cmd = binary.LittleEndian.AppendUint32(cmd, opt.ServerID)
	cmd = append(cmd, start.File...)
	d.conn.ResetSequence()
	if err := d.conn.WritePacket(cmd); err != nil {
		return fmt.Errorf("capture: ask for the binary log: %w", err)
	}
	// Every reply so far was read whole and mysqld sends nothing unasked, so
	// go-mysql's own buffer is empty and the socket can be read directly.
	d.br = bufio.NewReaderSize(deadlineReader{d.raw, d.timeout}, readBufferSize)
	return nil
}

type deadlineReader struct {
	net.Conn
	timeout time.Duration
}

func (r deadlineReader) Read(p []byte) (int, error) {
	if r.timeout > 0 {
		if err := r.SetReadDeadline(time.Now().Add(r.timeout)); err != nil {
			return 0, err
		}
	}
	return r.Conn.Read(p)
}

// next returns the next event as it stands in the file, valid until the next
// call. io.EOF means that a non-blocking dump reached the end.
func (d *dump) next() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(d.br, head[:]); err != nil {
		return nil, d.readError(err)
	}
	n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if n == 0 {
		return nil, fmt.Errorf("%w: empty packet in a dump", binlog.ErrMalformed)
	}
	status, err := d.br.ReadByte()
	if err != nil {
		return nil, d.readError(err)
	}
	last := n < maxPacket
	n--
	switch {
	case status == mysql.EOF_HEADER && n < 8:
		return nil, io.EOF
	case status == mysql.ERR_HEADER:
		b := make([]byte, 1, n+1)
		b[0] = status
		b, err = d.fill(b, n)
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("capture: mysqld ends the dump: %w", d.conn.HandleErrorPacket(b))
	case status != mysql.OK_HEADER:
		return nil, fmt.Errorf("%w: status %d in a dump", binlog.ErrMalformed, status)
	}
	if cap(d.buf) > keepBuffer {
		d.buf = nil
	}
	d.buf = d.buf[:0]
	if !last {
		// The size in the event's own header tells how much there is to come.
		if h, err := d.br.Peek(binlog.HeaderSize); err == nil {
			if h, err := binlog.ParseHeader(h); err == nil {
				d.buf = make([]byte, 0, h.Size)
			}
		}
	}
	for {
		if d.buf, err = d.fill(d.buf, n); err != nil {
			return nil, err
		}
		if last {
			return d.buf, nil
		}
		if _, err := io.ReadFull(d.br, head[:]); err != nil {
			return nil, d.readError(err)
		}
		n = int(head[0]) | int(head[1])<<8 | int(head[2])<<16
		last = n < maxPacket
		if len(d.buf)+n > binlog.MaxEventSize {
			return nil, fmt.Errorf("%w: event above %d bytes", binlog.ErrMalformed, binlog.MaxEventSize)
		}
	}
}

// fill appends n bytes of the stream to b.
func (d *dump) fill(b []byte, n int) ([]byte, error) {
	at := len(b)
	if cap(b)-at < n {
		b = append(make([]byte, 0, max(at+n, 4096)), b...)
	}
	b = b[:at+n]
	if _, err := io.ReadFull(d.br, b[at:]); err != nil {
		return b[:at], d.readError(err)
	}
	return b, nil
}

func (d *dump) readError(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // io.EOF is for the end of a bounded dump
	}
	return fmt.Errorf("capture: read the binary log: %w", err)
}

func (d *dump) close() {
	if d.stop != nil {
		d.stop()
	}
	// mysqld notices that the reader is gone when it next writes, which is
	// within a heartbeat.
	d.raw.Close()
}
