package consensus

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/rs/zerolog"

	"cohort/internal/fsync"
	"cohort/internal/uptime"
)

// logDBFactory makes the tan log behind a wrapper that mends three things.
//
// Dragonboat hands over an empty raft state when it did not change. Tan
// remembers that empty one, takes the next full one for a change of term and
// vote, and pays an fsync for a mere new commit index. The wrapper repeats the
// last state instead, and skips updates that say nothing at all.
//
// A new commit index alone need not be written at once (owedFor).
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
	l := newLogDB(f.log, f.live)
	if syncer, err := fsync.New(); err != nil {
		f.log.Info().Err(err).Msg("the log is flushed with fsync(2): a commit takes more CPU time")
	} else {
		l.syncer = syncer
	}
	cfg.Expert.FS = logFS{cfg.Expert.FS, l.syncer}
	db, err := tan.Factory.Create(cfg, cb, dirs, wals)
	if err != nil {
		return nil, errors.Join(err, l.closeSyncer())
	}
	if f.wrap != nil {
		db = f.wrap(db)
	}
	l.ILogDB, f.db = db, l
	return l, nil
}

type logDB struct {
	raftio.ILogDB
	log    zerolog.Logger
	live   *liveness
	syncer *fsync.Syncer // nil: none

	mu      sync.Mutex // one writer at a time
	last    map[raftio.NodeInfo]lastState
	scratch []raftpb.Update
}

// lastState is the last one that dragonboat handed over.
type lastState struct {
	raftpb.State
	owed time.Duration // since when its commit index is not written; 0: it is
}

func newLogDB(log zerolog.Logger, live *liveness) *logDB {
	return &logDB{log: log, live: live, last: make(map[raftio.NodeInfo]lastState)}
}

// owedFor is how long a mere new commit index may wait for entries to be written
// with. The Raft algorithm needs none on disk: what is committed is known again when
// there is a leader. One that is too low makes a log that its group goes on without
// count for less (stepAside), so it is not left out altogether.
const owedFor = 10 * time.Millisecond

// Close implements raftio.ILogDB.
func (l *logDB) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.payOff(), l.ILogDB.Close(), l.closeSyncer())
}

func (l *logDB) closeSyncer() error {
	if l.syncer == nil {
		return nil
	}
	return l.syncer.Close()
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
			u.State = last.State
		}
		if known && u.State.Term == last.Term && u.State.Vote == last.Vote &&
			len(u.EntriesToSave) == 0 && raftpb.IsEmptySnapshot(u.Snapshot) && l.mayOwe(ni, u.State.Commit) {
			continue
		}
		l.scratch = append(l.scratch, u)
	}
	if len(l.scratch) == 0 {
		return nil
	}
	if slices.ContainsFunc(l.scratch, replicates) {
		// The senders' goroutines have the entries by now, which are to be on their way
		// while this disk writes. There may be no other processor (cmd/cohort).
		runtime.Gosched()
	}
	if err := l.ILogDB.SaveRaftState(l.scratch, shard); err != nil {
		return err
	}
	for i := range l.scratch {
		if u := &l.scratch[i]; !raftpb.IsEmptyState(u.State) {
			l.last[raftio.GetNodeInfo(u.ShardID, u.ReplicaID)] = lastState{State: u.State}
		}
		l.scratch[i] = raftpb.Update{} // do not hold on to entries
	}
	return nil
}

// mayOwe reports whether there is nothing to write but a commit index that may wait.
func (l *logDB) mayOwe(ni raftio.NodeInfo, commit uint64) bool {
	last := l.last[ni]
	if last.owed == 0 && commit == last.Commit {
		return true
	}
	now := uptime.Now()
	if last.owed == 0 {
		last.owed = now
	}
	if now-last.owed >= owedFor {
		return false
	}
	last.Commit = commit
	l.last[ni] = last
	return true
}

// payOff writes the commit indexes that are owed.
func (l *logDB) payOff() error {
	for ni, last := range l.last {
		if last.owed == 0 {
			continue
		}
		u := raftpb.Update{ShardID: ni.ShardID, ReplicaID: ni.ReplicaID, State: last.State}
		if err := l.ILogDB.SaveRaftState([]raftpb.Update{u}, ni.ShardID); err != nil {
			return err
		}
		l.last[ni] = lastState{State: last.State}
	}
	return nil
}

// paidOff runs a write that must come after the commit indexes that are owed:
// dragonboat does not start on one before its snapshot's, or before the first entry.
func (l *logDB) paidOff(write func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.payOff()
	if err == nil {
		err = write()
	}
	if err != nil {
		return l.failed(err)
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
	if err := l.payOff(); err != nil {
		return raftio.RaftState{}, l.failed(err)
	}
	rs, err := l.ILogDB.ReadRaftState(shard, replica, lastIndex)
	if err == nil && !raftpb.IsEmptyState(rs.State) {
		l.last[raftio.GetNodeInfo(shard, replica)] = lastState{State: rs.State}
	}
	return rs, err
}

func (l *logDB) SaveSnapshots(updates []raftpb.Update) error {
	return l.paidOff(func() error { return l.ILogDB.SaveSnapshots(updates) })
}

func (l *logDB) RemoveEntriesTo(shard, replica, index uint64) error {
	return l.paidOff(func() error { return l.ILogDB.RemoveEntriesTo(shard, replica, index) })
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
