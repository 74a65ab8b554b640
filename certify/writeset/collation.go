package writeset

import (
	"bytes"
	"unicode/utf8"

	"vitess.io/vitess/go/mysql/collations"
	"vitess.io/vitess/go/mysql/collations/colldata"
)

// collation is what is known about one of mysqld's collations. Fields come from
// information_schema; weights come from package colldata, whose WeightString
// equals mysqld's (see TestCollationsAgreeWithServer).
type collation struct {
	id       uint16
	name     string
	charset  string
	padSpace bool
	maxLen   int // bytes of the longest character

	data  colldata.Collation // nil if it is not known here
	space []byte             // weights of one space, if padSpace
	cs    colldata.Charset   // nil if characters cannot be told apart
}

// binary is the collation of byte strings.
var binaryCollation = &collation{id: 63, name: "binary", charset: "binary", maxLen: 1}

// resolve looks up what colldata has.
func (c *collation) resolve() {
	if c.name == "binary" {
		return
	}
	c.data = colldata.Lookup(collations.ID(c.id))
	if c.data == nil || c.data.Name() != c.name {
		c.data = nil
		return
	}
	c.cs = c.data.Charset()
	if c.padSpace {
		c.space = c.data.WeightString(nil, c.encodeSpace(), 0)
		if len(c.space) == 0 {
			c.data = nil
		}
	}
}

func (c *collation) encodeSpace() []byte {
	switch c.charset {
	case "ucs2", "utf16":
		return []byte{0, ' '}
	case "utf16le":
		return []byte{' ', 0}
	case "utf32":
		return []byte{0, 0, 0, ' '}
	}
	return []byte{' '}
}

// wide says whether a space is more than one byte.
func (c *collation) wide() bool { return len(c.encodeSpace()) > 1 }

// form is how values under this collation are normalised.
func (c *collation) form() form {
	isBin := len(c.name) > 4 && c.name[len(c.name)-4:] == "_bin"
	switch {
	case c.name == "binary":
		return formBytes
	case isBin && !c.padSpace:
		return formBytes
	case isBin && !c.wide():
		// Equal under _bin means equal bytes; in no multi-byte character set is
		// 0x20 the last byte of a longer character.
		return formBin
	case c.data == nil:
		return formNone
	}
	return formWeights
}

// countable says whether prefix works: whether characters can be told apart.
func (c *collation) countable() bool {
	return c.maxLen == 1 || c.utf8() || c.cs != nil
}

func (c *collation) utf8() bool { return c.charset == "utf8mb4" || c.charset == "utf8mb3" }

// prefix cuts v to its first n characters, if they are countable.
func (c *collation) prefix(v []byte, n int) []byte {
	if len(v) <= n {
		return v // a character has at least one byte
	}
	if c.maxLen == 1 {
		return v[:n]
	}
	at := 0
	for ; n > 0 && at < len(v); n-- {
		switch {
		case c.utf8() && v[at] < utf8.RuneSelf:
			at++
		case c.utf8():
			_, size := utf8.DecodeRune(v[at:])
			at += size
		default:
			_, size := c.cs.DecodeRune(v[at:])
			at += max(size, 1)
		}
	}
	return v[:min(at, len(v))]
}

// appendWeights appends the weights of v. Under PAD SPACE a string equals
// itself with spaces at the end, so weights of spaces are cut off; it is the
// weights and not the characters that are cut, because other characters can
// weigh as much as a space.
func (c *collation) appendWeights(dst, v []byte) []byte {
	start := len(dst)
	dst = c.data.WeightString(dst, v, 0)
	if c.padSpace {
		for len(dst)-start >= len(c.space) && bytes.HasSuffix(dst[start:], c.space) {
			dst = dst[:len(dst)-len(c.space)]
		}
	}
	return dst
}
