package wire

import (
	"encoding/binary"
	"slices"
)

// Greeting is the initial handshake packet, protocol version 10.
type Greeting struct {
	ServerVersion string
	ThreadID      uint32
	Salt          []byte // 20 bytes, without the closing NUL
	Caps          Capability
	Charset       byte
	Status        Status
	AuthPlugin    string
}

// ParseGreeting reads a handshake packet; the result owns its memory. An ERR
// packet in its place is returned as a *[ServerError].
func ParseGreeting(p []byte) (*Greeting, error) {
	if len(p) > 0 && p[0] == HeaderERR {
		e, err := ParseERR(p)
		if err != nil {
			return nil, err
		}
		return nil, e
	}
	if len(p) == 0 || p[0] != protocolVersion {
		return nil, malformed("handshake version")
	}
	g := &Greeting{}
	v, b, ok := readNulString(p[1:])
	if !ok || len(b) < 4+8+1+2 {
		return nil, malformed("handshake is short")
	}
	g.ServerVersion = string(v)
	g.ThreadID = binary.LittleEndian.Uint32(b)
	g.Salt = append(make([]byte, 0, SaltLen), b[4:12]...)
	g.Caps = Capability(binary.LittleEndian.Uint16(b[13:]))
	if b = b[15:]; len(b) < 1+2+2+1+10 {
		return nil, malformed("handshake of a server before 4.1")
	}
	g.Charset = b[0]
	g.Status = Status(binary.LittleEndian.Uint16(b[1:]))
	g.Caps |= Capability(binary.LittleEndian.Uint16(b[3:])) << 16
	saltLen := int(b[5])
	if b = b[16:]; g.Caps.Has(SecureConnection) {
		n := max(13, saltLen-8)
		if len(b) < n {
			return nil, malformed("handshake salt")
		}
		g.Salt = append(g.Salt, b[:min(n, SaltLen-8)]...)
		b = b[n:]
	}
	if g.Caps.Has(PluginAuth) {
		// Some old servers leave the closing NUL out.
		if name, _, ok := readNulString(b); ok {
			g.AuthPlugin = string(name)
		} else {
			g.AuthPlugin = string(b)
		}
	}
	return g, nil
}

// Append appends the packet's payload. The salt must have 20 bytes.
func (g *Greeting) Append(dst []byte) []byte {
	var salt [SaltLen]byte
	copy(salt[:], g.Salt)
	dst = append(dst, protocolVersion)
	dst = append(append(dst, g.ServerVersion...), 0)
	dst = binary.LittleEndian.AppendUint32(dst, g.ThreadID)
	dst = append(append(dst, salt[:8]...), 0)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(g.Caps))
	dst = append(dst, g.Charset)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(g.Status))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(g.Caps>>16))
	if g.Caps.Has(PluginAuth) {
		dst = append(dst, SaltLen+1)
	} else {
		dst = append(dst, 0)
	}
	dst = append(dst, make([]byte, 10)...)
	dst = append(append(dst, salt[8:]...), 0)
	if g.Caps.Has(PluginAuth) {
		dst = append(append(dst, g.AuthPlugin...), 0)
	}
	return dst
}

// sslRequestLen is the length of a handshake response cut off before the user
// name, which is what asks for TLS.
const sslRequestLen = 32

// IsSSLRequest reports whether a client's first packet asks for TLS.
func IsSSLRequest(p []byte) bool {
	return len(p) == sslRequestLen && Capability(binary.LittleEndian.Uint32(p)).Has(SSL|Protocol41)
}

// HandshakeResponse is a client's answer to the greeting (protocol 4.1). Slices
// and strings own their memory after parsing.
type HandshakeResponse struct {
	Caps         Capability
	MaxPacket    uint32
	Charset      byte
	Filler       [23]byte
	User         string
	AuthResponse []byte
	DB           string
	AuthPlugin   string
	Attributes   []byte // connection attributes as on the wire, without their total length
	ZstdLevel    byte
}

// ParseHandshakeResponse reads the answer of a client to a greeting that
// offered serverCaps: only flags in both count.
func ParseHandshakeResponse(p []byte, serverCaps Capability) (*HandshakeResponse, error) {
	if len(p) < sslRequestLen || !Capability(binary.LittleEndian.Uint32(p)).Has(Protocol41) {
		return nil, malformed("handshake response of a client before 4.1")
	}
	r := &HandshakeResponse{Caps: Capability(binary.LittleEndian.Uint32(p)) & serverCaps}
	r.MaxPacket = binary.LittleEndian.Uint32(p[4:])
	r.Charset = p[8]
	copy(r.Filler[:], p[9:32])
	user, b, ok := readNulString(p[32:])
	if !ok {
		return nil, malformed("user name")
	}
	r.User = string(user)
	var auth []byte
	switch {
	case r.Caps.Has(PluginAuthLenenc):
		auth, b, ok = ReadLenencString(b)
	case r.Caps.Has(SecureConnection):
		ok = len(b) > 0 && int(b[0]) < len(b)
		if ok {
			auth, b = b[1:1+int(b[0])], b[1+int(b[0]):]
		}
	default:
		auth, b, ok = readNulString(b)
	}
	if !ok {
		return nil, malformed("authentication response")
	}
	r.AuthResponse = slices.Clone(auth)
	if r.Caps.Has(ConnectWithDB) {
		db, rest, ok := readNulString(b)
		if !ok {
			// Sent by clients that set the flag without a schema.
			if len(b) > 0 {
				return nil, malformed("schema")
			}
			rest = nil
		}
		r.DB, b = string(db), rest
	}
	if r.Caps.Has(PluginAuth) {
		name, rest, ok := readNulString(b)
		if !ok {
			name, rest = b, nil
		}
		r.AuthPlugin, b = string(name), rest
	}
	if r.Caps.Has(ConnectAttrs) && len(b) > 0 {
		attrs, rest, ok := ReadLenencString(b)
		if !ok {
			return nil, malformed("connection attributes")
		}
		r.Attributes, b = slices.Clone(attrs), rest
	}
	if r.Caps.Has(ZstdCompression) && len(b) > 0 {
		r.ZstdLevel = b[0]
	}
	return r, nil
}

// AppendSSLRequest appends the payload that asks for TLS.
func (r *HandshakeResponse) AppendSSLRequest(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(r.Caps|SSL))
	dst = binary.LittleEndian.AppendUint32(dst, r.MaxPacket)
	return append(append(dst, r.Charset), r.Filler[:]...)
}

// Append appends the packet's payload as r.Caps says.
func (r *HandshakeResponse) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(r.Caps))
	dst = binary.LittleEndian.AppendUint32(dst, r.MaxPacket)
	dst = append(append(dst, r.Charset), r.Filler[:]...)
	dst = append(append(dst, r.User...), 0)
	switch {
	case r.Caps.Has(PluginAuthLenenc):
		dst = AppendLenencString(dst, r.AuthResponse)
	case r.Caps.Has(SecureConnection):
		dst = append(append(dst, byte(len(r.AuthResponse))), r.AuthResponse...)
	default:
		dst = append(append(dst, r.AuthResponse...), 0)
	}
	if r.Caps.Has(ConnectWithDB) {
		dst = append(append(dst, r.DB...), 0)
	}
	if r.Caps.Has(PluginAuth) {
		dst = append(append(dst, r.AuthPlugin...), 0)
	}
	if r.Caps.Has(ConnectAttrs) {
		dst = AppendLenencString(dst, r.Attributes)
	}
	if r.Caps.Has(ZstdCompression) {
		dst = append(dst, r.ZstdLevel)
	}
	return dst
}

// ChangeUser is a COM_CHANGE_USER command.
type ChangeUser struct {
	User         string
	AuthResponse []byte
	DB           string
	Charset      uint16
	AuthPlugin   string
	Attributes   []byte
}

// ParseChangeUser reads the command, p[0] being the command byte; the result
// owns its memory. Everything after the schema may be missing.
func ParseChangeUser(p []byte, caps Capability) (*ChangeUser, error) {
	if len(p) == 0 || p[0] != ComChangeUser {
		return nil, malformed("not COM_CHANGE_USER")
	}
	user, b, ok := readNulString(p[1:])
	if !ok {
		return nil, malformed("COM_CHANGE_USER user name")
	}
	r := &ChangeUser{User: string(user)}
	var auth, db []byte
	if caps.Has(SecureConnection) {
		if len(b) == 0 || int(b[0]) >= len(b) {
			return nil, malformed("COM_CHANGE_USER authentication")
		}
		auth, b = b[1:1+int(b[0])], b[1+int(b[0]):]
	} else if auth, b, ok = readNulString(b); !ok {
		return nil, malformed("COM_CHANGE_USER authentication")
	}
	r.AuthResponse = slices.Clone(auth)
	if db, b, ok = readNulString(b); !ok {
		return nil, malformed("COM_CHANGE_USER schema")
	}
	r.DB = string(db)
	if len(b) < 2 {
		return r, nil
	}
	r.Charset = binary.LittleEndian.Uint16(b)
	b = b[2:]
	if caps.Has(PluginAuth) && len(b) > 0 {
		name, rest, ok := readNulString(b)
		if !ok {
			return nil, malformed("COM_CHANGE_USER plugin")
		}
		r.AuthPlugin, b = string(name), rest
	}
	if caps.Has(ConnectAttrs) && len(b) > 0 {
		attrs, _, ok := ReadLenencString(b)
		if !ok {
			return nil, malformed("COM_CHANGE_USER attributes")
		}
		r.Attributes = slices.Clone(attrs)
	}
	return r, nil
}

// Append appends the command's payload, command byte included.
func (r *ChangeUser) Append(dst []byte, caps Capability) []byte {
	dst = append(dst, ComChangeUser)
	dst = append(append(dst, r.User...), 0)
	if caps.Has(SecureConnection) {
		dst = append(append(dst, byte(len(r.AuthResponse))), r.AuthResponse...)
	} else {
		dst = append(append(dst, r.AuthResponse...), 0)
	}
	dst = append(append(dst, r.DB...), 0)
	dst = binary.LittleEndian.AppendUint16(dst, r.Charset)
	if caps.Has(PluginAuth) {
		dst = append(append(dst, r.AuthPlugin...), 0)
	}
	if caps.Has(ConnectAttrs) {
		dst = AppendLenencString(dst, r.Attributes)
	}
	return dst
}

// ParseAuthSwitch reads an AuthSwitchRequest (header 0xFE): the plugin to go on
// with and its salt, which share p's memory.
func ParseAuthSwitch(p []byte) (plugin string, salt []byte, err error) {
	if len(p) < 2 || p[0] != HeaderEOF {
		return "", nil, malformed("authentication switch")
	}
	name, rest, ok := readNulString(p[1:])
	if !ok {
		return string(p[1:]), nil, nil
	}
	return string(name), trimSalt(rest), nil
}

func trimSalt(s []byte) []byte {
	if n := len(s); n > 0 && s[n-1] == 0 {
		return s[:n-1]
	}
	return s
}

// AppendAuthSwitch appends an AuthSwitchRequest.
func AppendAuthSwitch(dst []byte, plugin string, salt []byte) []byte {
	dst = append(append(append(dst, HeaderEOF), plugin...), 0)
	return append(append(dst, salt...), 0)
}

// AppendAttribute appends one connection attribute.
func AppendAttribute(dst []byte, name, value string) []byte {
	return AppendLenencString(AppendLenencString(dst, name), value)
}

// ParseAttributes reads connection attributes; pairs that are cut off end it.
func ParseAttributes(b []byte) map[string]string {
	m := make(map[string]string)
	for len(b) > 0 {
		k, rest, ok := ReadLenencString(b)
		if !ok {
			break
		}
		v, rest, ok := ReadLenencString(rest)
		if !ok {
			break
		}
		m[string(k)], b = string(v), rest
	}
	return m
}
