package consensus

import (
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/rs/zerolog"
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
//
// What cannot be written ends the process: dragonboat panics on the error, tan on
// a failed fsync. Nothing else would do. Part of it may be in the file, so the
// replica can neither go on nor take it back; the next start finds out.
type logDBFactory struct {
	log  zerolog.Logger
	live *liveness
	wrap func(raftio.ILogDB) raftio.ILogDB // nil: none
	db   raftio.ILogDB                     // the one that was made
}

func (*logDBFactory) Name() string { return tan.Factory.Name() }

func (f *logDBFactory) Create(cfg config.NodeHostConfig, cb config.LogDBCallback,
	dirs, wals []string) (raftio.ILogDB, error) {
	db, err := tan.Factory.Create(cfg, cb, dirs, wals)
	if err != nil {
		return nil, err
	}
	if f.wrap != nil {
		db = f.wrap(db)
	}
	f.db = &logDB{ILogDB: db, log: f.log, live: f.live, last: make(map[raftio.NodeInfo]raftpb.State)}
	return f.db, nil
}

type logDB struct {
	raftio.ILogDB
	log  zerolog.Logger
	live *liveness

	mu      sync.Mutex // one writer at a time
	last    map[raftio.NodeInfo]raftpb.State
	scratch []raftpb.Update
}

// SaveRaftState is called by dragonboat's step goroutine, at every tick at least.
func (l *logDB) SaveRaftState(updates []raftpb.Update, shard uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.save(updates, shard)
	if err != nil {
		return l.failed(err)
	}
	l.live.step()
	return nil
}

// failed says why the process will end in a moment.
func (l *logDB) failed(err error) error {
	l.log.Error().Err(err).Msg("the log cannot be written, so this process ends: give its disk room or mend it, then start it again")
	return err
}

func (l *logDB) save(updates []raftpb.Update, shard uint64) error {
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
	if slices.ContainsFunc(l.scratch, replicates) {
		// The senders' goroutines have the entries by now. They are to be on their way
		// while this disk writes: an fsync keeps its processor for long, which may be
		// the only one (cmd/cohort), before the Go runtime takes it away.
		runtime.Gosched()
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

// replicates reports whether an update has entries that go to other members too.
func replicates(u raftpb.Update) bool {
	return len(u.EntriesToSave) > 0 && len(u.Messages) > 0 && u.Messages[0].Type == raftpb.Replicate
}

// readBound is how many bytes of entries dragonboat gets at once. It asks for 64 MB
// to answer each heartbeat of a replica that is behind, and builds the answers to
// all that came while its step goroutine stood still before it sends the first: a
// leader whose disk stalled for seconds took gigabytes. Replicas fetch in turn what
// is left out.
const readBound = 4 << 20

// IterateEntries reads entries for dragonboat. Fewer than it asked for are right
// only when they are larger than maxSize together, so that is what it is told.
func (l *logDB) IterateEntries(ents []raftpb.Entry, size, shard, replica, low, high, maxSize uint64) ([]raftpb.Entry, uint64, error) {
	if maxSize <= readBound || maxSize == math.MaxUint64 {
		return l.ILogDB.IterateEntries(ents, size, shard, replica, low, high, maxSize)
	}
	had := len(ents)
	ents, size, err := l.ILogDB.IterateEntries(ents, size, shard, replica, low, high, readBound)
	if err == nil && size > readBound && uint64(len(ents)-had) < high-low {
		size = max(size, maxSize+1)
	}
	return ents, size, err
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
	if err := l.ILogDB.SaveSnapshots(updates); err != nil {
		return l.failed(err)
	}
	return nil
}

func (l *logDB) RemoveEntriesTo(shard, replica, index uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ILogDB.RemoveEntriesTo(shard, replica, index); err != nil {
		return l.failed(err)
	}
	return nil
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
