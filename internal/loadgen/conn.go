package loadgen

import (
	"bufio"
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/go-sql-driver/mysql"
)

// ErrProtocol means that the server's bytes made no sense to this client.
var ErrProtocol = errors.New("loadgen: malformed reply")

// ServerError is an ERR packet.
type ServerError struct {
	Number   uint16 // MySQL error number
	SQLState string // five characters
	Message  string
}

// Error formats the error as the mysql command-line client does.
func (e *ServerError) Error() string {
	return fmt.Sprintf("ERROR %d (%s): %s", e.Number, e.SQLState, e.Message)
}

// Target says where and as whom to connect.
type Target struct {
	Network  string // "tcp" or "unix"
	Addr     string // host:port, or the path of a socket
	User     string
	Password string
	Schema   string // default schema, may be empty
}

// DSN renders the target as a data source name of go-sql-driver/mysql.
func (t Target) DSN() string { return t.config().FormatDSN() }

func (t Target) config() *mysql.Config {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd = t.User, t.Password
	cfg.Net, cfg.Addr, cfg.DBName = t.Network, t.Addr, t.Schema
	return cfg
}

const (
	capDeprecateEOF = 1 << 24

	comQuit        = 0x01
	comQuery       = 0x03
	comStmtPrepare = 0x16
	comStmtExecute = 0x17
	comStmtClose   = 0x19

	statusMoreResults = 0x0008

	maxPayload = 1<<24 - 1
)

// Conn is one client connection in its command phase. It is used by one
// goroutine at a time.
type Conn struct {
	sock         net.Conn
	in           *bufio.Reader
	out          []byte // the command being built, header included
	payload      []byte // the last packet that was kept
	deprecateEOF bool
	session      driver.Conn // keeps the driver's own goroutine until Close
}

// handshakeTap remembers the capabilities that the driver asked for: the first
// packet a client writes begins with them.
type handshakeTap struct {
	net.Conn
	caps uint32
	seen bool
}

func (t *handshakeTap) Write(p []byte) (int, error) {
	if !t.seen && len(p) >= 8 {
		t.caps, t.seen = binary.LittleEndian.Uint32(p[4:8]), true
	}
	return t.Conn.Write(p)
}

// Dial connects and authenticates. The context bounds only the set-up.
func Dial(ctx context.Context, t Target) (*Conn, error) {
	cfg := t.config()
	cfg.Logger = &mysql.NopLogger{} // errors are returned, that is enough
	var tap *handshakeTap
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		sock, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		tap = &handshakeTap{Conn: sock}
		return tap, nil
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("loadgen: target %s: %w", t.Addr, err)
	}
	session, err := connector.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("loadgen: connect to %s: %w", t.Addr, err)
	}
	// From here on the driver is idle and the socket is ours: it reads only
	// in answer to a command of its own.
	_ = tap.Conn.SetDeadline(time.Time{})
	return &Conn{
		sock:         tap.Conn,
		in:           bufio.NewReaderSize(tap.Conn, 16<<10),
		deprecateEOF: tap.caps&capDeprecateEOF != 0,
		session:      session,
	}, nil
}

// SetDeadline bounds all later reads and writes; the zero time removes it.
func (c *Conn) SetDeadline(t time.Time) error { return c.sock.SetDeadline(t) }

// Close says goodbye and closes the socket.
func (c *Conn) Close() error { return c.session.Close() }

func (c *Conn) begin(command byte) { c.out = append(c.out[:0], 0, 0, 0, 0, command) }

func (c *Conn) send() error {
	n := len(c.out) - 4
	if n >= maxPayload {
		return fmt.Errorf("loadgen: command of %d bytes is too large", n)
	}
	c.out[0], c.out[1], c.out[2], c.out[3] = byte(n), byte(n>>8), byte(n>>16), 0
	_, err := c.sock.Write(c.out)
	return err
}

// header reads a packet header and peeks at the first payload byte.
func (c *Conn) header() (length int, first byte, err error) {
	b, err := c.in.Peek(4)
	if err != nil {
		return 0, 0, err
	}
	length = int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	if _, err = c.in.Discard(4); err != nil || length == 0 {
		return length, 0, err
	}
	b, err = c.in.Peek(1)
	if err != nil {
		return 0, 0, err
	}
	return length, b[0], nil
}

func (c *Conn) keep(length int) ([]byte, error) {
	if cap(c.payload) < length {
		c.payload = make([]byte, length)
	}
	c.payload = c.payload[:length]
	_, err := io.ReadFull(c.in, c.payload)
	return c.payload, err
}

func (c *Conn) skip(length int) error {
	_, err := c.in.Discard(length)
	return err
}
