package router

import (
	"sync/atomic"

	"cohort/consensus"
	"cohort/consensus/state"
)

// NodeRef is the Log of a node that is still being made: the router observes what
// the node replays meanwhile. Until Set, the log is empty.
type NodeRef struct {
	node atomic.Pointer[consensus.Node]
}

// Set says which node it is.
func (l *NodeRef) Set(n *consensus.Node) { l.node.Store(n) }

// View implements Log.
func (l *NodeRef) View() *state.View {
	if n := l.node.Load(); n != nil {
		return n.View()
	}
	return &state.View{}
}

// Outcome implements Log.
func (l *NodeRef) Outcome(xid string) (state.Outcome, bool) {
	if n := l.node.Load(); n != nil {
		return n.Verdict(xid)
	}
	return state.Outcome{}, false
}

// DirectOutcome implements Log.
func (l *NodeRef) DirectOutcome(gtid string) (state.Outcome, bool) {
	if n := l.node.Load(); n != nil {
		return n.DirectByLocalGTID(gtid)
	}
	return state.Outcome{}, false
}
