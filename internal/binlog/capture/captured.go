package capture

import (
	"fmt"

	"cohort/internal/binlog"
)

// Kind says what Captured is.
type Kind uint8

const (
	// KindPrepared is the XA PREPARE of one of cohort's own xids: nothing is
	// visible yet, the group decides.
	KindPrepared Kind = 1 + iota
	// KindForeignPrepared is the XA PREPARE of an xid that a client chose. It
	// carries the same fields as KindPrepared.
	KindForeignPrepared
	// KindDirect is whatever this mysqld committed by itself under a local
	// GTID: DDL, account statements, unwrapped transactions, XA COMMIT ONE
	// PHASE. It is in the database already; Refuse only tells that the group
	// would not have taken it.
	KindDirect
	// KindXADecision is an XA COMMIT or XA ROLLBACK under a local GTID.
	KindXADecision
)

// String is a short name for logs.
func (k Kind) String() string {
	switch k {
	case KindPrepared:
		return "prepared"
	case KindForeignPrepared:
		return "foreign-prepared"
	case KindDirect:
		return "direct"
	case KindXADecision:
		return "xa-decision"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// MySQL errors that Captured.Refuse carries.
const (
	// RefuseRequirement is ER_BEFORE_DML_VALIDATION_ERROR.
	RefuseRequirement uint16 = 3098
	// RefuseTooLarge is ER_RUN_HOOK_ERROR.
	RefuseTooLarge uint16 = 3100
)

// StartAt is a place in mysqld's binary log: the file's base name and the
// position of the next event in it.
type StartAt struct {
	File string
	Pos  uint64
}

// Before says whether a lies in front of b. Files of one server compare by
// their sequence number, which is the part behind the last dot.
func (a StartAt) Before(b StartAt) bool {
	if a.File != b.File {
		return fileBefore(a.File, b.File)
	}
	return a.Pos < b.Pos
}

// Snapshot says which group transactions precede an event in this binary log:
// 1..Low and the sorted numbers Extra, all of which are above Low+1.
type Snapshot struct {
	Low   uint64
	Extra []uint64
}

// WriteSet is what a transaction touched, as 64-bit hashes without order.
type WriteSet struct {
	// Writes are the rows written: primary and unique keys, before and after.
	Writes []uint64
	// Refs are the keys of parent rows that the written rows reference: two
	// transactions that only reference the same key do not conflict.
	Refs []uint64
	// Tables is one hash for each table touched.
	Tables []uint64
}

// Captured is one thing that happened in this mysqld's binary log. Everything
// in it belongs to the receiver, who has to Close Body.
type Captured struct {
	Kind Kind
	// XID is the gtrid text of one of cohort's xids, otherwise the xid as
	// mysqld writes it (X'…',X'…',n), empty for what is not XA.
	XID string
	// Committed tells XA COMMIT from XA ROLLBACK (KindXADecision only).
	Committed bool
	// LocalGTID is the GTID as an OK packet shows it: uuid:n or uuid:tag:n.
	LocalGTID string
	// File and Pos are where the next event stands: the place to resume at once
	// this one is dealt with.
	File string
	Pos  uint64
	// Meta and Body are what the group binlog needs. Body is nil for
	// KindXADecision and when Refuse is RefuseTooLarge.
	Meta binlog.Meta
	Body *Body
	WriteSet
	// Objects names what a direct statement may have changed: "schema" or
	// "schema\x00table" (row events). Empty means everything. KindDirect only.
	Objects []string
	// Wide: the keys do not say all, so that Tables count as written as a whole.
	Wide bool
	// NoData: a statement that changes no data and no definition, only the state
	// of the server that runs it (FLUSH). Only for KindDirect.
	NoData bool
	// Serial: to be applied alone, after everything before it and before
	// everything after it.
	Serial bool
	// CommitOrder: to be applied after everything before it.
	CommitOrder bool
	Snapshot    Snapshot
	// Refuse is a MySQL error number, 0 if the group can take this.
	Refuse     uint16
	RefuseText string
}
