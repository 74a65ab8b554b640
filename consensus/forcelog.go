package consensus

import (
	"errors"
	"fmt"
	"slices"

	"github.com/lni/dragonboat/v4/raftpb"

	"cohort/consensus/state"
)

// What forcing a membership reads from and writes to logs whose replica does not
// run.

// logEnd is where a log ends and what it knows to be committed.
type logEnd struct {
	Term     uint64 `json:"term"` // of the hard state
	Last     uint64 `json:"last"`
	LastTerm uint64 `json:"last_term"`
	Commit   uint64 `json:"commit"`
}

var errNoEntry = errors.New("consensus: the log does not hold this entry")

// end returns where the log ends.
func (c *closedLog) end() (logEnd, error) {
	ss, err := c.db.GetSnapshot(shardID, c.id.Replica)
	if err != nil {
		return logEnd{}, err
	}
	rs, err := c.db.ReadRaftState(shardID, c.id.Replica, ss.Index)
	if err != nil {
		return logEnd{}, fmt.Errorf("read the log: %w", err)
	}
	e := logEnd{Term: rs.State.Term, Last: ss.Index, LastTerm: ss.Term, Commit: max(rs.State.Commit, ss.Index)}
	if rs.EntryCount > 0 {
		e.Last = rs.FirstIndex + rs.EntryCount - 1
		if e.LastTerm, err = c.term(e.Last); err != nil {
			return logEnd{}, err
		}
	}
	return e, nil
}

// term returns that of the entry at index.
func (c *closedLog) term(index uint64) (uint64, error) {
	ss, err := c.db.GetSnapshot(shardID, c.id.Replica)
	if err != nil {
		return 0, err
	}
	if index == ss.Index {
		return ss.Term, nil
	}
	es, err := c.read(index, index, 1)
	if err != nil {
		return 0, err
	}
	return es[0].Term, nil
}

// read returns entries from one index on, up to another or until they take size
// bytes; at least one.
func (c *closedLog) read(from, upto, size uint64) ([]raftpb.Entry, error) {
	es, _, err := c.db.IterateEntries(nil, 0, shardID, c.id.Replica, from, upto+1, size)
	if err != nil {
		return nil, err
	}
	if len(es) == 0 || es[0].Index != from {
		return nil, fmt.Errorf("%w: %d", errNoEntry, from)
	}
	return es, nil
}

// append writes entries where they belong, as a follower would: what is there and
// differs goes, but never what is committed. prevTerm is that of the entry before.
func (c *closedLog) append(es []raftpb.Entry, prevTerm, term uint64) error {
	e, err := c.end()
	if err != nil {
		return err
	}
	first := es[0].Index
	for i, x := range es {
		if x.Index != first+uint64(i) || x.Term == 0 || x.Term > term {
			return fmt.Errorf("%w: entries out of order", ErrCorrupt)
		}
	}
	switch {
	case first <= e.Commit || first > e.Last+1:
		return fmt.Errorf("%w: entries from %d on do not follow %d, committed up to %d", ErrCorrupt, first, e.Last, e.Commit)
	case term < e.Term:
		return fmt.Errorf("%w: the log is of term %d already, not %d", ErrCorrupt, e.Term, term)
	}
	if t, err := c.term(first - 1); err != nil || t != prevTerm {
		return fmt.Errorf("%w: the entry before %d is of term %d, not %d: %w", ErrCorrupt, first, t, prevTerm, err)
	}
	return c.save(raftpb.Update{EntriesToSave: es, State: raftpb.State{Term: term, Commit: e.Commit}})
}

func (c *closedLog) save(u raftpb.Update) error {
	u.ShardID, u.ReplicaID = shardID, c.id.Replica
	if err := c.db.SaveRaftState([]raftpb.Update{u}, 1); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	return nil
}

// commitForced commits what the log holds. The vote makes tan sync it: a commit
// index alone could be forgotten, and a log with several changes of its members
// that are not committed must never run. It is for the member listed first, the
// same on all, in a term that nobody is a candidate in.
func commitForced(c *closedLog, f *fence) error {
	e, err := c.end()
	if err != nil {
		return err
	}
	if e.Last != f.Last || e.LastTerm != f.Term || e.Term != f.Term {
		return fmt.Errorf("%w: the log ends with %d of term %d, not with %d of term %d", ErrCorrupt, e.Last, e.LastTerm, f.Last, f.Term)
	}
	return c.save(raftpb.Update{State: raftpb.State{Term: f.Term, Vote: f.Members[0].Replica, Commit: f.Last}})
}

// payload returns what the state machine is given of an entry, nothing for one that
// is dragonboat's own. It is encoded with a header of one byte, 0 as long as
// nothing is compressed.
func payload(e *raftpb.Entry) ([]byte, error) {
	switch {
	case e.Type == raftpb.ApplicationEntry:
		return e.Cmd, nil
	case e.Type == raftpb.EncodedEntry && len(e.Cmd) > 0 && e.Cmd[0] == 0:
		return e.Cmd[1:], nil
	case e.Type == raftpb.EncodedEntry:
		return nil, fmt.Errorf("%w: entry %d is encoded in a way that is not known", ErrCorrupt, e.Index)
	}
	return nil, nil
}

// ending are the entries with which the forced membership begins, after the last
// one of the log: the others' replicas removed, then what the state machine is
// told. They are of a term of their own, so no other log has entries like them.
func ending(after, term uint64, remove []uint64, item state.Force) ([]raftpb.Entry, error) {
	var es []raftpb.Entry
	for _, id := range remove {
		// Initialize: it is not the answer to some state of the members.
		cc := raftpb.ConfigChange{Type: raftpb.RemoveNode, ReplicaID: id, Initialize: true}
		cmd, err := cc.Marshal()
		if err != nil {
			return nil, err
		}
		after++
		es = append(es, raftpb.Entry{Type: raftpb.ConfigChangeEntry, Term: term, Index: after, Cmd: cmd})
	}
	// As dragonboat writes a proposal without a session.
	return append(es, raftpb.Entry{Type: raftpb.ApplicationEntry, Term: term, Index: after + 1, ClientID: nonZero(), Key: nonZero(),
		Cmd: state.Entry(item.AppendItem(nil))}), nil
}

// changes looks through entries for changes of the log's members: which replicas
// they name, and which they remove.
func changes(es []raftpb.Entry) (named, removed []uint64, err error) {
	for i := range es {
		if es[i].Type != raftpb.ConfigChangeEntry {
			continue
		}
		var cc raftpb.ConfigChange
		if err := cc.Unmarshal(es[i].Cmd); err != nil {
			return nil, nil, fmt.Errorf("%w: entry %d: %w", ErrCorrupt, es[i].Index, err)
		}
		if cc.ReplicaID == 0 {
			continue
		}
		named = append(named, cc.ReplicaID)
		if cc.Type == raftpb.RemoveNode {
			removed = append(removed, cc.ReplicaID)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(named))), removed, nil
}
