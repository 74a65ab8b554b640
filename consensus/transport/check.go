package transport

import (
	"fmt"
	"path"

	"github.com/lni/dragonboat/v4/raftpb"
)

// Dragonboat trusts its transport: it panics on messages that its own code does
// not send. So what arrives is checked against what it does send.

// checkBatch wants messages of one shard from one replica to some replica, of
// the types that travel.
func checkBatch(b *raftpb.MessageBatch, shard, from uint64) error {
	if len(b.Requests) == 0 {
		return fmt.Errorf("%w: empty batch", ErrFrame)
	}
	for i := range b.Requests {
		m := &b.Requests[i]
		if m.ShardID != shard || m.From != from || m.To == 0 {
			return fmt.Errorf("%w: message of shard %d from replica %d to %d on a connection of %d from %d", ErrFrame, m.ShardID, m.From, m.To, shard, from)
		}
		if !travels(m.Type) {
			return fmt.Errorf("%w: message of type %d", ErrFrame, m.Type)
		}
	}
	return nil
}

// travels is false for what a replica only tells itself, and for
// InstallSnapshot, which comes in chunks.
func travels(t raftpb.MessageType) bool {
	switch t {
	case raftpb.NoOP, raftpb.Ping, raftpb.Pong, raftpb.Propose, raftpb.Replicate, raftpb.ReplicateResp,
		raftpb.RequestVote, raftpb.RequestVoteResp, raftpb.RequestPreVote, raftpb.RequestPreVoteResp,
		raftpb.Heartbeat, raftpb.HeartbeatResp, raftpb.ReadIndex, raftpb.ReadIndexResp, raftpb.Quiesce,
		raftpb.SnapshotReceived, raftpb.LeaderTransfer, raftpb.TimeoutNow, raftpb.RateLimit:
		return true
	}
	return false
}

// checkChunk wants a chunk for this replica whose file stays in its folder.
func checkChunk(c *raftpb.Chunk, shard, from, self uint64) error {
	if c.ShardID != shard || c.From != from || c.ReplicaID != self {
		return fmt.Errorf("%w: chunk of shard %d from replica %d to %d", ErrFrame, c.ShardID, c.From, c.ReplicaID)
	}
	switch path.Base(c.Filepath) {
	case ".", "..", "/":
		return fmt.Errorf("%w: chunk of %q", ErrFrame, c.Filepath)
	}
	return nil
}
