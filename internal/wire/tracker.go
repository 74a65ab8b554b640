package wire

import (
	"iter"
	"strings"
)

// TrackerType says what one entry of a session state block is about.
type TrackerType byte

// Session tracker types.
const (
	TrackSystemVariables TrackerType = iota
	TrackSchema
	TrackStateChange
	TrackGTIDs
	TrackTxCharacteristics
	TrackTxState
)

// TrackerSet is a set of tracker types, one bit each.
type TrackerSet uint16

// Set returns the set with only t.
func (t TrackerType) Set() TrackerSet { return 1 << (t & 15) }

// Has reports whether t is in s.
func (s TrackerSet) Has(t TrackerType) bool { return t < 16 && s&t.Set() != 0 }

// Trackers is the session state block of an OK packet as it was on the wire:
// a sequence of type byte, length-encoded length, data. Values returned by its
// methods that are strings are copies.
type Trackers []byte

func (t Trackers) valid() bool {
	for len(t) > 0 {
		_, rest, ok := ReadLenencString(t[1:])
		if !ok {
			return false
		}
		t = rest
	}
	return true
}

// All yields each entry's type and data; data shares t's memory.
func (t Trackers) All() iter.Seq2[TrackerType, []byte] {
	return func(yield func(TrackerType, []byte) bool) {
		for len(t) > 0 {
			data, rest, ok := ReadLenencString(t[1:])
			if !ok || !yield(TrackerType(t[0]), data) {
				return
			}
			t = rest
		}
	}
}

// Types returns which types occur.
func (t Trackers) Types() (set TrackerSet) {
	for typ := range t.All() {
		if typ < 16 {
			set |= typ.Set()
		}
	}
	return set
}

func (t Trackers) text(want TrackerType) (s string, ok bool) {
	for typ, data := range t.All() {
		if typ == want {
			if v, _, good := ReadLenencString(data); good {
				s, ok = string(v), true
			}
		}
	}
	return s, ok
}

// GTID returns the GTID set that the statement committed, "" if none is told.
func (t Trackers) GTID() string {
	for typ, data := range t.All() {
		// One byte names the encoding; 0, text, is the only one there is.
		if typ == TrackGTIDs && len(data) > 0 && data[0] == 0 {
			if v, _, ok := ReadLenencString(data[1:]); ok {
				return string(v)
			}
		}
	}
	return ""
}

// Schema returns the new default schema, if it was told.
func (t Trackers) Schema() (string, bool) { return t.text(TrackSchema) }

// TxState returns the eight-letter transaction state, if it was told.
func (t Trackers) TxState() (string, bool) { return t.text(TrackTxState) }

// TxCharacteristics returns the statements that would start the present
// transaction again, if they were told.
func (t Trackers) TxCharacteristics() (string, bool) { return t.text(TrackTxCharacteristics) }

// SysVars yields the name and new value of each tracked system variable.
func (t Trackers) SysVars() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for typ, data := range t.All() {
			if typ != TrackSystemVariables {
				continue
			}
			for len(data) > 0 {
				name, rest, ok := ReadLenencString(data)
				if !ok {
					break
				}
				value, rest, ok := ReadLenencString(rest)
				if !ok {
					break
				}
				if !yield(string(name), string(value)) {
					return
				}
				data = rest
			}
		}
	}
}

// SysVar returns the new value of the named variable (any case), if told.
func (t Trackers) SysVar(name string) (value string, ok bool) {
	for n, v := range t.SysVars() {
		if strings.EqualFold(n, name) {
			value, ok = v, true
		}
	}
	return value, ok
}

// AppendWithout appends the entries whose type is not in drop.
func (t Trackers) AppendWithout(dst []byte, drop TrackerSet) Trackers {
	for typ, data := range t.All() {
		if !drop.Has(typ) {
			dst = AppendLenencString(append(dst, byte(typ)), data)
		}
	}
	return dst
}

// AppendTracker appends one entry whose data is a single string (every type but
// [TrackSystemVariables]).
func AppendTracker(dst Trackers, typ TrackerType, value string) Trackers {
	data := make([]byte, 0, len(value)+10)
	if typ == TrackGTIDs {
		data = append(data, 0)
	}
	data = AppendLenencString(data, value)
	return AppendLenencString(append(dst, byte(typ)), data)
}
