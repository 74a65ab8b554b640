// Package consensus is the ordered log: what one member proposes, every member
// decides alike (package consensus/state) and keeps in its group binlog.
//
// It owns the raft node (dragonboat), the state machine's durability, the
// proposer with its batching and fragments, linearizable reads, and the place
// of raft leadership. It must never know SQL, and must never let two members
// come to different states: what it cannot read or write stops the member.
package consensus
