package consensus

import (
	"errors"
	"sync/atomic"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"cohort/consensus/transport"
)

// ErrNoCampaign is returned by Campaign where the log has another leader than the
// one named, or this member's log is not running.
var ErrNoCampaign = errors.New("consensus: no election was begun")

// Campaign holds an election of the log at once, instead of after an election
// timeout, if the leader is still gone, whose process the caller knows to have
// ended. It returns before the election is over.
//
// It is the TimeoutNow of a transfer of leadership (Raft thesis, 3.10), said by
// this member to itself: no more than a clock that runs fast. A caller who is
// wrong costs the group an election and nothing else, because votes and terms
// count as ever. So does a member whose log is behind: nobody votes for it.
func (n *Node) Campaign(gone uint64) error {
	h := n.incoming.handler.Load()
	if h == nil || n.LeaderID() != gone || gone == n.cfg.ReplicaID || n.ctx.Err() != nil {
		return ErrNoCampaign
	}
	x, err := n.raft()
	if err != nil {
		return err
	}
	(*h)(raftpb.MessageBatch{
		DeploymentId: n.incoming.deployment, BinVer: raftio.TransportBinVersion,
		Requests: []raftpb.Message{{Type: raftpb.TimeoutNow, To: x.replica, ShardID: shardID}},
	})
	return nil
}

// incoming is a transport's factory that remembers where dragonboat wants its
// messages.
type incoming struct {
	config.TransportFactory
	deployment uint64
	handler    atomic.Pointer[raftio.MessageHandler]
	transport  atomic.Pointer[transport.Transport]
}

// Create implements config.TransportFactory.
func (i *incoming) Create(c config.NodeHostConfig, h raftio.MessageHandler, ch raftio.ChunkHandler) raftio.ITransport {
	i.handler.Store(&h)
	t := i.TransportFactory.Create(c, h, ch)
	if x, ok := t.(*transport.Transport); ok {
		i.transport.Store(x)
	}
	return t
}
