package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"

	"cohort/consensus/state"
	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
)

// RowSource brings transactions that the log no longer holds: a snapshot has none.
type RowSource interface {
	// Fetch calls take with transactions After+1 to Upto, in order, and returns nil
	// after the last one. It may change its own source in between and goes on after
	// the last one that take returned nil for. Take reads the body to its end or
	// returns the body's error; that is no reason to give up. Any other error of take
	// is this member's own, and Fetch returns it. It is called from the goroutine
	// that applies the log, which waits for it, and ends with ctx's cause when ctx does.
	Fetch(ctx context.Context, want RowRange, take func(Row, io.Reader) error) error
}

// RowRange is what a RowSource is asked for.
type RowRange struct {
	// View is the group's as of the snapshot: who may have the rows.
	View *state.View
	// After and Upto: transactions After+1 to Upto.
	After, Upto uint64
}

// Row is a transaction without its body.
type Row struct {
	N, Dep uint64
	Meta   binlog.Meta
	// Size is that of the body, bytes.
	Size int64
}

// inlineRow is up to which size a body is held in memory; a larger one goes
// through a file, since a body that breaks off must not have begun to be appended.
const inlineRow = 1 << 20

// fetch appends what the group binlog lacks of the snapshot st. Every row is
// verified by the chain of checksums from what this member has to what the
// snapshot says, and shown to readers of the group binlog only then: mysqld must
// not apply what turns out not to be the group's.
//
// The rows lie behind the stored checkpoint, and none is written until the state
// that knows them is there (see fetching). So a start after a crash finds the
// earlier state, removes them and fetches again.
func (m *machine) fetch(ctx context.Context, st *state.State) error {
	n, sum, err := m.prefix(st)
	if err != nil || n == st.LastN() {
		return err
	}
	if m.cfg.Rows == nil {
		return fmt.Errorf("%w: it has transactions up to %d, the group is at %d", ErrRowsMissing, n, st.LastN())
	}
	m.ckptMu.Lock()
	m.fetching = true
	m.ckptMu.Unlock()
	m.cfg.Store.Limit(n)
	if m.cfg.Store.LastN() != n { // only of a member that has nothing at all
		if _, err := m.cfg.Store.Reset(n); err != nil {
			return fmt.Errorf("group binlog: %w", err)
		}
	}
	big := &bigBody{path: filepath.Join(m.cfg.Dir, "fetched")}
	defer big.close()
	m.log.Info().Uint64("have", n).Uint64("want", st.LastN()).Msg("the log was compacted beyond this member's group binlog; the rows are fetched from another member")
	err = m.cfg.Rows.Fetch(ctx, RowRange{View: st.View(), After: n, Upto: st.LastN()}, func(r Row, body io.Reader) error {
		if r.N != n+1 || r.Dep > n {
			return fmt.Errorf("%w: transaction %d, depending on %d, was fetched after %d", ErrCorrupt, r.N, r.Dep, n)
		}
		rows, bodySum, err := big.take(body, r.Size)
		if err != nil {
			return err
		}
		next := state.Chain(sum, r.N, &r.Meta, r.Size, bodySum)
		known, verified := st.ChecksumAt(r.N)
		if verified && known != next {
			return fmt.Errorf("%w: with what was fetched, transactions up to %d have the checksum %x, those of the group %x",
				ErrDiverged, r.N, next, known)
		}
		if err := m.cfg.Store.Append(r.N, r.Dep, r.Meta, rows, r.Size); err != nil {
			return fmt.Errorf("group binlog: %w", err)
		}
		if n, sum = r.N, next; verified {
			m.cfg.Store.Limit(n)
		}
		return nil
	})
	if err == nil && n != st.LastN() {
		err = fmt.Errorf("%w: rows up to %d were fetched, not %d", ErrCorrupt, n, st.LastN())
	}
	return err
}

// prefix returns what this member has of the group's transactions. The chain of
// checksums goes on from there.
func (m *machine) prefix(st *state.State) (n, sum uint64, err error) {
	n, sum = m.st.LastN(), m.st.Checksum()
	if _, _, founded := m.st.Beginning(); !founded {
		if n, sum, founded = st.Beginning(); !founded {
			return st.LastN(), 0, nil // nothing was ever ordered
		}
	}
	if n > st.LastN() {
		return 0, 0, fmt.Errorf("%w: this member has transactions up to %d, the group is at %d", ErrDiverged, n, st.LastN())
	}
	if known, ok := st.ChecksumAt(n); ok && known != sum {
		return 0, 0, fmt.Errorf("%w: transactions up to %d have the checksum %x here, those of the group %x", ErrDiverged, n, sum, known)
	}
	return n, sum, nil
}

// bigBody takes bodies whole, the large ones in a file.
type bigBody struct {
	path string
	f    *os.File
	buf  bytes.Buffer
}

// take returns the body, valid until the next call, and its checksum.
func (b *bigBody) take(body io.Reader, size int64) (io.Reader, uint64, error) {
	h := xxhash.New()
	if size <= inlineRow {
		b.buf.Reset()
		if err := exactly(io.MultiWriter(&b.buf, h), body, size); err != nil {
			return nil, 0, err
		}
		return bytes.NewReader(b.buf.Bytes()), h.Sum64(), nil
	}
	if b.f == nil {
		var err error
		if b.f, err = os.OpenFile(b.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640); err != nil {
			return nil, 0, fmt.Errorf("fetched rows: %w", err)
		}
	}
	if _, err := b.f.Seek(0, io.SeekStart); err != nil {
		return nil, 0, fmt.Errorf("fetched rows: %w", err)
	}
	if err := exactly(io.MultiWriter(b.f, h), body, size); err != nil {
		return nil, 0, err
	}
	return io.NewSectionReader(b.f, 0, size), h.Sum64(), nil
}

// exactly copies size bytes, after which the body must end.
func exactly(w io.Writer, body io.Reader, size int64) error {
	n, err := io.Copy(w, body)
	if err == nil && n != size {
		err = fmt.Errorf("%w: a fetched body has %d bytes, not %d", ErrCorrupt, n, size)
	}
	return err
}

func (b *bigBody) close() {
	if b.f != nil {
		b.f.Close()
		os.Remove(b.path)
	}
}

// showRows ends what fetch began: the state knows all rows.
func (m *machine) showRows() {
	m.cfg.Store.Limit(groupbinlog.NoLimit)
	m.ckptMu.Lock()
	m.fetching = false
	m.ckptMu.Unlock()
}

// errStopped ends a fetch because the node closes.
var errStopped = errors.New("consensus: the node closes")
