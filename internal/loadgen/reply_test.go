package loadgen

import (
	"bufio"
	"bytes"
	"errors"
	"testing"
)

func packets(payloads ...[]byte) []byte {
	var out []byte
	for i, p := range payloads {
		out = append(out, byte(len(p)), byte(len(p)>>8), byte(len(p)>>16), byte(i+1))
		out = append(out, p...)
	}
	return out
}

func reading(b []byte, deprecateEOF bool) *Conn {
	return &Conn{in: bufio.NewReader(bytes.NewReader(b)), deprecateEOF: deprecateEOF}
}

var (
	okPacket   = []byte{0, 3, 0, 2, 0, 0, 0}
	moreOK     = []byte{0, 1, 0, 8, 0, 0, 0}
	endAsOK    = []byte{0xfe, 0, 0, 2, 0, 0, 0}
	endAsEOF   = []byte{0xfe, 0, 0, 2, 0}
	definition = []byte{3, 'd', 'e', 'f'}
	errPacket  = append([]byte{0xff, 0xbd, 0x04}, "#40001Deadlock"...)
)

func TestResults(t *testing.T) {
	for name, tc := range map[string]struct {
		bytes        []byte
		deprecateEOF bool
		want         Reply
		errno        uint16
	}{
		"ok":                {packets(okPacket), true, Reply{Affected: 3, Status: 2}, 0},
		"two results":       {packets(moreOK, okPacket), true, Reply{Affected: 3, Status: 2}, 0},
		"rows":              {packets([]byte{1}, definition, []byte{1, 'x'}, []byte{1, 'y'}, endAsOK), true, Reply{Rows: 2, First: "x", Status: 2}, 0},
		"rows, EOF packets": {packets([]byte{1}, definition, endAsEOF, []byte{1, 'x'}, endAsEOF), false, Reply{Rows: 1, First: "x", Status: 2}, 0},
		"first row is NULL": {packets([]byte{1}, definition, []byte{0xfb}, endAsOK), true, Reply{Rows: 1, Status: 2}, 0},
		"error":             {packets(errPacket), true, Reply{}, 1213},
		"error among rows":  {packets([]byte{1}, definition, []byte{1, 'x'}, errPacket), true, Reply{Rows: 1, First: "x"}, 1213},
	} {
		got, err := reading(tc.bytes, tc.deprecateEOF).results(true)
		var se *ServerError
		switch {
		case tc.errno == 0 && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.errno != 0 && (!errors.As(err, &se) || se.Number != tc.errno || se.SQLState != "40001"):
			t.Errorf("%s: error %v", name, err)
		case got != tc.want:
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
	}
}

func FuzzResults(f *testing.F) {
	f.Add(packets(okPacket), true)
	f.Add(packets([]byte{1}, definition, endAsEOF, []byte{1, 'x'}, endAsEOF), false)
	f.Add(packets(errPacket), true)
	f.Fuzz(func(t *testing.T, b []byte, deprecateEOF bool) {
		if len(b) > 1<<16 {
			return
		}
		_, _ = reading(b, deprecateEOF).results(true) // must return, not panic
	})
}
