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

// others are the addresses of who may be a member, by v, the seeds and the initial
// members, but not this one's.
func (n *Node) others(v *state.View) []string {
	all := slices.Clone(n.cfg.Seeds)
	for _, m := range v.Members {
		all = append(all, m.Address)
	}
	for _, a := range n.cfg.InitialMembers {
		all = append(all, a)
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(a string) bool { return a == "" || a == n.cfg.LocalAddress })
}

// PeerAddresses asks the members that v names, and the seeds, where the members'
// channels of those that are ONLINE are now, by member: v may be of long ago. Nobody
// proves anything by the answer, so it says where to look and no more.
func (n *Node) PeerAddresses(ctx context.Context, v *state.View) map[uint64]string {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	asked := n.others(v)
	answers := make([]answer, len(asked))
	var wg sync.WaitGroup
	for i, addr := range asked {
		wg.Go(func() {
			a, err := n.ask(ctx, addr, question{Op: askPeers, Lineage: v.Lineage})
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

// failed answers askFailed. Whoever asks proves nothing, so it only says of a life
// that is OFFLINE why: a later one, and one that is in the group, is not touched.
func (n *Node) failed(ctx context.Context, v *state.View, q *question) answer {
	m, ok := v.Member(q.Member)
	switch {
	case !ok || q.Replica == 0 || m.Replica != q.Replica:
		return refuse(errAsked, "that member has no such place in the group")
	case m.State == state.StateError:
		return answer{}
	case m.State != state.StateOffline:
		return refuse(errAsked, "the group takes that member for alive")
	}
	if err := n.SetMemberState(ctx, m.ID, m.Incarnation, state.StateError); err != nil {
		return refuse(errAsked, "%v", err)
	}
	return answer{}
}

// tellFailed has another member say that this one, which is OFFLINE, is in ERROR.
func (n *Node) tellFailed(ctx context.Context) bool {
	h := n.host.Load()
	if h == nil {
		return false
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := question{Op: askFailed, Replica: h.replica, Generation: h.generation}
	asked := n.others(n.View())
	said := make(chan bool, len(asked))
	for _, addr := range asked {
		go func() { // ends with ctx, or its question
			a, err := n.ask(ctx, addr, q)
			said <- err == nil && a.Code == ""
		}()
	}
	for range asked {
		if <-said {
			return true
		}
	}
	return false
}
