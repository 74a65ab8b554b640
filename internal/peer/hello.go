package peer

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Both sides prove that they know the server's token without sending it: each
// sends an HMAC-SHA256 (RFC 2104), keyed with the token, of its role, both
// nonces and both member ids. So a process that inherited a dead member's
// address learns nothing, and cannot pass for that member.

const nonceSize = 16

// magic begins the greeting and the login, in every version.
const magic = "cohort-peer"

// NewToken returns a random token, 64 hexadecimal digits, for a server to
// publish through the log.
func NewToken() string {
	var b [32]byte
	rand.Read(b[:]) // never fails, by its documentation
	return hex.EncodeToString(b[:])
}

func newNonce() []byte {
	b := make([]byte, nonceSize)
	rand.Read(b)
	return b
}

// hello is the greeting (without proof) and the login.
type hello struct {
	version uint64
	nonce   []byte
	member  string
	proof   []byte
}

func (h hello) append(b []byte) []byte {
	b = append(b, magic...)
	b = binary.AppendUvarint(b, h.version)
	b = append(b, h.nonce...)
	b = appendString(b, h.member)
	return append(b, h.proof...)
}

// parseHello wants a proof of proofSize bytes. A different version is reported
// before anything behind it is looked at.
func parseHello(p []byte, proofSize int) (hello, error) {
	d := decoder{p: p}
	if string(d.bytes(uint64(len(magic)))) != magic {
		return hello{}, fmt.Errorf("%w: hello", ErrFrame)
	}
	h := hello{version: d.uvarint()}
	if d.bad {
		return hello{}, fmt.Errorf("%w: hello", ErrFrame)
	}
	if h.version != Version {
		return hello{}, fmt.Errorf("%w: %d, not %d", ErrVersion, h.version, Version)
	}
	h.nonce = d.bytes(nonceSize)
	h.member = d.string()
	h.proof = d.bytes(uint64(proofSize))
	return h, d.end("hello")
}

// clientRole is the role of who sends a login of that type.
func clientRole(login frameType) string {
	if login == frameRowsLogin {
		return "client for rows"
	}
	return "client"
}

// proof is what role shows about a connection between these two hellos.
func proof(token, role string, server, client hello) []byte {
	mac := hmac.New(sha256.New, []byte(token))
	var b []byte
	b = appendString(b, role)
	b = append(b, server.nonce...)
	b = append(b, client.nonce...)
	b = appendString(b, server.member)
	b = appendString(b, client.member)
	mac.Write(b)
	return mac.Sum(nil)
}
