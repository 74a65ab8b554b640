package consensus

import (
	"sync"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
)

// logDBFactory makes the tan log behind a wrapper that mends two things.
//
// Dragonboat hands over an empty raft state when it did not change. Tan
// remembers that empty one, takes the next full one for a change of term and
// vote, and pays an fsync for a mere new commit index. The wrapper repeats the
// last state instead, and skips updates that say nothing at all.
//
// Tan's SaveSnapshots and RemoveEntriesTo fsync the current file without the
// lock under which SaveRaftState may switch to another one. The wrapper lets
// only one writer in.
type logDBFactory struct {
	db raftio.ILogDB // the one that was made
}

func (*logDBFactory) Name() string { return tan.Factory.Name() }

func (f *logDBFactory) Create(cfg config.NodeHostConfig, cb config.LogDBCallback,
	dirs, wals []string) (raftio.ILogDB, error) {
	db, err := tan.Factory.Create(cfg, cb, dirs, wals)
	if err != nil {
		return nil, err
	}
	f.db = &logDB{ILogDB: db, last: make(map[raftio.NodeInfo]raftpb.State)}
	return f.db, nil
}

type logDB struct {
	raftio.ILogDB

	mu      sync.Mutex // one writer at a time
	last    map[raftio.NodeInfo]raftpb.State
	scratch []raftpb.Update
}

func (l *logDB) SaveRaftState(updates []raftpb.Update, shard uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scratch = l.scratch[:0]
	for _, u := range updates {
		ni := raftio.GetNodeInfo(u.ShardID, u.ReplicaID)
		last, known := l.last[ni]
		if raftpb.IsEmptyState(u.State) && known {
			u.State = last
		}
		if known && u.State == last && len(u.EntriesToSave) == 0 && raftpb.IsEmptySnapshot(u.Snapshot) {
			continue
		}
		l.scratch = append(l.scratch, u)
	}
	if len(l.scratch) == 0 {
		return nil
	}
	if err := l.ILogDB.SaveRaftState(l.scratch, shard); err != nil {
		return err
	}
	for i := range l.scratch {
		if u := &l.scratch[i]; !raftpb.IsEmptyState(u.State) {
			l.last[raftio.GetNodeInfo(u.ShardID, u.ReplicaID)] = u.State
		}
		l.scratch[i] = raftpb.Update{} // do not hold on to entries
	}
	return nil
}

func (l *logDB) ReadRaftState(shard, replica, lastIndex uint64) (raftio.RaftState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rs, err := l.ILogDB.ReadRaftState(shard, replica, lastIndex)
	if err == nil && !raftpb.IsEmptyState(rs.State) {
		l.last[raftio.GetNodeInfo(shard, replica)] = rs.State
	}
	return rs, err
}

func (l *logDB) SaveSnapshots(updates []raftpb.Update) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ILogDB.SaveSnapshots(updates)
}

func (l *logDB) RemoveEntriesTo(shard, replica, index uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ILogDB.RemoveEntriesTo(shard, replica, index)
}

func (l *logDB) RemoveNodeData(shard, replica uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.last, raftio.GetNodeInfo(shard, replica))
	return l.ILogDB.RemoveNodeData(shard, replica)
}

func (l *logDB) ImportSnapshot(snapshot raftpb.Snapshot, replica uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.last)
	return l.ILogDB.ImportSnapshot(snapshot, replica)
}
