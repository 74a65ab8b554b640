package consensus

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	sm "github.com/lni/dragonboat/v4/statemachine"

	"cohort/consensus/state"
	"cohort/internal/binlog/groupbinlog"
)

// snapshot is what a member that is too far behind the log is sent: the state
// and the bodies in spool, not the rows, which the group binlog has.
type snapshot struct {
	st    *state.State
	files map[state.StreamID]*os.File
}

func (s *snapshot) close() {
	for _, f := range s.files {
		f.Close()
	}
}

// PrepareSnapshot keeps what is needed of this moment.
func (m *machine) PrepareSnapshot() (any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.err(); err != nil {
		return nil, err
	}
	s := &snapshot{st: m.st.Clone(), files: make(map[state.StreamID]*os.File)}
	for id, f := range m.spool.files {
		r, err := openForRead(f)
		if err != nil {
			s.close()
			return nil, err
		}
		s.files[id] = r
	}
	return s, nil
}

// SaveSnapshot writes the length of a checkpoint (8 bytes little-endian), the
// checkpoint, and the spooled bodies in the order of their members.
func (m *machine) SaveSnapshot(ctx any, w io.Writer, stop <-chan struct{}) error {
	s := ctx.(*snapshot)
	defer s.close()
	b := encodeCheckpoint(s.st, groupbinlog.Position{LastN: s.st.LastN()})
	if err := binary.Write(w, binary.LittleEndian, uint64(len(b))); err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	for _, id := range s.st.StreamIDs() {
		f := s.files[id]
		if f == nil {
			return fmt.Errorf("%w: no spooled fragments of %v", ErrCorrupt, id)
		}
		select {
		case <-stop:
			return sm.ErrSnapshotStopped
		default:
		}
		if _, err := io.CopyN(w, f, s.st.Streams()[id]); err != nil {
			return err
		}
	}
	return nil
}

// RecoverFromSnapshot replaces the state by one of another member. The rows
// must be here already. When they are not, the member stops with a clear error
// instead of serving without them.
func (m *machine) RecoverFromSnapshot(r io.Reader, stop <-chan struct{}) error {
	if err := m.recover(r); err != nil {
		m.fail(err)
		// An error here would be a panic of the whole process.
		<-stop
		return sm.ErrSnapshotStopped
	}
	return nil
}

func (m *machine) recover(r io.Reader) error {
	br := bufio.NewReader(r)
	var size uint64
	if err := binary.Read(br, binary.LittleEndian, &size); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(br, int64(min(size, 1<<40))))
	if err != nil || uint64(len(b)) != size {
		return fmt.Errorf("%w: snapshot of %d bytes: %w", ErrCorrupt, len(b), errors.Join(err, io.ErrUnexpectedEOF))
	}
	st, _, err := decodeCheckpoint(b)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if have := m.st.LastN(); have != st.LastN() || have > 0 && m.st.Checksum() != st.Checksum() {
		return fmt.Errorf("%w: it has transactions up to %d, the group is at %d", ErrRowsMissing, have, st.LastN())
	}
	wanted := st.Streams()
	for id := range m.st.Streams() {
		if _, ok := wanted[id]; !ok {
			m.spool.drop(id)
		}
	}
	for _, id := range st.StreamIDs() {
		buf := make([]byte, 1<<20)
		for off, n := int64(0), wanted[id]; off < n; {
			part := buf[:min(int64(len(buf)), n-off)]
			if _, err := io.ReadFull(br, part); err != nil {
				return fmt.Errorf("snapshot: %w", err)
			}
			if err := m.spool.write(id, off, part); err != nil {
				return err
			}
			off += int64(len(part))
		}
	}
	m.st = st
	m.publish()
	return nil
}
