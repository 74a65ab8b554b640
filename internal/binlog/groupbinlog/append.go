package groupbinlog

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"cohort/internal/binlog"
	"cohort/internal/durable"
)

// Append adds transaction n, which must be LastN+1, whose body of exactly
// bodyLen bytes is read from body. dep is the highest number that it has to
// wait for when applied in parallel, 0 for none. Readers see it as soon as
// Append returns; it is durable after the next Sync.
//
// The body is verified (framing and checksums) as it passes. An error other
// than ErrOrder, ErrTornTail or an invalid meta stops the store for good, since
// part of the transaction may have been written: refusing is what keeps two
// members from holding different bytes under one GTID. Whoever proposes a
// transaction must therefore have checked its body (binlog.CheckBody) before it
// is ordered.
func (s *Store) Append(n, dep uint64, meta binlog.Meta, body io.Reader, bodyLen int64) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	if s.torn != nil {
		return fmt.Errorf("%w: %w", ErrTornTail, s.torn)
	}
	s.mu.Lock()
	last := s.lastN
	s.mu.Unlock()
	if n != last+1 || dep >= n {
		return fmt.Errorf("%w: transaction %d depending on %d after %d", ErrOrder, n, dep, last)
	}
	if err := meta.Validate(); err != nil {
		return fmt.Errorf("transaction %d: %w", n, err)
	}
	if bodyLen < binlog.MinEventSize || bodyLen > maxTransactionSize/2 {
		return fmt.Errorf("transaction %d: %w: body of %d bytes", n, binlog.ErrMalformed, bodyLen)
	}
	if err := s.append(n, dep, meta, body, bodyLen); err != nil {
		return s.fail(fmt.Errorf("append transaction %d: %w", n, err))
	}
	return nil
}

func (s *Store) append(n, dep uint64, meta binlog.Meta, body io.Reader, bodyLen int64) error {
	f, err := s.fileFor(n)
	if err != nil {
		return err
	}
	var head [256]byte
	t := binlog.Transaction{Group: s.group, N: n}
	t.LastCommitted, t.SequenceNumber = f.clock(n, dep)
	gtid, size := binlog.AppendTransactionGTID(head[:0], t, meta, bodyLen)
	entry := tailEntry{dep: f.dep(t.LastCommitted), meta: meta}
	if size <= InlineLimit {
		if entry.raw, err = render(gtid, size, n, meta, body, bodyLen); err != nil {
			return err
		}
		s.wbuf = append(s.wbuf, entry.raw...)
		if len(s.wbuf) >= writeBufferSize {
			if err := s.flush(); err != nil {
				return err
			}
			s.flushedN = n
		}
	} else {
		if err := s.stream(gtid, n, meta, body, bodyLen); err != nil {
			return err
		}
		s.flushedN = n
	}
	s.dirty, s.appended = true, true
	return s.publish(f, n, size, entry)
}

// render makes the whole transaction in memory.
func render(gtid []byte, size int64, n uint64, meta binlog.Meta, body io.Reader, bodyLen int64) ([]byte, error) {
	raw := make([]byte, len(gtid), size)
	copy(raw, gtid)
	raw = raw[:len(gtid)+int(bodyLen)]
	events := raw[len(gtid):]
	if _, err := io.ReadFull(body, events); err != nil {
		return nil, fmt.Errorf("read body: %w", noEOF(err))
	}
	if err := binlog.CheckBody(events); err != nil {
		return nil, err
	}
	if meta.Kind == binlog.KindTransaction {
		raw = binlog.AppendXID(raw, meta.Timestamp, n)
	}
	return raw, nil
}

// stream writes a large transaction past the buffer, in one pass.
func (s *Store) stream(gtid []byte, n uint64, meta binlog.Meta, body io.Reader, bodyLen int64) error {
	s.wbuf = append(s.wbuf, gtid...)
	if err := s.flush(); err != nil {
		return err
	}
	check := binlog.BodyChecker{Checksums: true}
	buf := make([]byte, writeBufferSize)
	for left := bodyLen; left > 0; {
		k, err := io.ReadFull(body, buf[:min(left, int64(len(buf)))])
		if err != nil {
			return fmt.Errorf("read body: %w", noEOF(err))
		}
		if _, err := check.Write(buf[:k]); err != nil {
			return err
		}
		if err := s.write(buf[:k]); err != nil {
			return err
		}
		left -= int64(k)
	}
	if err := check.Close(); err != nil {
		return err
	}
	if meta.Kind == binlog.KindTransaction {
		s.wbuf = binlog.AppendXID(s.wbuf, meta.Timestamp, n)
	}
	return s.flush()
}

// publish makes the transaction visible. What leaves the shared tail must be
// readable from the file first.
func (s *Store) publish(f *file, n uint64, size int64, e tailEntry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.tail.full(len(e.raw), s.opt.TailBytes) {
		if s.tail.first > s.flushedN {
			// Holds mu during one write of at most writeBufferSize.
			if err := s.flush(); err != nil {
				return err
			}
			s.flushedN = n
		}
		s.tail.drop()
	}
	s.tail.add(e)
	f.note(n, f.size)
	f.size += size
	f.lastN = n
	s.lastN = n
	s.wakeAll()
	return nil
}

// flush writes the buffer to the current file.
func (s *Store) flush() error {
	if len(s.wbuf) == 0 {
		return nil
	}
	err := s.write(s.wbuf)
	s.wbuf = s.wbuf[:0]
	if cap(s.wbuf) > 8*writeBufferSize {
		s.wbuf = nil
	}
	return err
}

func (s *Store) write(b []byte) error {
	_, err := s.cur.Write(b)
	return err
}

// fileFor returns the file that transaction n goes to, beginning a new one if
// the current one is large enough or if there is none.
func (s *Store) fileFor(n uint64) (*file, error) {
	s.mu.Lock()
	var last *file
	if len(s.files) > 0 {
		last = s.files[len(s.files)-1]
	}
	s.mu.Unlock()
	if last == nil {
		return s.create(1, n)
	}
	if last.size < s.opt.MaxFileSize || last.lastN < last.firstN {
		return last, nil
	}
	if err := s.flush(); err != nil {
		return nil, err
	}
	s.flushedN = n - 1
	s.unsynced = append(s.unsynced, s.cur)
	s.mu.Lock()
	last.indexed = true
	s.mu.Unlock()
	return s.create(last.num+1, n)
}

// create begins file num, whose first transaction will be firstN.
func (s *Store) create(num uint32, firstN uint64) (*file, error) {
	h, err := os.OpenFile(s.path(num), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, err
	}
	head := s.renderHeader(firstN)
	s.cur = h
	s.dirty, s.dirDirty = true, true
	if err := s.write(head); err != nil {
		return nil, err
	}
	f := &file{num: num, start: int64(len(head)), size: int64(len(head)), firstN: firstN, lastN: firstN - 1, indexed: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) == 0 {
		s.lastN = firstN - 1
		s.flushedN = s.lastN
		s.tail.reset(firstN)
		s.purgeFile = num
	}
	s.files = append(s.files, f)
	return f, nil
}

// Sync makes everything appended before the call durable and returns its end.
// The caller stores that Position together with its own state and gives it to
// Truncate at the next start. It may store an earlier Position instead, down to
// what the Sync before returned. Calling Sync again says that it has stored one
// or the other: only then may files before it be purged.
func (s *Store) Sync() (Position, error) {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.wmu.Lock()
	if err := s.writable(); err != nil {
		s.wmu.Unlock()
		return Position{}, err
	}
	if s.torn != nil {
		s.wmu.Unlock()
		return Position{}, fmt.Errorf("%w: %w", ErrTornTail, s.torn)
	}
	if err := s.flush(); err != nil {
		s.wmu.Unlock()
		return Position{}, s.fail(fmt.Errorf("write: %w", err))
	}
	pos := s.Position()
	s.flushedN = pos.LastN
	if s.synced2.File != 0 {
		s.purgeFile = s.synced2.File
	}
	dirty, syncDir, earlier, cur := s.dirty, s.dirDirty, s.unsynced, s.cur
	if s.syncAll {
		old, err := s.openEarlier()
		if err != nil {
			s.wmu.Unlock()
			return Position{}, s.fail(err)
		}
		earlier = append(old, earlier...)
	}
	s.dirty, s.dirDirty, s.syncAll, s.unsynced = false, false, false, nil
	s.wmu.Unlock()

	// Appends go on meanwhile. A failed fdatasync is never tried again: the
	// kernel may have dropped the pages, and a second one would lie.
	if err := s.syncFiles(dirty, syncDir, earlier, cur); err != nil {
		return Position{}, s.fail(err)
	}
	s.wmu.Lock()
	s.synced, s.synced2 = pos, s.synced
	s.wmu.Unlock()
	return pos, nil
}

// openEarlier opens every file but the one being written and those that
// s.unsynced holds already.
func (s *Store) openEarlier() ([]*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*os.File
	for _, f := range s.files[:max(0, len(s.files)-1-len(s.unsynced))] {
		h, err := os.Open(s.path(f.num))
		if err != nil {
			for _, h := range out {
				h.Close()
			}
			return nil, fmt.Errorf("group binlog: %w", err)
		}
		out = append(out, h)
	}
	return out, nil
}

func (s *Store) syncFiles(dirty, syncDir bool, earlier []*os.File, cur *os.File) error {
	for _, f := range earlier {
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return fmt.Errorf("fdatasync %s: %w", f.Name(), err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("close %s: %w", f.Name(), err)
		}
	}
	if dirty && cur != nil {
		if err := unix.Fdatasync(int(cur.Fd())); err != nil {
			return fmt.Errorf("fdatasync %s: %w", cur.Name(), err)
		}
	}
	if syncDir {
		return durable.SyncDir(s.dir)
	}
	return nil
}
