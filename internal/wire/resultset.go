package wire

import "encoding/binary"

// Column types that our own result sets use.
const (
	TypeLong      byte = 0x03
	TypeLongLong  byte = 0x08
	TypeVarString byte = 0xFD
)

// Column describes a column of a text result set.
type Column struct {
	Catalog      string // "def" if empty when encoded
	Schema       string
	Table        string
	OrgTable     string
	Name         string
	OrgName      string
	Charset      uint16 // collation id; 255 (utf8mb4) or 63 (binary)
	Length       uint32 // in bytes
	Type         byte
	Flags        uint16
	Decimals     byte
	DefaultValue []byte // COM_FIELD_LIST only
}

// ParseColumn reads a column definition; the result owns its memory.
func ParseColumn(p []byte) (c Column, err error) {
	var s [6][]byte
	b, ok := p, false
	for i := range s {
		if s[i], b, ok = ReadLenencString(b); !ok {
			return c, malformed("column definition")
		}
	}
	n, b, ok := ReadLenencInt(b)
	if !ok || n < 10 || len(b) < 10 {
		return c, malformed("column definition")
	}
	c.Catalog, c.Schema, c.Table = string(s[0]), string(s[1]), string(s[2])
	c.OrgTable, c.Name, c.OrgName = string(s[3]), string(s[4]), string(s[5])
	c.Charset = binary.LittleEndian.Uint16(b)
	c.Length = binary.LittleEndian.Uint32(b[2:])
	c.Type = b[6]
	c.Flags = binary.LittleEndian.Uint16(b[7:])
	c.Decimals = b[9]
	return c, nil
}

// Append appends the column definition's payload.
func (c *Column) Append(dst []byte) []byte {
	catalog := c.Catalog
	if catalog == "" {
		catalog = "def"
	}
	for _, s := range [...]string{catalog, c.Schema, c.Table, c.OrgTable, c.Name, c.OrgName} {
		dst = AppendLenencString(dst, s)
	}
	dst = append(dst, 0x0C)
	dst = binary.LittleEndian.AppendUint16(dst, c.Charset)
	dst = binary.LittleEndian.AppendUint32(dst, c.Length)
	dst = append(dst, c.Type)
	dst = binary.LittleEndian.AppendUint16(dst, c.Flags)
	return append(dst, c.Decimals, 0, 0)
}

// AppendTextRow appends a row of the text protocol; nil is NULL.
func AppendTextRow(dst []byte, row [][]byte) []byte {
	for _, v := range row {
		if v == nil {
			dst = append(dst, 0xFB)
		} else {
			dst = AppendLenencString(dst, v)
		}
	}
	return dst
}

// ParseTextRow reads a row of n values into dst; values share p's memory, NULL
// is nil, an empty string is not.
func ParseTextRow(p []byte, n int, dst [][]byte) ([][]byte, error) {
	dst = dst[:0]
	for range n {
		if len(p) > 0 && p[0] == 0xFB {
			dst, p = append(dst, nil), p[1:]
			continue
		}
		v, rest, ok := ReadLenencString(p)
		if !ok {
			return dst, malformed("text row")
		}
		dst, p = append(dst, v), rest
	}
	return dst, nil
}

// ParseColumnCount reads the packet that begins a result set. defined is false if
// the session left column definitions out ([OptionalResultsetMetadata]).
func ParseColumnCount(p []byte, caps Capability) (n int, defined bool, err error) {
	v, rest, ok := ReadLenencInt(p)
	defined = true
	if ok && caps.Has(OptionalResultsetMetadata) && len(rest) == 1 {
		defined, rest = rest[0] != 0, nil
	}
	if !ok || len(rest) != 0 || v == 0 || v > 1<<16 {
		return 0, false, malformed("column count")
	}
	return int(v), defined, nil
}

// WriteTextResult queues a whole text result set for a peer with caps: column
// count, definitions, rows, and the end that ok describes (status, warnings,
// trackers).
func WriteTextResult(c *Conn, caps Capability, cols []Column, rows [][][]byte, ok *OK) error {
	buf := AppendLenencInt(nil, uint64(len(cols)))
	if caps.Has(OptionalResultsetMetadata) {
		buf = append(buf, 1) // the definitions follow
	}
	if err := c.WritePacket(buf); err != nil {
		return err
	}
	for i := range cols {
		buf = cols[i].Append(buf[:0])
		if err := c.WritePacket(buf); err != nil {
			return err
		}
	}
	if !caps.Has(DeprecateEOF) {
		// Session state and further results belong to the closing packet.
		mid := OK{Status: ok.Status &^ StatusMoreResults}
		buf = AppendEOF(buf[:0], &mid, caps)
		if err := c.WritePacket(buf); err != nil {
			return err
		}
	}
	for _, row := range rows {
		buf = AppendTextRow(buf[:0], row)
		if err := c.WritePacket(buf); err != nil {
			return err
		}
	}
	return c.WritePacket(AppendEOF(buf[:0], ok, caps))
}
