package consensus

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/rs/zerolog"

	"cohort/consensus/state"
	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/durable"
)

// machine is dragonboat's view of the group state machine
// (statemachine.IOnDiskStateMachine). Dragonboat calls Open, then Update, Sync,
// PrepareSnapshot and RecoverFromSnapshot one at a time; SaveSnapshot runs
// beside them.
//
// After a failure nothing is applied any more, no proposal is acknowledged and
// nothing is written: going on could only make this member differ.
type machine struct {
	cfg   Config
	log   zerolog.Logger
	fatal func(error)
	// applied tells the node what an Update did: bytes taken, whether this
	// member's proposer has news. Called from the apply goroutine.
	applied func(index uint64, bytes int)
	live    *liveness

	// mu guards the fields up to view. Update holds it while it applies.
	mu     sync.Mutex
	st     *state.State
	spool  *spool
	batch  []state.Decision
	reader bytes.Reader
	stored uint64
	// fresh: the replica has an empty log, and dragonboat wants a state machine
	// that knows nothing. What it brings again is passed over.
	fresh bool

	view   atomic.Pointer[state.View]
	lastN  atomic.Uint64
	index  atomic.Uint64
	failed atomic.Pointer[error]

	// ckptMu orders checkpoints. It is taken before mu.
	ckptMu sync.Mutex
	// fetching: the group binlog runs ahead of the state, so none is stored. Needs
	// ckptMu.
	fetching bool
}

var _ sm.IOnDiskStateMachine = (*machine)(nil)

// load reads the checkpoint, cuts the group binlog to it and opens the spool.
func (m *machine) load() error {
	st, pos, err := loadCheckpoint(m.cfg.Dir)
	if err != nil {
		return err
	}
	if err := m.cfg.Store.Truncate(pos); err != nil {
		return fmt.Errorf("group binlog: %w", err)
	}
	sp, err := openSpool(filepath.Join(m.cfg.Dir, "spool"), st.Streams())
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.st, m.spool, m.stored = st, sp, st.Index()
	m.publish()
	return nil
}

// publish makes the state visible to readers. Needs mu.
func (m *machine) publish() {
	if m.st.TakeViewChange() || m.view.Load() == nil {
		m.view.Store(m.st.View())
	}
	m.lastN.Store(m.st.LastN())
	m.index.Store(m.st.Index())
}

// Open returns the index of the last entry that is durable here.
func (m *machine) Open(<-chan struct{}) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fresh {
		return 0, nil
	}
	return m.st.Index(), nil
}

// Update applies entries. Results tell the proposer what state.Apply said, 0
// for nothing accepted.
func (m *machine) Update(entries []sm.Entry) ([]sm.Entry, error) {
	m.live.applies.Add(1)
	defer m.live.applies.Add(1)
	m.mu.Lock()
	m.batch = nil
	size := 0
	for i := range entries {
		if m.failed.Load() != nil {
			break
		}
		size += len(entries[i].Cmd)
		if entries[i].Index <= m.st.Index() {
			continue // applied by an earlier replica of this member
		}
		res, err := m.st.Apply(entries[i].Index, entries[i].Cmd, (*effects)(m))
		if err != nil {
			m.fail(err)
			break
		}
		entries[i].Result = sm.Result{Value: res}
	}
	batch := m.batch
	m.batch = nil
	if m.failed.Load() == nil {
		m.publish()
	} else {
		batch = nil // some of it may not be in the group binlog
	}
	m.mu.Unlock()
	if len(entries) > 0 {
		m.applied(entries[len(entries)-1].Index, size)
	}
	if len(batch) > 0 && m.cfg.Observer != nil {
		m.cfg.Observer.Ordered(batch)
	}
	return entries, nil
}

// fail stops the machine for good.
func (m *machine) fail(err error) {
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	if m.failed.CompareAndSwap(nil, &err) {
		m.log.Error().Err(err).Msg("the group state machine has stopped; the member must be restarted")
		m.fatal(err)
	}
}

// err returns what stopped the machine, if anything.
func (m *machine) err() error {
	if e := m.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// Lookup is not used: readers have the view.
func (m *machine) Lookup(any) (any, error) { return m.lastN.Load(), nil }

// Sync makes everything applied durable. Dragonboat compacts the log after it.
func (m *machine) Sync() error { return m.checkpoint() }

// checkpoint makes what is applied now durable: first the rows, then the state
// that refers to them. Entries go on being applied meanwhile.
func (m *machine) checkpoint() error {
	m.ckptMu.Lock()
	defer m.ckptMu.Unlock()
	m.mu.Lock()
	if err := m.err(); err != nil {
		m.mu.Unlock()
		return err
	}
	if m.st.Index() == m.stored || m.fetching {
		m.mu.Unlock()
		return nil
	}
	st, pos := m.st.Clone(), m.cfg.Store.Position()
	live, dropped := m.spool.live(), m.spool.takeDropped()
	m.mu.Unlock()

	err := func() error {
		// Covers at least pos.
		if _, err := m.cfg.Store.Sync(); err != nil {
			return fmt.Errorf("group binlog: %w", err)
		}
		for _, f := range live {
			// A file whose stream ended meanwhile is still open: it is closed by
			// the next checkpoint.
			if err := f.Sync(); err != nil {
				return fmt.Errorf("spool: %w", err)
			}
		}
		if len(live) > 0 {
			if err := durable.SyncDir(m.spool.dir); err != nil {
				return err
			}
		}
		return storeCheckpoint(m.cfg.Dir, encodeCheckpoint(st, pos))
	}()
	if err != nil {
		m.fail(err)
		return err
	}
	m.mu.Lock()
	m.stored = st.Index()
	m.mu.Unlock()
	if err := removeFiles(dropped); err != nil {
		m.log.Warn().Err(err).Msg("spooled fragments were not removed")
	}
	return nil
}

// forget begins from nothing: what was applied is another history's, or may be.
func (m *machine) forget() error {
	m.ckptMu.Lock()
	defer m.ckptMu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	// The state first: with it a start throws away what is left of the rows.
	if err := storeCheckpoint(m.cfg.Dir, encodeCheckpoint(state.New(), groupbinlog.Position{})); err != nil {
		return err
	}
	if _, err := m.cfg.Store.Reset(0); err != nil {
		return fmt.Errorf("group binlog: %w", err)
	}
	m.spool.close()
	sp, err := openSpool(m.spool.dir, nil)
	if err != nil {
		return err
	}
	m.spool, m.st, m.stored = sp, state.New(), 0
	m.view.Store(m.st.View())
	m.publish()
	return nil
}

// Close is called by dragonboat when no other call of this replica can come. The
// machine stays as it is for the next one, see close.
func (m *machine) Close() error { return nil }

// close ends the machine for good.
func (m *machine) close() {
	m.ckptMu.Lock()
	defer m.ckptMu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spool.close()
}

// effects does what the state machine asks for. It runs with the machine's lock
// held.
type effects machine

func (e *effects) Spool(id state.StreamID, offset int64, data []byte) error {
	return e.spool.write(id, offset, data)
}

func (e *effects) DropSpool(id state.StreamID) error {
	e.spool.drop(id)
	return nil
}

func (e *effects) Append(n, dep uint64, meta binlog.Meta, body []byte, stream *state.StreamID, size int64) error {
	if stream != nil {
		r, err := e.spool.reader(*stream, size)
		if err != nil {
			return err
		}
		return e.append(n, dep, meta, r, size)
	}
	e.reader.Reset(body)
	defer e.reader.Reset(nil)
	return e.append(n, dep, meta, &e.reader, size)
}

func (e *effects) append(n, dep uint64, meta binlog.Meta, r io.Reader, size int64) error {
	if err := e.cfg.Store.Append(n, dep, meta, r, size); err != nil {
		return fmt.Errorf("group binlog: %w", err)
	}
	return nil
}

func (e *effects) StartAt(n uint64) error {
	if _, err := e.cfg.Store.Reset(n); err != nil {
		return fmt.Errorf("group binlog: %w", err)
	}
	return nil
}

func (e *effects) Ignored(index uint64, kind state.Kind, err error) {
	e.log.Error().Err(err).Uint64("index", index).Stringer("kind", kind).Msg("the log holds an item that makes no sense; all members ignore it")
}

func (e *effects) Decided(d state.Decision) { e.batch = append(e.batch, d) }

// outcome looks up a verdict.
func (m *machine) outcome(key string, direct bool) (state.Outcome, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if direct {
		return m.st.DirectOutcome(key)
	}
	return m.st.Outcome(key)
}

func (m *machine) lastSeq(member, incarnation uint64) (uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.st.LastSeq(member, incarnation)
}

func (m *machine) checksumAt(n uint64) (uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.st.ChecksumAt(n)
}

// encoded returns the encoded state, for comparisons.
func (m *machine) encoded() []byte {
	m.mu.Lock()
	st := m.st.Clone()
	m.mu.Unlock()
	return st.Encode(nil)
}

// openForRead opens a second handle on a file that may be removed meanwhile.
func openForRead(f *os.File) (*os.File, error) {
	r, err := os.Open(f.Name())
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return r, nil
}
