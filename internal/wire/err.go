package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ServerError is what an ERR packet says.
type ServerError struct {
	Code    uint16
	State   string // SQLSTATE, five characters; "" if the packet had none
	Message string
}

// Error gives the error as the mysql client prints it.
func (e *ServerError) Error() string {
	if e.State == "" {
		return fmt.Sprintf("ERROR %d: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("ERROR %d (%s): %s", e.Code, e.State, e.Message)
}

// NewError makes a ServerError with a formatted message.
func NewError(code uint16, state, format string, args ...any) *ServerError {
	return &ServerError{Code: code, State: state, Message: fmt.Sprintf(format, args...)}
}

// ErrorCode returns the MySQL error number in err's chain, 0 if there is none.
func ErrorCode(err error) uint16 {
	var se *ServerError
	if errors.As(err, &se) {
		return se.Code
	}
	return 0
}

// ParseERR reads an ERR packet; the result owns its memory.
func ParseERR(p []byte) (*ServerError, error) {
	if len(p) < 3 || p[0] != HeaderERR {
		return nil, malformed("ERR packet")
	}
	e := &ServerError{Code: binary.LittleEndian.Uint16(p[1:])}
	b := p[3:]
	// Before capabilities are agreed on the server leaves the state out.
	if len(b) >= 6 && b[0] == '#' {
		e.State, b = string(b[1:6]), b[6:]
	}
	e.Message = string(b)
	return e, nil
}

// AppendERR appends the payload of an ERR packet.
func AppendERR(dst []byte, e *ServerError) []byte {
	dst = append(dst, HeaderERR)
	dst = binary.LittleEndian.AppendUint16(dst, e.Code)
	if len(e.State) == 5 {
		dst = append(append(dst, '#'), e.State...)
	}
	return append(dst, e.Message...)
}
