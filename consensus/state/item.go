package state

import "fmt"

// Kind is the type of an item in the log. Numbers are never reused.
type Kind uint8

// The kinds of items.
const (
	// KindBootstrap founds the group. The first one counts, later ones do
	// nothing.
	KindBootstrap Kind = 1
	// KindJoin begins a new incarnation of a member and fences older ones.
	KindJoin Kind = 2
	// KindState changes the state of a member.
	KindState Kind = 3
	// KindPrimary appoints a primary and begins a new epoch.
	KindPrimary Kind = 4
	// KindTxn is a prepared transaction to be decided.
	KindTxn Kind = 5
	// KindDirect is a statement that its origin has already committed.
	KindDirect Kind = 6
	// KindFragment is a part of the body of a transaction that comes later.
	KindFragment Kind = 7
	// KindAbort decides that prepared transactions of which the log does not
	// know yet do not commit.
	KindAbort Kind = 8
	// KindWatermark reports what a member has applied.
	KindWatermark Kind = 9
	// KindRules raises the version of the decision rules.
	KindRules Kind = 10
	// KindAdmit gives a member a replica of the log.
	KindAdmit Kind = 11
	// KindEvict takes a member's replica out of the log.
	KindEvict Kind = 12
	// KindForce makes a part of the members the group.
	KindForce Kind = 13
	// KindWeight changes a member's weight in elections.
	KindWeight Kind = 14
)

// String returns the kind's name.
func (k Kind) String() string {
	names := [...]string{"", "bootstrap", "join", "state", "primary", "txn", "direct",
		"fragment", "abort", "watermark", "rules", "admit", "evict", "force", "weight"}
	if int(k) < len(names) && k > 0 {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

const (
	entryVersion = 1
	txnVersion   = 1
)

// AppendHeader begins an entry. Items are appended after it.
func AppendHeader(b []byte) []byte { return append(b, entryVersion) }

// appendItem appends an item: kind, length, body.
func appendItem(b []byte, k Kind, body []byte) []byte {
	b = append(b, byte(k))
	return appendBytes(b, body)
}

// lengthSize is that of the padded varint by which beginItem leaves room for a
// length that is known only at the end: up to 2^28-1 bytes.
const lengthSize = 4

func beginItem(b []byte, k Kind) (_ []byte, start int) {
	b = append(b, byte(k), 0, 0, 0, 0)
	return b, len(b)
}

func endItem(b []byte, start int) []byte {
	n := uint64(len(b) - start)
	if n >= 1<<(7*lengthSize) {
		panic("state: item too long") // proposers cut far below this
	}
	for i := range lengthSize {
		c := byte(n>>(7*i)) & 0x7f
		if i < lengthSize-1 {
			c |= 0x80
		}
		b[start-lengthSize+i] = c
	}
	return b
}

// Entry is a list of one or more items, as one raft entry carries them. It
// returns the complete entry.
func Entry(items ...[]byte) []byte {
	b := AppendHeader(nil)
	for _, it := range items {
		b = append(b, it...)
	}
	return b
}
