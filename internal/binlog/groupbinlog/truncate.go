package groupbinlog

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"cohort/internal/durable"
)

// Truncate cuts the store to pos exactly and durably: what lies behind it, and
// every later file, is removed. It is how a start brings the files back to the
// state that the caller stored; it must come before the first Append (ErrOrder otherwise). The file
// that pos lies in is verified up to there, so that damage below pos is found
// now (ErrCorrupt) and not by a reader later. The zero Position empties the
// store.
func (s *Store) Truncate(pos Position) error {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	if s.appended {
		return fmt.Errorf("%w: truncate after an append", ErrOrder)
	}
	if pos == (Position{}) {
		return s.truncateAll()
	}
	var keep *file
	s.mu.Lock()
	files := s.files
	s.mu.Unlock()
	index := 0
	for i, f := range files {
		if f.num == pos.File {
			keep, index = f, i
		}
	}
	if keep == nil {
		return fmt.Errorf("%w: no sound file %s for the stored position %d", ErrCorrupt, fileName(pos.File), pos.Offset)
	}
	st, err := os.Stat(s.path(pos.File))
	if err != nil {
		return fmt.Errorf("group binlog: %w", err)
	}
	if st.Size() < pos.Offset || pos.Offset < keep.start {
		return fmt.Errorf("%w: %s has %d bytes, stored position is %d", ErrCorrupt, fileName(pos.File), st.Size(), pos.Offset)
	}
	// A copy, because readers may be looking at keep.
	fresh := &file{num: keep.num, start: keep.start, firstN: keep.firstN}
	end, err := s.scan(fresh, pos.Offset)
	if err != nil {
		return fmt.Errorf("%w: below the stored position: %w", ErrCorrupt, err)
	}
	if end != pos {
		return fmt.Errorf("%w: %s ends with transaction %d at %d, stored state says %d", ErrCorrupt, fileName(pos.File), end.LastN, end.Offset, pos.LastN)
	}
	fresh.size, fresh.lastN = end.Offset, end.LastN
	if err := s.cut(pos); err != nil {
		return s.fail(fmt.Errorf("truncate: %w", err))
	}
	s.adopt(append(files[:index:index], fresh), pos)
	s.purgeFile = pos.File
	return nil
}

// cut removes the files behind pos, latest first so that the rest stays
// contiguous if this is interrupted, and shortens the file of pos.
func (s *Store) cut(pos Position) error {
	if err := s.removeFiles(pos.File + 1); err != nil {
		return err
	}
	if s.cur != nil {
		if err := s.cur.Close(); err != nil {
			return err
		}
		s.cur = nil
	}
	h, err := openForAppend(s.path(pos.File), pos.Offset)
	if err != nil {
		return err
	}
	if err := h.Truncate(pos.Offset); err != nil {
		return errors.Join(err, h.Close())
	}
	if err := unix.Fsync(int(h.Fd())); err != nil {
		return errors.Join(err, h.Close())
	}
	s.cur = h
	return durable.SyncDir(s.dir)
}

// removeFiles removes every file from number on, latest first.
func (s *Store) removeFiles(from uint32) error {
	numbers, err := listFiles(s.dir)
	if err != nil {
		return err
	}
	for i := len(numbers) - 1; i >= 0 && numbers[i] >= from; i-- {
		if err := os.Remove(s.path(numbers[i])); err != nil {
			return err
		}
	}
	return nil
}

// adopt makes files and pos what the store holds.
func (s *Store) adopt(files []*file, pos Position) {
	s.torn = nil
	s.wbuf = s.wbuf[:0]
	s.unsynced = nil
	s.dirty, s.dirDirty, s.syncAll, s.appended = false, false, false, false
	s.flushedN = pos.LastN
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = files
	s.lastN = pos.LastN
	s.tail.reset(pos.LastN + 1)
	s.gen++
	s.wakeAll()
}

func (s *Store) truncateAll() error {
	for _, f := range s.unsynced {
		f.Close()
	}
	if s.cur != nil {
		s.cur.Close()
		s.cur = nil
	}
	if err := s.removeFiles(1); err != nil {
		return s.fail(fmt.Errorf("truncate: %w", err))
	}
	if err := durable.SyncDir(s.dir); err != nil {
		return s.fail(err)
	}
	s.adopt(nil, Position{})
	s.purgeFile = 0
	return nil
}

// Reset empties the store and makes afterN+1 the next transaction: for a member
// whose data were provisioned from elsewhere up to afterN. It is durable when
// it returns.
func (s *Store) Reset(afterN uint64) (Position, error) {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if err := s.writable(); err != nil {
		return Position{}, err
	}
	if err := s.truncateAll(); err != nil {
		return Position{}, err
	}
	s.synced, s.synced2 = Position{}, Position{}
	if afterN == 0 {
		return Position{}, nil
	}
	if _, err := s.create(1, afterN+1); err != nil {
		return Position{}, s.fail(fmt.Errorf("reset: %w", err))
	}
	if err := s.syncFiles(true, true, nil, s.cur); err != nil {
		return Position{}, s.fail(err)
	}
	s.dirty, s.dirDirty = false, false
	return s.Position(), nil
}

// pinned says whether a pinned reader needs something up to n; it needs mu.
func (s *Store) pinned(n uint64) bool {
	for _, next := range s.pins {
		if next <= n {
			return true
		}
	}
	return false
}

// Purge removes the oldest files as long as all their transactions are at or
// below uptoN. The file being written stays, and so does every file that the
// caller's stored Position may lie in: when a Sync runs, the caller has stored
// what the Sync before it returned, or less, but not less than the one before
// that returned (see Sync). So does what
// pinned readers need; others that have a purged file open go on. It returns how many files were removed.
func (s *Store) Purge(uptoN uint64) (int, error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if err := s.writable(); err != nil {
		return 0, err
	}
	removed := 0
	for {
		s.mu.Lock()
		if len(s.files) < 2 || s.files[0].lastN > uptoN || s.files[0].num >= s.purgeFile || s.pinned(s.files[0].lastN) {
			s.mu.Unlock()
			break
		}
		victim := s.files[0]
		s.files = s.files[1:]
		s.mu.Unlock()
		// Oldest first: what is left is contiguous whenever this stops.
		if err := os.Remove(s.path(victim.num)); err != nil {
			return removed, fmt.Errorf("group binlog: purge: %w", err)
		}
		removed++
	}
	if removed > 0 {
		return removed, durable.SyncDir(s.dir)
	}
	return 0, nil
}
