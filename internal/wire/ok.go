package wire

import "encoding/binary"

// OK is the content of an OK packet, or of the packet that ends a result set
// (an EOF packet, or an OK packet with header 0xFE under [DeprecateEOF]).
type OK struct {
	AffectedRows uint64
	InsertID     uint64
	Status       Status
	Warnings     uint16
	Info         []byte
	Trackers     Trackers
}

// ParseOK reads an OK packet (header 0x00 or 0xFE) of a connection on which
// [Protocol41] and, if caps says so, [SessionTrack] were negotiated. Slices of
// the result share p's memory.
func ParseOK(p []byte, caps Capability) (ok OK, err error) {
	if len(p) == 0 || p[0] != HeaderOK && p[0] != HeaderEOF {
		return ok, malformed("not an OK packet")
	}
	var good bool
	b := p[1:]
	if ok.AffectedRows, b, good = ReadLenencInt(b); !good {
		return ok, malformed("OK affected rows")
	}
	if ok.InsertID, b, good = ReadLenencInt(b); !good {
		return ok, malformed("OK insert id")
	}
	if len(b) < 4 {
		return ok, malformed("OK status")
	}
	ok.Status = Status(binary.LittleEndian.Uint16(b))
	ok.Warnings = binary.LittleEndian.Uint16(b[2:])
	// The server leaves the info out altogether when it and the trackers are
	// empty, and writes it length-encoded with and without SessionTrack.
	if b = b[4:]; len(b) == 0 {
		return ok, nil
	}
	if ok.Info, b, good = ReadLenencString(b); !good {
		return ok, malformed("OK info")
	}
	if caps.Has(SessionTrack) && ok.Status&StatusSessionStateChanged != 0 {
		var t []byte
		if t, _, good = ReadLenencString(b); !good {
			return ok, malformed("OK session state")
		}
		ok.Trackers = t
		if !ok.Trackers.valid() {
			return ok, malformed("OK session tracker")
		}
	}
	return ok, nil
}

// AppendOK appends the payload of an OK packet with the given header (0x00, or
// 0xFE for the end of a result set under [DeprecateEOF]). Trackers go only to a
// peer with [SessionTrack]; the status bit that announces them follows suit.
func AppendOK(dst []byte, header byte, ok *OK, caps Capability) []byte {
	status := ok.Status &^ StatusSessionStateChanged
	tracked := caps.Has(SessionTrack) && len(ok.Trackers) > 0
	if tracked {
		status |= StatusSessionStateChanged
	}
	dst = append(dst, header)
	dst = AppendLenencInt(dst, ok.AffectedRows)
	dst = AppendLenencInt(dst, ok.InsertID)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(status))
	dst = binary.LittleEndian.AppendUint16(dst, ok.Warnings)
	if tracked || len(ok.Info) > 0 {
		dst = AppendLenencString(dst, ok.Info)
	}
	if tracked {
		dst = AppendLenencString(dst, ok.Trackers)
	}
	return dst
}

// ParseEOF reads an EOF packet as sent without [DeprecateEOF].
func ParseEOF(p []byte) (ok OK, err error) {
	if len(p) < 5 || p[0] != HeaderEOF {
		return ok, malformed("EOF packet")
	}
	ok.Warnings = binary.LittleEndian.Uint16(p[1:])
	ok.Status = Status(binary.LittleEndian.Uint16(p[3:]))
	return ok, nil
}

// AppendEOF appends the payload of whatever ends a result set for a peer with
// caps: an EOF packet, or an OK packet with header 0xFE.
func AppendEOF(dst []byte, ok *OK, caps Capability) []byte {
	if caps.Has(DeprecateEOF) {
		return AppendOK(dst, HeaderEOF, ok, caps)
	}
	dst = append(dst, HeaderEOF)
	dst = binary.LittleEndian.AppendUint16(dst, ok.Warnings)
	return binary.LittleEndian.AppendUint16(dst, uint16(ok.Status&^StatusSessionStateChanged))
}

// IsEOF reports whether a packet with this first byte and payload length ends
// a result set; a row that starts with 0xFE is longer than one packet can be.
func IsEOF(first byte, length int, caps Capability) bool {
	if caps.Has(DeprecateEOF) {
		return first == HeaderEOF && length < MaxPayload
	}
	return first == HeaderEOF && length < 9
}

// ParseEnd reads the packet for which [IsEOF] said true.
func ParseEnd(p []byte, caps Capability) (OK, error) {
	if caps.Has(DeprecateEOF) && len(p) >= 7 {
		return ParseOK(p, caps)
	}
	return ParseEOF(p)
}
