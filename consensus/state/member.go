package state

import "github.com/cespare/xxhash/v2"

// Member is what the group knows of a member.
type Member struct {
	ID          uint64
	Incarnation uint64
	State       MemberState
	Info        MemberInfo
	// Applied, Stable and Low are those of its latest watermark.
	Applied, Stable, Low uint64
	// Seq is that of the last proposal accepted of this incarnation.
	Seq uint64
	// Nonce is that of the Join that began the incarnation.
	Nonce uint64
	// Replica is the member's replica of the log, 0 for none: the log was told to
	// go on without it.
	Replica uint64
	// Voter: the replica's vote counts. It does from the member's first Join on,
	// which shows that it runs and follows the log.
	Voter bool
	// Address is where the replica is reached; empty where nobody said.
	Address string
	// OpenEpoch is the last epoch as whose primary this incarnation opened its
	// mysqld for writes, 0 for none. The primary takes sessions only while it is
	// the current one.
	OpenEpoch uint64

	fenced []fencedLife
	stream *stream
	// admitted is the Nonce of the Admit that gave the replica.
	admitted uint64
	// replaced is LastN plus 1 when another member became the primary in its
	// place, until it is ONLINE again; 0: it was not.
	replaced uint64
}

// fencedLife is an earlier incarnation with its last accepted Seq: what it
// proposed up to there was decided then, what comes later is rejected.
type fencedLife struct{ incarnation, seq uint64 }

// maxFenced bounds how many earlier lives are remembered. Entries of a life
// before these, should any still travel, are rejected, which is what they would
// get anyway unless they are repetitions; those are caught by their xid.
const maxFenced = 16

// stream is a body that arrives in fragments.
type stream struct {
	id     uint64
	len    int64
	digest *xxhash.Digest
}

// lives reports whether the incarnation is the member's present one. Who was
// admitted and has not joined yet has none.
func (m *Member) lives(incarnation uint64) bool {
	return m.Incarnation == incarnation && incarnation != 0
}

// streamID names the member's current stream.
func (m *Member) streamID() StreamID { return StreamID{m.ID, m.Incarnation, m.stream.id} }
