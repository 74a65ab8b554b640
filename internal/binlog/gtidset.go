package binlog

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Interval is the GNOs Start..End, both included.
type Interval struct{ Start, End uint64 }

// Intervals is a sorted list of intervals that neither overlap nor touch.
type Intervals []Interval

// Contains says whether n lies in one of the intervals.
func (s Intervals) Contains(n uint64) bool {
	_, found := slices.BinarySearchFunc(s, n, func(iv Interval, n uint64) int {
		switch {
		case iv.End < n:
			return -1
		case iv.Start > n:
			return 1
		}
		return 0
	})
	return found
}

// Low is the highest n such that all of 1..n are in the set.
func (s Intervals) Low() uint64 {
	if len(s) > 0 && s[0].Start == 1 {
		return s[0].End
	}
	return 0
}

// Max is the highest number in the set, 0 if it is empty.
func (s Intervals) Max() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].End
}

// normalise sorts and joins intervals.
func normalise(s Intervals) Intervals {
	slices.SortFunc(s, func(a, b Interval) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
	out := s[:0]
	for _, iv := range s {
		if n := len(out); n > 0 && iv.Start <= out[n-1].End+1 {
			out[n-1].End = max(out[n-1].End, iv.End)
			continue
		}
		out = append(out, iv)
	}
	return out
}

// GTIDSetEntry is the part of a GTID set that belongs to one UUID and tag.
type GTIDSetEntry struct {
	UUID      UUID
	Tag       string
	Intervals Intervals
}

// GTIDSet is a set of GTIDs as a list of entries, each UUID and tag once.
type GTIDSet []GTIDSetEntry

// Of returns the intervals of one UUID and tag.
func (s GTIDSet) Of(u UUID, tag string) Intervals {
	for i := range s {
		if s[i].UUID == u && s[i].Tag == tag {
			return s[i].Intervals
		}
	}
	return nil
}

// String is the set in MySQL's notation.
func (s GTIDSet) String() string {
	var b strings.Builder
	for i := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(s[i].UUID.String())
		if s[i].Tag != "" {
			b.WriteByte(':')
			b.WriteString(s[i].Tag)
		}
		for _, iv := range s[i].Intervals {
			if iv.Start == iv.End {
				fmt.Fprintf(&b, ":%d", iv.Start)
			} else {
				fmt.Fprintf(&b, ":%d-%d", iv.Start, iv.End)
			}
		}
	}
	return b.String()
}

const (
	maxGNO        = 1<<63 - 1
	gtidSetTagged = 1
)

// AppendGTIDSet appends the encoded form that previous GTIDs events and
// COM_BINLOG_DUMP_GTID use, the tagged one if any entry has a tag.
func AppendGTIDSet(dst []byte, s GTIDSet) []byte {
	tagged := slices.ContainsFunc(s, func(e GTIDSetEntry) bool { return e.Tag != "" })
	head := uint64(len(s))
	if tagged {
		head = gtidSetTagged<<56 | head<<8 | gtidSetTagged
	}
	dst = binary.LittleEndian.AppendUint64(dst, head)
	for i := range s {
		dst = append(dst, s[i].UUID[:]...)
		if tagged {
			dst = append(dst, byte(len(s[i].Tag)<<1))
			dst = append(dst, s[i].Tag...)
		}
		dst = binary.LittleEndian.AppendUint64(dst, uint64(len(s[i].Intervals)))
		for _, iv := range s[i].Intervals {
			dst = binary.LittleEndian.AppendUint64(dst, iv.Start)
			dst = binary.LittleEndian.AppendUint64(dst, iv.End+1)
		}
	}
	return dst
}

// ParseGTIDSet reads the encoded form, tagged or not. Several entries of one
// UUID and tag are joined.
func ParseGTIDSet(b []byte) (GTIDSet, error) {
	r := reader{b: b}
	head := r.uint64()
	if r.err != nil {
		return nil, fmt.Errorf("GTID set: %w", r.err)
	}
	count, tagged := head, false
	switch format := head >> 56; format {
	case 0:
	case gtidSetTagged:
		count, tagged = head<<8>>16, true
	default:
		return nil, fmt.Errorf("%w: GTID set of format %d", ErrMalformed, format)
	}
	var set GTIDSet
	type key struct {
		uuid UUID
		tag  string
	}
	seen := make(map[key]int)
	for i := uint64(0); i < count; i++ {
		var k key
		copy(k.uuid[:], r.bytes(16))
		if tagged {
			n := r.varlen()
			if n > maxTagLength {
				return nil, fmt.Errorf("%w: tag of %d bytes", ErrMalformed, n)
			}
			k.tag = string(r.bytes(int(n)))
		}
		n := r.uint64()
		if r.err != nil {
			return nil, fmt.Errorf("GTID set: %w", r.err)
		}
		if n > uint64(r.left()/16) {
			return nil, fmt.Errorf("%w: GTID set claims %d intervals", ErrTruncated, n)
		}
		at, ok := seen[k]
		if !ok {
			at = len(set)
			seen[k] = at
			set = append(set, GTIDSetEntry{UUID: k.uuid, Tag: k.tag})
		}
		e := &set[at]
		for ; n > 0; n-- {
			start, end := r.uint64(), r.uint64()
			if start == 0 || end <= start || end > maxGNO {
				return nil, fmt.Errorf("%w: interval %d to %d", ErrMalformed, start, end)
			}
			e.Intervals = append(e.Intervals, Interval{start, end - 1})
		}
	}
	if r.left() != 0 {
		return nil, fmt.Errorf("%w: %d bytes behind a GTID set", ErrMalformed, r.left())
	}
	for i := range set {
		set[i].Intervals = normalise(set[i].Intervals)
	}
	return set, nil
}
