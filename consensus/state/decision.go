package state

import (
	"fmt"

	"cohort/internal/binlog"
)

// MySQL error numbers of ordered aborts.
const (
	// ErrnoConflict is ER_TRANSACTION_ROLLBACK_DURING_COMMIT.
	ErrnoConflict = 3101
	// ErrnoRequirement is ER_BEFORE_DML_VALIDATION_ERROR's group of checks.
	ErrnoRequirement = 3098
	// ErrnoTooLarge is ER_RUN_HOOK_ERROR, which Group Replication gives to
	// transactions above its size limit.
	ErrnoTooLarge = 3100
)

// MemberState is a member's state in MySQL's sense.
type MemberState uint8

// The states of a member. UNREACHABLE is no state of the group but what one
// member thinks of another.
const (
	StateOffline    MemberState = 1
	StateRecovering MemberState = 2
	StateOnline     MemberState = 3
	StateError      MemberState = 4
)

// String returns MySQL's word.
func (s MemberState) String() string {
	switch s {
	case StateOffline:
		return "OFFLINE"
	case StateRecovering:
		return "RECOVERING"
	case StateOnline:
		return "ONLINE"
	case StateError:
		return "ERROR"
	default:
		return fmt.Sprintf("STATE(%d)", uint8(s))
	}
}

// Reason says why something did not commit.
type Reason uint8

// The reasons of an ordered abort.
const (
	ReasonNone Reason = iota
	// ReasonConflict: a newer write outside the snapshot.
	ReasonConflict
	// ReasonHorizon: the snapshot is too old to be judged.
	ReasonHorizon
	// ReasonInvalid: the proposal contradicts the state.
	ReasonInvalid
	// ReasonFenced: the proposal came from an earlier incarnation.
	ReasonFenced
	// ReasonEpoch: the origin is not the primary, or was in another epoch.
	ReasonEpoch
	// ReasonRefused: the origin's own checks refused it.
	ReasonRefused
	// ReasonForced: an Abort item came first.
	ReasonForced
)

// String returns the reason in a word.
func (r Reason) String() string {
	names := [...]string{"none", "conflict", "horizon", "invalid", "fenced", "epoch", "refused", "forced"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Decision is one thing that the log decided.
type Decision struct {
	// Index is that of the raft entry.
	Index uint64
	Kind  Kind
	// Origin is the replica id of the member concerned: who ran the
	// transaction, joined, changed state, was appointed, reported.
	Origin      uint64
	Incarnation uint64
	Seq         uint64
	XID         string
	LocalGTID   string
	// N, Dep and Checksum are set when Committed.
	N         uint64
	Dep       uint64
	Checksum  uint64
	Committed bool
	// Errno and Reason are set when not Committed, for transactions and direct
	// statements.
	Errno  uint16
	Reason Reason
	// Repeated marks a verdict that was given before and stands. Origin,
	// Incarnation and Seq are still those of whose proposal is answered, for
	// KindTxn and KindDirect: a transaction whose abort was forced before it
	// arrived is Repeated and not Committed the only time its origin hears of it.
	Repeated bool
	// Stable is that of a watermark, State that of a state change, Epoch the
	// current one after a primary was appointed. N is the watermark's Applied.
	Stable uint64
	State  MemberState
	Epoch  uint64
}

// StreamID names a spooled body.
type StreamID struct {
	Member      uint64
	Incarnation uint64
	Stream      uint64
}

// Sink is told what an entry brings about, in order. An error stops the member.
type Sink interface {
	// Spool keeps a part of a body that begins at offset. Data is valid during
	// the call only.
	Spool(id StreamID, offset int64, data []byte) error
	// Append writes transaction n to the group binlog, with the body given or,
	// where stream is not nil, with the one spooled. Body is valid during the
	// call only.
	Append(n, dep uint64, meta binlog.Meta, body []byte, stream *StreamID, bodyLen int64) error
	// DropSpool forgets a spooled body.
	DropSpool(id StreamID) error
	// StartAt tells, once and before any Append, that the group's first
	// transaction will be n+1.
	StartAt(n uint64) error
	// Decided takes a decision.
	Decided(d Decision)
	// Ignored tells of an item that makes no sense. Every member ignores it: a
	// faulty proposer must not stop the group.
	Ignored(index uint64, kind Kind, err error)
}
