package consensus

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cespare/xxhash/v2"
	sm "github.com/lni/dragonboat/v4/statemachine"

	"cohort/consensus/state"
	"cohort/internal/binlog/groupbinlog"
)

// snapshot is what a member that is too far behind the log is sent: the state
// and the bodies in spool, not the rows, which it fetches (see RowSource).
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

// RecoverFromSnapshot replaces the state by one of another member. What the group
// binlog lacks is fetched before. When that cannot be, the member stops with a
// clear error instead of serving without the rows.
func (m *machine) RecoverFromSnapshot(r io.Reader, stop <-chan struct{}) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-stop:
			cancel(errStopped)
		case <-ctx.Done():
		}
	}()
	err := m.recover(ctx, r)
	cancel(nil)
	<-done
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, errStopped):
	case errors.Is(err, ErrDiverged) && m.cfg.OnDiverged != nil:
		m.log.Error().Err(err).Msg("nothing is applied any more: stop this member, empty its cohort_data_dir, provision its mysqld from another member's data, and start it again")
		m.cfg.OnDiverged(err)
	default:
		m.fail(err)
	}
	// An error here would be a panic of the whole process.
	<-stop
	return sm.ErrSnapshotStopped
}

func (m *machine) recover(ctx context.Context, r io.Reader) error {
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
	if m.beyond(st) {
		// An earlier replica of this member was further, on the same history.
		if sum, known := m.checksumAt(st.LastN()); known && sum != st.Checksum() {
			return fmt.Errorf("%w: it went another way before transaction %d", ErrDiverged, st.LastN())
		}
		return nil
	}
	// Nothing else writes m.st meanwhile: dragonboat applies nothing.
	if err := m.fetch(ctx, st); err != nil {
		return err
	}
	if err := m.install(st, br); err != nil {
		return err
	}
	m.showRows()
	m.applied(st.Index(), 0)
	if o, ok := m.cfg.Observer.(SkipObserver); ok {
		o.Skipped()
	}
	return nil
}

// beyond reports whether what is applied here is at least what st has.
func (m *machine) beyond(st *state.State) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.st.Index() >= st.Index() && m.st.View().Lineage == st.View().Lineage
}

// install makes st the state; body has the spooled fragments that it names.
func (m *machine) install(st *state.State, body io.Reader) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	wanted := st.Streams()
	for id := range m.st.Streams() {
		if _, ok := wanted[id]; !ok {
			m.spool.drop(id)
		}
	}
	for _, id := range st.StreamIDs() {
		buf, h := make([]byte, 1<<20), xxhash.New()
		for off, n := int64(0), wanted[id]; off < n; {
			part := buf[:min(int64(len(buf)), n-off)]
			if _, err := io.ReadFull(body, part); err != nil {
				return fmt.Errorf("snapshot: %w", err)
			}
			h.Write(part)
			if err := m.spool.write(id, off, part); err != nil {
				return err
			}
			off += int64(len(part))
		}
		if sum, ok := st.StreamChecksum(id); !ok || sum != h.Sum64() {
			return fmt.Errorf("%w: the fragments of %v in the snapshot", ErrCorrupt, id)
		}
	}
	m.st = st
	m.publish()
	return nil
}
