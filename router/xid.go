package router

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// xidPrefix marks the transactions that cohort opens on a mysqld. A client's
// own XA statements may never name such an xid.
const xidPrefix = "cohort."

// XID is the parsed form of the gtrid `cohort.<member>.<incarnation>.<counter>.<random>`
// that names one wrapped transaction. The random part makes it unguessable:
// XA COMMIT of a detached transaction needs no privilege.
type XID struct {
	Member      string // first 8 hexadecimal digits of the coordinator's server_uuid
	Incarnation uint64 // incarnation of the primary that the coordinator believed in
	Counter     uint64
	Random      string
}

// NewXID makes an xid. It fails only when the operating system has no
// randomness to give, which Go treats as fatal.
func NewXID(memberUUID string, incarnation, counter uint64) string {
	var r [8]byte
	_, _ = rand.Read(r[:]) // never fails: crypto/rand documents it
	var b strings.Builder
	b.Grow(64)
	b.WriteString(xidPrefix)
	if len(memberUUID) > 8 {
		memberUUID = memberUUID[:8]
	}
	b.WriteString(memberUUID)
	b.WriteByte('.')
	b.WriteString(strconv.FormatUint(incarnation, 10))
	b.WriteByte('.')
	b.WriteString(strconv.FormatUint(counter, 10))
	b.WriteByte('.')
	b.WriteString(hex.EncodeToString(r[:]))
	return b.String()
}

// ParseXID parses what NewXID made.
func ParseXID(gtrid string) (XID, error) {
	parts := strings.Split(gtrid, ".")
	if len(parts) != 5 || parts[0]+"." != xidPrefix {
		return XID{}, fmt.Errorf("router: %q is not an xid of cohort", gtrid)
	}
	inc, err := strconv.ParseUint(parts[2], 10, 64)
	if err != nil {
		return XID{}, fmt.Errorf("router: incarnation of xid %q: %w", gtrid, err)
	}
	ctr, err := strconv.ParseUint(parts[3], 10, 64)
	if err != nil {
		return XID{}, fmt.Errorf("router: counter of xid %q: %w", gtrid, err)
	}
	return XID{Member: parts[1], Incarnation: inc, Counter: ctr, Random: parts[4]}, nil
}

// IsOurs says whether a gtrid was made by cohort.
func IsOurs(gtrid string) bool { return strings.HasPrefix(gtrid, xidPrefix) }
