package groupbinlog

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"cohort/internal/binlog"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrCorrupt means that the files do not hold what they must: data that were
	// durable are gone or damaged. The member cannot go on from these files.
	ErrCorrupt = errors.New("group binlog is corrupt")
	// ErrTornTail means that the last file ends in an incomplete transaction and
	// Truncate has not been called yet.
	ErrTornTail = errors.New("group binlog has an incomplete tail")
	// ErrFailed means that an earlier append or sync failed; the store writes
	// nothing any more.
	ErrFailed = errors.New("group binlog failed earlier")
	// ErrOrder means that an append is not the next in order.
	ErrOrder = errors.New("group binlog append out of order")
	// ErrPurged means that a reader wants transactions that are no longer there.
	ErrPurged = errors.New("group binlog was purged")
	// ErrReset means that the store was truncated or emptied under a reader.
	ErrReset = errors.New("group binlog was reset")
	// ErrWrongGroup means that the directory belongs to another group.
	ErrWrongGroup = errors.New("group binlog belongs to another group")
	// ErrInUse means that another process has the directory open.
	ErrInUse = errors.New("group binlog directory is in use")
	// ErrClosed means that the store or reader was closed.
	ErrClosed = errors.New("group binlog is closed")
)

// Defaults and bounds of Options.
const (
	DefaultMaxFileSize = int64(1) << 28
	DefaultTailBytes   = int64(8) << 20
	// InlineLimit is the size in bytes up to which a transaction is held in
	// memory as a whole; larger ones are streamed to and from the files.
	InlineLimit = int64(1) << 20

	writeBufferSize = 256 << 10
	maxTailEntries  = 1 << 15
)

// Options configure a Store.
type Options struct {
	// GroupUUID is the UUID part of every GTID. Required.
	GroupUUID string
	// ServerVersion is the text of @@version that the files' format descriptions
	// show; default "9.7.0". It must not lie above what the member's mysqld
	// would accept from a source.
	ServerVersion string
	// MaxFileSize is the size in bytes from which on a new file is begun before
	// the next transaction. Default DefaultMaxFileSize. Files get larger than
	// this by at most one transaction.
	MaxFileSize int64
	// TailBytes bounds the memory for recent transactions that all readers
	// share. Default DefaultTailBytes.
	TailBytes int64
	Logger    zerolog.Logger
}

// Position is the end of a whole transaction in the files. The zero value is
// the empty store.
type Position struct {
	// File is the number in the file's name.
	File uint32
	// Offset is in bytes.
	Offset int64
	// LastN is the number of the last transaction before the position.
	LastN uint64
}

// Store is an open group binlog. Append, Sync, Truncate, Reset and Purge may be
// called from any goroutine and exclude each other as needed; appends must come
// in order. Readers run beside all of them.
type Store struct {
	dir   string
	opt   Options
	group binlog.UUID
	log   zerolog.Logger
	lock  *os.File

	// wmu serialises writers. It guards the fields up to mu.
	wmu       sync.Mutex
	cur       *os.File   // file being written, nil while the store is empty
	wbuf      []byte     // rendered, not yet written to cur
	unsynced  []*os.File // earlier files that still need an fdatasync
	dirDirty  bool       // the directory needs an fsync
	dirty     bool       // something was written since the last Sync
	torn      error      // why Append refuses before Truncate
	flushedN  uint64     // last N whose bytes were written to a file
	appended  bool       // since Open, Truncate or Reset
	syncAll   bool       // files of an earlier process may not be durable
	synced    Position   // last Position that Sync returned
	synced2   Position   // the one before
	purgeFile uint32     // files from this number on must stay; see Purge

	// syncMu orders Syncs, whose fdatasync runs outside wmu.
	syncMu sync.Mutex

	// mu guards what readers see.
	mu      sync.Mutex
	files   []*file // ascending; the last one is being written
	lastN   uint64
	tail    tail
	failed  error
	closed  bool
	limit   uint64 // readers see nothing beyond it, see Limit
	pins    map[*Reader]uint64
	gen     uint64 // grows with every Truncate and Reset
	waiting int
	wake    chan struct{} // closed when something changes while waiting > 0
}

// Open opens the store in dir, creating the directory if need be. It reads the
// header of every file and verifies the last file as a whole. A torn tail is
// noted, not repaired: see Truncate.
func Open(dir string, opt Options) (*Store, error) {
	group, err := binlog.ParseUUID(opt.GroupUUID)
	if err != nil {
		return nil, fmt.Errorf("group binlog: group name: %w", err)
	}
	if opt.ServerVersion == "" {
		opt.ServerVersion = "9.7.0"
	}
	if opt.MaxFileSize <= 0 {
		opt.MaxFileSize = DefaultMaxFileSize
	}
	if opt.TailBytes <= 0 {
		opt.TailBytes = DefaultTailBytes
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("group binlog: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, opt: opt, group: group, log: opt.Logger, lock: lock, wake: make(chan struct{}),
		limit: NoLimit, pins: make(map[*Reader]uint64)}
	if err := s.load(); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("group binlog: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s: %w", ErrInUse, dir, err)
	}
	return f, nil
}

// load reads the directory into s.files, s.lastN and s.torn.
func (s *Store) load() error {
	numbers, err := listFiles(s.dir)
	if err != nil {
		return err
	}
	for i, num := range numbers {
		if i > 0 && num != numbers[i-1]+1 {
			return fmt.Errorf("%w: %s is missing", ErrCorrupt, fileName(numbers[i-1]+1))
		}
	}
	for _, num := range numbers {
		f, err := s.readHeader(num)
		if errors.Is(err, ErrWrongGroup) {
			return err
		}
		if err != nil {
			// Only files behind the caller's Position may be unreadable;
			// Truncate finds out whether that is so.
			s.torn = err
			break
		}
		s.files = append(s.files, f)
	}
	if len(s.files) == 0 {
		return nil
	}
	last := s.files[len(s.files)-1]
	end, err := s.scan(last, -1)
	if errors.Is(err, ErrWrongGroup) {
		return err
	}
	if err != nil {
		s.torn = err
		s.log.Info().Str("file", fileName(last.num)).Int64("offset", end.Offset).AnErr("reason", err).
			Msg("group binlog ends in an incomplete transaction, to be cut off")
	}
	s.lastN, s.flushedN = end.LastN, end.LastN
	last.size = end.Offset
	for i, f := range s.files[:len(s.files)-1] {
		f.lastN = s.files[i+1].firstN - 1
		if f.lastN+1 < f.firstN {
			return fmt.Errorf("%w: %s begins before %s", ErrCorrupt, fileName(f.num+1), fileName(f.num))
		}
	}
	last.lastN = end.LastN
	s.tail.reset(s.lastN + 1)
	s.purgeFile = s.files[0].num // nothing is known to be stored yet
	if s.torn != nil {
		return nil
	}
	s.cur, err = openForAppend(s.path(last.num), end.Offset)
	if err != nil {
		return err
	}
	// The process that wrote this may have died before its bytes were durable.
	s.dirty, s.dirDirty, s.syncAll = true, true, true
	return nil
}

func openForAppend(path string, end int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("group binlog: %w", err)
	}
	if _, err := f.Seek(end, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("group binlog: %w", err)
	}
	return f, nil
}

// LastN is the number of the last transaction, 0 if there is none.
func (s *Store) LastN() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastN
}

// NoLimit is the limit of a store that shows readers everything.
const NoLimit = math.MaxUint64

// Limit hides what lies beyond n from readers until another Limit: what is
// appended meanwhile is not known to be the group's yet. It is not stored, since
// a start removes such transactions anyway.
func (s *Store) Limit(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = n
	s.wakeAll()
}

// shown is the number of the last transaction that readers may see; it needs mu.
func (s *Store) shown() uint64 { return min(s.lastN, s.limit) }

// Range returns the numbers of the first transaction that the files hold, or would
// hold, and of the last one that readers may see.
func (s *Store) Range() (first, last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) == 0 {
		return 1, 0
	}
	return s.files[0].firstN, s.shown()
}

// FirstN is the number of the first transaction that the files hold, or would
// hold if there were one.
func (s *Store) FirstN() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) == 0 {
		return 1
	}
	return s.files[0].firstN
}

// Position is the end of what was appended. It is not durable: see Sync.
func (s *Store) Position() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position()
}

// position needs mu.
func (s *Store) position() Position {
	if len(s.files) == 0 {
		return Position{}
	}
	last := s.files[len(s.files)-1]
	return Position{File: last.num, Offset: last.size, LastN: s.lastN}
}

// FileInfo describes one file.
type FileInfo struct {
	Path          string
	Size          int64
	FirstN, LastN uint64 // LastN < FirstN in a file without transactions
}

// Files lists the files, oldest first.
func (s *Store) Files() []FileInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]FileInfo, 0, len(s.files))
	for _, f := range s.files {
		out = append(out, FileInfo{Path: s.path(f.num), Size: f.size, FirstN: f.firstN, LastN: f.lastN})
	}
	return out
}

// Err is the failure that stopped writing, nil while the store is sound.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Close writes what is buffered (without an fsync), ends all waiting readers
// with ErrClosed and releases the directory.
func (s *Store) Close() error {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	failed := s.failed
	s.wakeAll()
	s.mu.Unlock()
	var err error
	if failed == nil {
		err = s.flush()
	}
	for _, f := range s.unsynced {
		err = errors.Join(err, f.Close())
	}
	if s.cur != nil {
		err = errors.Join(err, s.cur.Close())
	}
	return errors.Join(err, s.lock.Close())
}

// wakeAll needs mu.
func (s *Store) wakeAll() {
	if s.waiting > 0 {
		close(s.wake)
		s.wake = make(chan struct{})
		s.waiting = 0
	}
}

// fail makes err the reason for refusing every further write and returns it.
func (s *Store) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
		s.log.Error().Err(err).Msg("group binlog cannot be written any more")
	}
	return err
}

// writable reports why nothing may be written, nil if it may.
func (s *Store) writable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.failed != nil:
		return fmt.Errorf("%w: %w", ErrFailed, s.failed)
	}
	return nil
}
