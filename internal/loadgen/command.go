package loadgen

import (
	"encoding/binary"
	"fmt"
)

// Reply is what the last result of a command said.
type Reply struct {
	Rows     int    // rows of all result sets of the command
	Affected uint64 // affected rows of the last OK
	Status   uint16 // server status flags of the last OK or EOF
	First    string // first column of the first row (text protocol only)
}

// Query runs a text command and reads all its results. Rows are counted and
// dropped.
func (c *Conn) Query(sql string) (Reply, error) {
	c.begin(comQuery)
	c.out = append(c.out, sql...)
	if err := c.send(); err != nil {
		return Reply{}, err
	}
	return c.results(false)
}

// QueryString runs a text command and returns the first column of its first
// row, "" when there is none.
func (c *Conn) QueryString(sql string) (string, error) {
	c.begin(comQuery)
	c.out = append(c.out, sql...)
	if err := c.send(); err != nil {
		return "", err
	}
	r, err := c.results(true)
	return r.First, err
}

// Arg is one parameter of a prepared statement: an integer, or text.
type Arg struct {
	Int    int64
	Text   string
	IsText bool
}

// Int makes an integer parameter.
func Int(v int64) Arg { return Arg{Int: v} }

// Text makes a text parameter.
func Text(s string) Arg { return Arg{Text: s, IsText: true} }

// Stmt is a server-side prepared statement of one connection.
type Stmt struct {
	conn   *Conn
	id     uint32
	params int
	bound  bool
}

// Prepare prepares sql on the server.
func (c *Conn) Prepare(sql string) (*Stmt, error) {
	c.begin(comStmtPrepare)
	c.out = append(c.out, sql...)
	if err := c.send(); err != nil {
		return nil, err
	}
	length, _, err := c.header()
	if err != nil {
		return nil, err
	}
	p, err := c.keep(length)
	if err != nil {
		return nil, err
	}
	if len(p) > 0 && p[0] == 0xff {
		return nil, parseError(p)
	}
	if len(p) < 12 {
		return nil, fmt.Errorf("%w: prepare answered %d bytes", ErrProtocol, len(p))
	}
	s := &Stmt{
		conn:   c,
		id:     binary.LittleEndian.Uint32(p[1:]),
		params: int(binary.LittleEndian.Uint16(p[7:])),
	}
	for _, n := range []int{s.params, int(binary.LittleEndian.Uint16(p[5:]))} {
		if err := c.skipDefinitions(n); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Exec runs the statement and reads all its results. Every call must give the
// same parameter types: they are sent with the first one only.
func (s *Stmt) Exec(args ...Arg) (Reply, error) {
	if len(args) != s.params {
		return Reply{}, fmt.Errorf("loadgen: %d parameters for a statement of %d", len(args), s.params)
	}
	c := s.conn
	c.begin(comStmtExecute)
	c.out = binary.LittleEndian.AppendUint32(c.out, s.id)
	c.out = append(c.out, 0, 1, 0, 0, 0) // no cursor, one iteration
	if s.params > 0 {
		for range (s.params + 7) / 8 {
			c.out = append(c.out, 0) // no NULLs
		}
		if s.bound {
			c.out = append(c.out, 0)
		} else {
			c.out = append(c.out, 1)
			for _, a := range args {
				if a.IsText {
					c.out = append(c.out, 0xfd, 0) // MYSQL_TYPE_VAR_STRING
				} else {
					c.out = append(c.out, 0x08, 0) // MYSQL_TYPE_LONGLONG
				}
			}
		}
		for _, a := range args {
			if a.IsText {
				c.out = appendLenenc(c.out, uint64(len(a.Text)))
				c.out = append(c.out, a.Text...)
			} else {
				c.out = binary.LittleEndian.AppendUint64(c.out, uint64(a.Int))
			}
		}
	}
	if err := c.send(); err != nil {
		return Reply{}, err
	}
	r, err := c.results(false)
	if err == nil {
		s.bound = true
	}
	return r, err
}

func appendLenenc(b []byte, v uint64) []byte {
	switch {
	case v < 251:
		return append(b, byte(v))
	case v < 1<<16:
		return append(b, 0xfc, byte(v), byte(v>>8))
	default:
		return append(b, 0xfd, byte(v), byte(v>>8), byte(v>>16))
	}
}
