package consensus

import (
	"context"
	"slices"
	"sync"

	"cohort/consensus/state"
)

// peers answers askPeers.
func (n *Node) peers(q *question) answer {
	v := n.View()
	if v.Lineage != q.Lineage {
		return refuse(ErrOtherHistory, "another group of this name")
	}
	a := answer{Peers: make(map[uint64]string), Index: n.Applied()}
	for _, m := range v.Members {
		if m.State == state.StateOnline && m.Info.PeerAddress != "" {
			a.Peers[m.ID] = m.Info.PeerAddress
		}
	}
	return a
}

// PeerAddresses asks the members that v names, and the seeds, where the members'
// channels of those that are ONLINE are now, by member: v may be of long ago. Nobody
// proves anything by the answer, so it says where to look and no more.
func (n *Node) PeerAddresses(ctx context.Context, v *state.View) map[uint64]string {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	asked := slices.Clone(n.cfg.Seeds)
	for _, m := range v.Members {
		asked = append(asked, m.Address)
	}
	for _, a := range n.cfg.InitialMembers {
		asked = append(asked, a)
	}
	slices.Sort(asked)
	asked = slices.DeleteFunc(slices.Compact(asked), func(a string) bool { return a == "" || a == n.cfg.LocalAddress })
	answers := make([]answer, len(asked))
	var wg sync.WaitGroup
	for i, addr := range asked {
		wg.Go(func() {
			a, err := ask(ctx, addr, question{Op: askPeers, Group: n.cfg.GroupName, Member: n.cfg.ReplicaID, Lineage: v.Lineage})
			if err == nil && a.Code == "" {
				answers[i] = a
			}
		})
	}
	wg.Wait()
	newest := slices.MaxFunc(append(answers, answer{}), func(a, b answer) int {
		switch {
		case a.Index < b.Index:
			return -1
		case a.Index > b.Index:
			return 1
		}
		return 0
	})
	delete(newest.Peers, n.cfg.ReplicaID)
	return newest.Peers
}
