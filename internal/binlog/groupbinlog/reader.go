package groupbinlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"cohort/internal/binlog"
)

// Txn is one transaction as it stands in the files.
type Txn struct {
	N uint64
	// Dep is the highest number that this one must wait for; never lower than
	// what was appended (see the package comment), always below N.
	Dep  uint64
	Meta binlog.Meta
	// Size counts the bytes from the GTID event to the end of the transaction.
	Size int64
	// Raw holds all of them, or is nil if Size > InlineLimit. It must not be
	// changed, and is valid until the reader's next call.
	Raw []byte

	head int // size of the GTID event
	src  *io.SectionReader
}

// Body reads what the transaction was appended with, as many bytes as it says: all
// between the GTID event and the XID event that a KindTransaction ends with. It is
// valid until the reader's next call.
func (t *Txn) Body() (io.Reader, int64) {
	size := t.Size - int64(t.head)
	if t.Meta.Kind == binlog.KindTransaction {
		size -= binlog.XIDSize
	}
	if t.Raw != nil {
		return bytes.NewReader(t.Raw[t.head : int64(t.head)+size]), size
	}
	return io.NewSectionReader(t.src, int64(t.head), size), size
}

// Bytes reads the transaction from its GTID event to its end, wherever it is.
// It is valid until the reader's next call.
func (t *Txn) Bytes() io.Reader {
	if t.Raw != nil {
		return bytes.NewReader(t.Raw)
	}
	return io.NewSectionReader(t.src, 0, t.Size)
}

// Reader follows the store from one number on. It is not safe for concurrent
// use; any number of readers may run at once.
type Reader struct {
	s    *Store
	next uint64
	gen  uint64

	// Where the files are read, valid if at.n == next.
	h   *os.File
	f   *file
	at  indexEntry
	buf []byte // bytes of h from off on
	off int64
	mem []byte // backing of buf
}

// NewReader returns a reader whose first transaction is afterN+1, which may
// still be to come. ErrPurged if it is no longer there.
func (s *Store) NewReader(afterN uint64) (*Reader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if len(s.files) > 0 && afterN+1 < s.files[0].firstN {
		return nil, fmt.Errorf("%w: need %d, first is %d", ErrPurged, afterN+1, s.files[0].firstN)
	}
	return &Reader{s: s, next: afterN + 1, gen: s.gen}, nil
}

// Pin keeps Purge from removing what the reader has still to return, until Close.
func (r *Reader) Pin() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.pins[r] = r.next
}

// Close releases the reader's file. The store's Close does not do so.
func (r *Reader) Close() error {
	r.s.mu.Lock()
	delete(r.s.pins, r)
	r.s.mu.Unlock()
	r.gen = ^uint64(0)
	if r.h == nil {
		return nil
	}
	err := r.h.Close()
	r.h = nil
	return err
}

// NextN is the number of the transaction that Next will return.
func (r *Reader) NextN() uint64 { return r.next }

// Next returns the next transaction, waiting until it is appended or ctx is
// done (its cause is returned then).
func (r *Reader) Next(ctx context.Context) (Txn, error) {
	for {
		t, ok, err := r.TryNext()
		if ok || err != nil {
			return t, err
		}
		select {
		case <-r.Appended():
		case <-ctx.Done():
			return Txn{}, context.Cause(ctx)
		}
	}
}

// Appended returns a channel that is closed when TryNext is worth calling.
func (r *Reader) Appended() <-chan struct{} {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.gen != r.gen || s.shown() >= r.next {
		return closedChan
	}
	s.waiting++
	return s.wake
}

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// TryNext is Next without waiting; ok is false if the transaction has not been
// appended yet.
func (r *Reader) TryNext() (t Txn, ok bool, err error) {
	s := r.s
	s.mu.Lock()
	switch {
	case s.closed:
		err = ErrClosed
	case s.gen != r.gen:
		err = ErrReset
	case s.shown() < r.next:
	default:
		if _, pinned := s.pins[r]; pinned {
			s.pins[r] = r.next
		}
		if e, held := s.tail.get(r.next); held {
			s.mu.Unlock()
			t = Txn{N: r.next, Dep: e.dep, Meta: e.meta, Size: int64(len(e.raw)), Raw: e.raw, head: sizeOf(e.raw)}
			r.next++
			return t, true, nil
		}
		ok = true
	}
	s.mu.Unlock()
	if !ok {
		return Txn{}, false, err
	}
	t, err = r.read()
	if err != nil {
		if s.isReset(r.gen) {
			err = ErrReset
		}
		return Txn{}, false, fmt.Errorf("read transaction %d: %w", r.next, err)
	}
	r.next++
	return t, true, nil
}

func (s *Store) isReset(gen uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gen != gen
}

// read reads transaction next, whose bytes are in a file.
func (r *Reader) read() (Txn, error) {
	if r.h == nil || r.at.n != r.next || !r.inFile(r.next) {
		if err := r.locate(); err != nil {
			return Txn{}, err
		}
	}
	for {
		g, err := r.gtid()
		if err != nil {
			return Txn{}, err
		}
		size := int64(g.TransactionLength)
		here := r.at
		r.at = indexEntry{here.n + 1, here.offset + size}
		if here.n == r.next {
			return r.transaction(here, &g)
		}
	}
}

func (r *Reader) inFile(n uint64) bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return n <= r.f.lastN
}

// locate opens the file that holds next and goes to an indexed transaction at
// or before it.
func (r *Reader) locate() error {
	s := r.s
	s.mu.Lock()
	var f *file
	for i := len(s.files) - 1; i >= 0; i-- {
		if s.files[i].firstN <= r.next {
			f = s.files[i]
			break
		}
	}
	indexed := f != nil && f.indexed
	s.mu.Unlock()
	if f == nil {
		return ErrPurged
	}
	if !indexed {
		if err := s.buildIndex(f); err != nil {
			return err
		}
	}
	if r.h == nil || r.f != f {
		h, err := os.Open(s.path(f.num))
		if errors.Is(err, os.ErrNotExist) {
			return ErrPurged
		}
		if err != nil {
			return err
		}
		if r.h != nil {
			r.h.Close()
		}
		r.h, r.f = h, f
	}
	r.buf = nil
	s.mu.Lock()
	r.at = f.seek(r.next)
	s.mu.Unlock()
	return nil
}

// buildIndex fills the index of a file of an earlier run, hopping from one
// GTID event to the next.
func (s *Store) buildIndex(f *file) error {
	s.mu.Lock()
	copied := *f
	s.mu.Unlock()
	h, err := os.Open(s.path(f.num))
	if errors.Is(err, os.ErrNotExist) {
		return ErrPurged
	}
	if err != nil {
		return err
	}
	probe := Reader{s: s, h: h, f: &copied, at: indexEntry{copied.firstN, copied.start}}
	defer h.Close()
	copied.index = nil
	for probe.at.n <= copied.lastN {
		g, err := probe.gtid()
		if err != nil {
			return err
		}
		copied.note(probe.at.n, probe.at.offset)
		probe.at = indexEntry{probe.at.n + 1, probe.at.offset + int64(g.TransactionLength)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.index, f.indexed = copied.index, true
	return nil
}

// gtid reads and verifies the GTID event at r.at.
func (r *Reader) gtid() (binlog.GTID, error) {
	head, err := r.window(r.at.offset, binlog.HeaderSize)
	if err != nil {
		return binlog.GTID{}, r.corrupt(err)
	}
	h, err := binlog.ParseHeader(head)
	if err != nil {
		return binlog.GTID{}, r.corrupt(err)
	}
	if h.Type != binlog.TypeGTID || h.Size > maxControlEvent || h.Size < binlog.MinEventSize {
		return binlog.GTID{}, r.corrupt(fmt.Errorf("%w: event of type %d, %d bytes", binlog.ErrMalformed, h.Type, h.Size))
	}
	ev, err := r.window(r.at.offset, int(h.Size))
	if err != nil {
		return binlog.GTID{}, r.corrupt(err)
	}
	if err := binlog.VerifyChecksum(ev); err != nil {
		return binlog.GTID{}, r.corrupt(err)
	}
	g, err := r.s.parseGTID(r.f, ev, r.at.n)
	if err != nil {
		return g, r.corrupt(err)
	}
	return g, nil
}

func (r *Reader) corrupt(err error) error {
	return fmt.Errorf("%w: %s at %d: %w", ErrCorrupt, fileName(r.f.num), r.at.offset, err)
}

// transaction makes the Txn of the transaction at here.
func (r *Reader) transaction(here indexEntry, g *binlog.GTID) (Txn, error) {
	t := Txn{
		N: here.n, Dep: r.f.dep(g.LastCommitted), Size: int64(g.TransactionLength),
		Meta: binlog.Meta{
			Kind: binlog.KindStatement, GTIDFlags: g.Flags,
			OriginalCommitTimestamp: g.OriginalCommitTimestamp,
			OriginalServerVersion:   g.OriginalServerVersion,
		},
	}
	bad := func(err error) (Txn, error) {
		return Txn{}, fmt.Errorf("%w: %s at %d: %w", ErrCorrupt, fileName(r.f.num), here.offset, err)
	}
	var xid [binlog.XIDSize]byte
	var last []byte // the last bytes: an XID event that names N or not
	if t.Size <= InlineLimit {
		raw, err := r.window(here.offset, int(t.Size))
		if err != nil {
			return bad(err)
		}
		_, rest, err := binlog.NextEvent(raw)
		if err == nil {
			err = binlog.CheckBody(rest)
		}
		if err != nil {
			return bad(err)
		}
		t.Raw, last = raw, raw[len(raw)-min(len(raw), binlog.XIDSize):]
		t.Meta.Timestamp, t.head = timestampOf(raw), sizeOf(raw)
	} else {
		t.src = io.NewSectionReader(r.h, here.offset, t.Size)
		head, err := r.window(here.offset, binlog.HeaderSize)
		if err != nil {
			return bad(err)
		}
		t.Meta.Timestamp, t.head = timestampOf(head), sizeOf(head)
		last = make([]byte, binlog.XIDSize)
		if _, err := r.h.ReadAt(last, here.offset+t.Size-binlog.XIDSize); err != nil {
			return bad(noEOF(err))
		}
	}
	if bytes.Equal(last, binlog.AppendXID(xid[:0], t.Meta.Timestamp, t.N)) {
		t.Meta.Kind = binlog.KindTransaction
	}
	return t, nil
}

func timestampOf(ev []byte) uint32 {
	h, err := binlog.ParseHeader(ev)
	if err != nil {
		return 0
	}
	return h.Timestamp
}

// sizeOf is the size of the first event of ev.
func sizeOf(ev []byte) int {
	h, err := binlog.ParseHeader(ev)
	if err != nil {
		return 0
	}
	return int(h.Size)
}

// readAhead is how much is read from a file at once.
const readAhead = 256 << 10

// window returns n bytes of the file from offset on.
func (r *Reader) window(offset int64, n int) ([]byte, error) {
	if from := offset - r.off; from >= 0 && from+int64(n) <= int64(len(r.buf)) {
		return r.buf[from : from+int64(n)], nil
	}
	want := max(n, readAhead)
	if cap(r.mem) < want {
		r.mem = make([]byte, want)
	}
	// A buffer that one large transaction needed is not kept for ever.
	if want == readAhead && cap(r.mem) > 4*readAhead {
		r.mem = make([]byte, want)
	}
	r.buf = nil
	k, err := r.h.ReadAt(r.mem[:want], offset)
	if k < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	r.buf, r.off = r.mem[:k], offset
	return r.buf[:n], nil
}
