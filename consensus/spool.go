package consensus

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"cohort/consensus/state"
)

// spool keeps the bodies that arrive in fragments, one file each. Its callers
// hold the machine's lock.
//
// A file that the last checkpoint may name is removed only after the next one:
// a member that restarts in between applies the fragments' successors again and
// needs what came before.
type spool struct {
	dir     string
	files   map[state.StreamID]*os.File
	dropped []*os.File // to be removed after the next checkpoint
}

func (s *spool) path(id state.StreamID) string {
	return filepath.Join(s.dir, fmt.Sprintf("%d-%d-%d", id.Member, id.Incarnation, id.Stream))
}

// openSpool opens the files of the streams that a checkpoint names, with their
// lengths, and removes all others.
func openSpool(dir string, streams map[state.StreamID]int64) (*spool, error) {
	s := &spool{dir: dir, files: make(map[state.StreamID]*os.File)}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	wanted := make(map[string]bool)
	for id, size := range streams {
		wanted[filepath.Base(s.path(id))] = true
		f, err := os.OpenFile(s.path(id), os.O_RDWR, 0)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("%w: spooled fragments: %w", ErrCorrupt, err)
		}
		s.files[id] = f
		if st, err := f.Stat(); err != nil || st.Size() < size {
			s.close()
			return nil, fmt.Errorf("%w: spooled fragments of %v are short: %w", ErrCorrupt, id, err)
		}
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("spool: %w", err)
	}
	for _, e := range list {
		if !wanted[e.Name()] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				s.close()
				return nil, fmt.Errorf("spool: %w", err)
			}
		}
	}
	return s, nil
}

// write keeps data at offset. Writing the same again after a restart is
// harmless.
func (s *spool) write(id state.StreamID, offset int64, data []byte) error {
	f := s.files[id]
	if f == nil {
		var err error
		f, err = os.OpenFile(s.path(id), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		s.files[id] = f
	}
	if _, err := f.WriteAt(data, offset); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// reader reads the first n bytes of a stream.
func (s *spool) reader(id state.StreamID, n int64) (io.Reader, error) {
	f := s.files[id]
	if f == nil {
		return nil, fmt.Errorf("%w: no spooled fragments of %v", ErrCorrupt, id)
	}
	return io.NewSectionReader(f, 0, n), nil
}

func (s *spool) drop(id state.StreamID) {
	if f := s.files[id]; f != nil {
		delete(s.files, id)
		s.dropped = append(s.dropped, f)
	}
}

// live returns the files in use, for a checkpoint.
func (s *spool) live() []*os.File {
	out := make([]*os.File, 0, len(s.files))
	for _, f := range s.files {
		out = append(out, f)
	}
	return out
}

// takeDropped returns the files that the checkpoint now being taken does not
// name.
func (s *spool) takeDropped() []*os.File {
	d := s.dropped
	s.dropped = nil
	return d
}

func removeFiles(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close(), os.Remove(f.Name()))
	}
	return errors.Join(errs...)
}

func (s *spool) close() {
	for _, f := range s.files {
		f.Close()
	}
	for _, f := range s.dropped {
		f.Close()
	}
	s.files, s.dropped = nil, nil
}
