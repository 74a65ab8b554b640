package wire

// SplitQuery separates the arguments of a COM_QUERY (what follows the command
// byte) into the query attributes, as on the wire and empty without
// [QueryAttributes], and the statement. Both share arg's memory. A text that
// replaces the statement goes behind the same attributes.
func SplitQuery(arg []byte, caps Capability) (attrs, sql []byte, err error) {
	if !caps.Has(QueryAttributes) {
		return nil, arg, nil
	}
	n, b, ok := ReadLenencInt(arg)
	if !ok {
		return nil, nil, malformed("query attribute count")
	}
	if _, b, ok = ReadLenencInt(b); !ok {
		return nil, nil, malformed("query attribute set count")
	}
	if n > 0 {
		if b, ok = skipParams(b, n); !ok {
			return nil, nil, malformed("query attributes")
		}
	}
	return arg[:len(arg)-len(b)], b, nil
}

// skipParams skips the null bitmap, types, names and values of n parameters.
func skipParams(b []byte, n uint64) (rest []byte, ok bool) {
	bitmap := (n + 7) / 8
	if n > 1<<16 || bitmap+1 > uint64(len(b)) || b[bitmap] != 1 {
		return nil, false
	}
	nulls, b := b[:bitmap], b[bitmap+1:]
	types := make([]byte, 0, min(n, 64))
	for range n {
		if len(b) < 2 {
			return nil, false
		}
		types = append(types, b[0])
		if _, b, ok = ReadLenencString(b[2:]); !ok {
			return nil, false
		}
	}
	for i, t := range types {
		if nulls[i/8]&(1<<(i%8)) != 0 {
			continue
		}
		if b, ok = skipValue(b, t); !ok {
			return nil, false
		}
	}
	return b, true
}

// skipValue skips one value of the binary protocol.
func skipValue(b []byte, typ byte) (rest []byte, ok bool) {
	size := 0
	switch typ {
	case 0x06: // NULL
	case 0x01: // TINY
		size = 1
	case 0x02, 0x0D: // SHORT, YEAR
		size = 2
	case 0x03, 0x09, 0x04: // LONG, INT24, FLOAT
		size = 4
	case 0x08, 0x05: // LONGLONG, DOUBLE
		size = 8
	case 0x07, 0x0A, 0x0B, 0x0C: // TIMESTAMP, DATE, TIME, DATETIME
		if len(b) == 0 {
			return nil, false
		}
		size = 1 + int(b[0])
	default:
		_, rest, ok = ReadLenencString(b)
		return rest, ok
	}
	if size > len(b) {
		return nil, false
	}
	return b[size:], true
}
