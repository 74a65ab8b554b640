package consensus

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"cohort/consensus/transport"
	"cohort/internal/pause"
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
	if n.incoming.handler.Load() == nil || n.LeaderID() != gone || gone == n.cfg.ReplicaID || n.ctx.Err() != nil {
		return ErrNoCampaign
	}
	x, err := n.raft()
	if err != nil {
		return err
	}
	n.deliver(raftpb.Message{Type: raftpb.TimeoutNow, To: x.replica, ShardID: shardID})
	return nil
}

// incoming is a transport's factory that remembers where dragonboat wants its
// messages.
type incoming struct {
	config.TransportFactory
	deployment uint64
	handler    atomic.Pointer[raftio.MessageHandler]
	transport  atomic.Pointer[transport.Transport]
	// called is told of each TimeoutNow that was handed over, which it may repeat.
	called func(raftpb.Message)
}

// Create implements config.TransportFactory.
func (i *incoming) Create(c config.NodeHostConfig, h raftio.MessageHandler, ch raftio.ChunkHandler) raftio.ITransport {
	watched := raftio.MessageHandler(func(b raftpb.MessageBatch) {
		for k := range b.Requests {
			if m := &b.Requests[k]; m.Type == raftpb.TimeoutNow && m.ShardID == shardID {
				defer i.called(*m)
			}
		}
		h(b)
	})
	i.handler.Store(&watched)
	t := i.TransportFactory.Create(c, watched, ch)
	if x, ok := t.(*transport.Transport); ok {
		i.transport.Store(x)
	}
	return t
}

// insist repeats a TimeoutNow until it has had an effect. Dragonboat passes over one
// that finds a committed entry not applied yet, without a word, and the leader, who
// waits for the election, takes no proposals for an election timeout. A repeated one
// is what a network may make of it: it counts in its own term only. After an election
// timeout the leader goes on by itself.
func (n *Node) insist(m raftpb.Message) {
	if n.insisting.Swap(true) {
		return
	}
	n.spawn(func() {
		defer n.insisting.Store(false)
		leader, term, _ := n.leader.get()
		if m.Term != 0 && m.Term != term {
			return
		}
		left := time.Duration(n.cfg.ElectionRTT) * n.cfg.RTT
		for wait := retryFirst; left > 0; wait = min(2*wait, retryLast) {
			if pause.For(n.ctx, wait) != nil {
				return
			}
			left -= wait
			x, err := n.raft()
			if err != nil || x.replica != m.To || leader == x.replica {
				return
			}
			// Another leader, or none: somebody campaigns.
			if l, t, _ := n.leader.get(); l != leader || t != term {
				return
			}
			n.deliver(m)
		}
	})
}

// deliver hands a message to dragonboat as if it had come from outside.
func (n *Node) deliver(m raftpb.Message) {
	if h := n.incoming.handler.Load(); h != nil {
		(*h)(raftpb.MessageBatch{
			DeploymentId: n.incoming.deployment, BinVer: raftio.TransportBinVersion,
			Requests: []raftpb.Message{m},
		})
	}
}
