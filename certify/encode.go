package certify

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// ErrCorrupt is returned by Decode for bytes that Encode did not write.
var ErrCorrupt = errors.New("certify: corrupt encoding")

const encodingVersion = 2

// Encode appends the certifier's state to b. Equal histories give equal bytes
// on every member, whatever each has collected physically. All integers are
// unsigned varints unless said otherwise:
//
//	version (1 byte), last, horizon, floor, maxTouches
//	origin of the last number and the last number before its run, the same for
//	  the incarnation
//	number of runs; per run: origin, incarnation, direct (0/1), length, and
//	  length times the touches of one transaction, from horizon+1 on
//	number of keys; per key in ascending order: key (8 bytes little-endian),
//	  write-horizon, (ref-horizon)*2 + covered, each 0 when forgotten
func (c *Certifier) Encode(b []byte) []byte {
	b = append(b, encodingVersion)
	for _, v := range [...]uint64{c.last, c.horizon, c.floor, c.maxTouches,
		c.run.origin, c.run.originBefore, c.run.incarnation, c.run.lifeBefore} {
		b = binary.AppendUvarint(b, v)
	}
	live := c.meta[c.metaOff:]
	runs := 0
	for i := range live {
		if i == 0 || live[i].owner != live[i-1].owner {
			runs++
		}
	}
	b = binary.AppendUvarint(b, uint64(runs))
	for i := 0; i < len(live); {
		j := i
		for j < len(live) && live[j].owner == live[i].owner {
			j++
		}
		o := c.owners[live[i].owner]
		b = binary.AppendUvarint(b, o.origin)
		b = binary.AppendUvarint(b, o.incarnation)
		b = append(b, boolByte(o.direct))
		b = binary.AppendUvarint(b, uint64(j-i))
		for ; i < j; i++ {
			b = binary.AppendUvarint(b, uint64(live[i].touches))
		}
	}
	keys := make([]slot, 0, c.keys.used)
	for i := range c.keys.slots {
		if c.keys.slots[i].live(c.horizon) {
			keys = append(keys, c.keys.slots[i])
		}
	}
	slices.SortFunc(keys, func(x, y slot) int { return cmp.Compare(x.key, y.key) })
	b = binary.AppendUvarint(b, uint64(len(keys)))
	for _, s := range keys {
		b = binary.LittleEndian.AppendUint64(b, s.key)
		var write, ref uint64
		if s.write > c.horizon {
			write = s.write - c.horizon
		}
		if r := s.ref &^ refCovered; r > c.horizon {
			ref = (r - c.horizon) << 1
			if s.ref&refCovered != 0 {
				ref |= 1
			}
		}
		b = binary.AppendUvarint(b, write)
		b = binary.AppendUvarint(b, ref)
	}
	return b
}

// Decode reads what Encode wrote from the front of b and returns the rest.
func Decode(b []byte) (*Certifier, []byte, error) {
	r := reader{b: b}
	if v := r.byte(); v != encodingVersion && !r.bad {
		return nil, nil, fmt.Errorf("%w: version %d", ErrCorrupt, v)
	}
	c := &Certifier{last: r.uvarint(), horizon: r.uvarint(), floor: r.uvarint(), maxTouches: r.uvarint(),
		run: run{origin: r.uvarint(), originBefore: r.uvarint(), incarnation: r.uvarint(), lifeBefore: r.uvarint()}}
	if r.bad || c.horizon > c.last || c.floor > c.last || c.last-c.horizon > uint64(len(b)) ||
		c.run.lifeBefore > c.last || c.run.originBefore > c.run.lifeBefore {
		return nil, nil, ErrCorrupt
	}
	for runs := r.uvarint(); runs > 0 && !r.bad; runs-- {
		o := owner{origin: r.uvarint(), incarnation: r.uvarint(), direct: r.byte() == 1}
		n := r.uvarint()
		if n > uint64(len(r.b)) {
			return nil, nil, ErrCorrupt
		}
		idx := slices.Index(c.owners, o)
		if idx < 0 {
			idx = len(c.owners)
			c.owners = append(c.owners, o)
		}
		for ; n > 0; n-- {
			t := r.uvarint()
			if t == 0 || t > 1<<32-1 {
				return nil, nil, ErrCorrupt
			}
			c.meta = append(c.meta, txnMeta{owner: uint32(idx), touches: uint32(t)})
			c.touches += t
		}
	}
	n := r.uvarint()
	if r.bad || uint64(len(c.meta)) != c.last-c.horizon || n > uint64(len(r.b))/10 {
		return nil, nil, ErrCorrupt
	}
	c.keys.reserve(int(n), c.horizon)
	var prev uint64
	for ; n > 0; n-- {
		key, write, ref := r.fixed(), r.uvarint(), r.uvarint()
		span := c.last - c.horizon
		if r.bad || key <= prev || write > span || ref>>1 > span || ref == 1 || write == 0 && ref == 0 {
			return nil, nil, ErrCorrupt
		}
		prev = key
		s := c.keys.insert(key)
		if write > 0 {
			s.write = write + c.horizon
		}
		if ref > 0 {
			s.ref = ref>>1 + c.horizon
			if ref&1 != 0 {
				s.ref |= refCovered
			}
		}
	}
	return c, r.b, nil
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// reader consumes bytes; bad is set, and stays set, at the first shortage.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() uint64 {
	r.bad, r.b = true, nil
	return 0
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		return byte(r.fail())
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		return r.fail()
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) fixed() uint64 {
	if len(r.b) < 8 {
		return r.fail()
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}
