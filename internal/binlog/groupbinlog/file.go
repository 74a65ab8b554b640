package groupbinlog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"cohort/internal/binlog"
)

const (
	filePrefix = "cohort-bin."
	// maxControlEvent bounds the size of a format description, previous GTIDs or
	// GTID event in our own files.
	maxControlEvent = 4096
	// indexDistance is how many bytes of a file lie between two index entries.
	indexDistance = 64 << 10
)

// file is what is known of one file. Fields but index and indexed are written
// under Store.mu; those two under Store.mu as well, once.
type file struct {
	num    uint32
	start  int64  // where the first transaction begins
	firstN uint64 // the first transaction that the file holds or would hold
	lastN  uint64 // firstN-1 if it holds none
	size   int64  // end of the last whole transaction
	// index has an entry for some transactions, ascending; complete only if
	// indexed.
	index   []indexEntry
	indexed bool
}

type indexEntry struct {
	n      uint64
	offset int64
}

// note adds the transaction to the index if the last entry is far enough.
func (f *file) note(n uint64, offset int64) {
	if k := len(f.index); k == 0 || offset-f.index[k-1].offset >= indexDistance {
		f.index = append(f.index, indexEntry{n, offset})
	}
}

// seek returns the last indexed transaction at or before n.
func (f *file) seek(n uint64) indexEntry {
	i, found := slices.BinarySearchFunc(f.index, n, func(e indexEntry, n uint64) int {
		switch {
		case e.n < n:
			return -1
		case e.n > n:
			return 1
		}
		return 0
	})
	if found {
		return f.index[i]
	}
	if i == 0 {
		return indexEntry{f.firstN, f.start}
	}
	return f.index[i-1]
}

// clock maps a dependency to the file's logical clock.
func (f *file) clock(n, dep uint64) (lastCommitted, sequence int64) {
	sequence = int64(n-f.firstN) + 1
	switch {
	case dep >= f.firstN:
		lastCommitted = int64(dep-f.firstN) + 1
	case sequence > 1:
		lastCommitted = 1
	}
	return lastCommitted, sequence
}

// dep is the inverse of clock.
func (f *file) dep(lastCommitted int64) uint64 {
	return f.firstN + uint64(lastCommitted) - 1
}

func fileName(num uint32) string { return fmt.Sprintf("%s%06d", filePrefix, num) }

func (s *Store) path(num uint32) string { return filepath.Join(s.dir, fileName(num)) }

// listFiles returns the numbers of the group binlog files in dir, ascending.
func listFiles(dir string) ([]uint32, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("group binlog: %w", err)
	}
	var out []uint32
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), filePrefix)
		if !ok || len(digits) < 6 {
			continue
		}
		num, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || fileName(uint32(num)) != e.Name() || num == 0 {
			continue
		}
		out = append(out, uint32(num))
	}
	slices.Sort(out)
	return out, nil
}

// renderHeader is the beginning of a file whose first transaction is firstN.
func (s *Store) renderHeader(firstN uint64) []byte {
	b := binlog.AppendFormatDescription([]byte(binlog.Magic), 0, s.opt.ServerVersion, 0)
	var set binlog.GTIDSet
	if firstN > 1 {
		set = binlog.GTIDSet{{UUID: s.group, Intervals: binlog.Intervals{{Start: 1, End: firstN - 1}}}}
	}
	return binlog.AppendPreviousGTIDs(b, 0, set)
}

// readHeader opens, verifies and closes the beginning of a file.
func (s *Store) readHeader(num uint32) (*file, error) {
	h, err := os.Open(s.path(num))
	if err != nil {
		return nil, fmt.Errorf("group binlog: %w", err)
	}
	defer h.Close()
	br := bufio.NewReaderSize(h, maxControlEvent)
	f, err := s.parseHeader(br)
	if err != nil {
		return nil, fmt.Errorf("%s: header: %w", fileName(num), err)
	}
	f.num = num
	st, err := h.Stat()
	if err != nil {
		return nil, fmt.Errorf("group binlog: %w", err)
	}
	f.size = st.Size()
	return f, nil
}

func (s *Store) parseHeader(br *bufio.Reader) (*file, error) {
	var magic [binlog.MagicSize]byte
	if _, err := io.ReadFull(br, magic[:]); err != nil {
		return nil, fmt.Errorf("magic number: %w", err)
	}
	if string(magic[:]) != binlog.Magic {
		return nil, fmt.Errorf("%w: no magic number", binlog.ErrMalformed)
	}
	fde, err := readEvent(br, maxControlEvent)
	if err != nil {
		return nil, fmt.Errorf("format description: %w", err)
	}
	desc, err := binlog.ParseFormatDescription(fde)
	if err != nil {
		return nil, err
	}
	if !desc.Checksums {
		return nil, fmt.Errorf("%w: file without checksums", binlog.ErrMalformed)
	}
	prev, err := readEvent(br, maxControlEvent)
	if err != nil {
		return nil, fmt.Errorf("previous GTIDs: %w", err)
	}
	set, err := binlog.ParsePreviousGTIDs(prev[:len(prev)-binlog.ChecksumSize])
	if err != nil {
		return nil, err
	}
	f := &file{start: int64(binlog.MagicSize + len(fde) + len(prev))}
	switch {
	case len(set) == 0:
		f.firstN = 1
	case len(set) == 1 && set[0].UUID != s.group:
		return nil, fmt.Errorf("%w: files hold %s", ErrWrongGroup, set[0].UUID)
	case len(set) == 1 && set[0].Tag == "" && len(set[0].Intervals) == 1 && set[0].Intervals[0].Start == 1:
		f.firstN = set[0].Intervals[0].End + 1
	default:
		return nil, fmt.Errorf("%w: previous GTIDs %s", binlog.ErrMalformed, set)
	}
	f.lastN = f.firstN - 1
	return f, nil
}

// readEvent reads one whole event of at most limit bytes and verifies its
// checksum.
func readEvent(r io.Reader, limit int) ([]byte, error) {
	var head [binlog.HeaderSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	h, err := binlog.ParseHeader(head[:])
	if err != nil {
		return nil, err
	}
	if int64(h.Size) > int64(limit) || h.Size < binlog.MinEventSize {
		return nil, fmt.Errorf("%w: event of type %d has %d bytes", binlog.ErrMalformed, h.Type, h.Size)
	}
	ev := make([]byte, h.Size)
	copy(ev, head[:])
	if _, err := io.ReadFull(r, ev[binlog.HeaderSize:]); err != nil {
		return nil, noEOF(err)
	}
	return ev, binlog.VerifyChecksum(ev)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parseGTID reads the GTID event at the start of a transaction and checks that
// it is the one that must follow.
func (s *Store) parseGTID(f *file, ev []byte, n uint64) (binlog.GTID, error) {
	g, err := binlog.DecodeGTID(ev[:len(ev)-binlog.ChecksumSize])
	if err != nil {
		return g, err
	}
	if g.UUID != s.group {
		return g, fmt.Errorf("%w: files hold %s", ErrWrongGroup, g.UUID)
	}
	sequence := int64(n-f.firstN) + 1
	if g.Tag != "" || g.GNO != int64(n) || g.SequenceNumber != sequence ||
		g.LastCommitted < 0 || g.LastCommitted >= sequence ||
		g.TransactionLength <= uint64(len(ev)) || g.TransactionLength > maxTransactionSize {
		return g, fmt.Errorf("%w: found %s (clock %d/%d, %d bytes) where %d must be",
			binlog.ErrMalformed, g.String(), g.LastCommitted, g.SequenceNumber, g.TransactionLength, n)
	}
	return g, nil
}

// maxTransactionSize bounds a whole transaction in bytes (group replication's
// own limit is 2 GiB).
const maxTransactionSize = 1 << 32

// scan verifies the transactions of f, every checksum included, up to offset
// limit (to the end of the file if negative) and fills f's index. It returns
// the end of the last whole transaction, and an error if the file does not end,
// or limit does not lie, there.
func (s *Store) scan(f *file, limit int64) (Position, error) {
	end := Position{File: f.num, Offset: f.start, LastN: f.firstN - 1}
	f.index, f.indexed = nil, false
	h, err := os.Open(s.path(f.num))
	if err != nil {
		return end, fmt.Errorf("group binlog: %w", err)
	}
	defer h.Close()
	if limit < 0 {
		st, err := h.Stat()
		if err != nil {
			return end, fmt.Errorf("group binlog: %w", err)
		}
		limit = st.Size()
	}
	br := bufio.NewReaderSize(io.NewSectionReader(h, f.start, limit-f.start), 256<<10)
	for end.Offset < limit {
		n := end.LastN + 1
		size, err := s.scanTransaction(f, br, n)
		if err != nil {
			return end, fmt.Errorf("%s at %d: transaction %d: %w", fileName(f.num), end.Offset, n, err)
		}
		f.note(n, end.Offset)
		end.Offset += size
		end.LastN = n
	}
	if end.Offset > limit { // only if limit lies before the first transaction
		return end, fmt.Errorf("%w: %s has no position %d", binlog.ErrMalformed, fileName(f.num), limit)
	}
	f.indexed = true
	return end, nil
}

func (s *Store) scanTransaction(f *file, br *bufio.Reader, n uint64) (int64, error) {
	ev, err := readEvent(br, maxControlEvent)
	if err != nil {
		return 0, err
	}
	g, err := s.parseGTID(f, ev, n)
	if err != nil {
		return 0, err
	}
	check := binlog.BodyChecker{Checksums: true}
	rest := int64(g.TransactionLength) - int64(len(ev))
	if _, err := io.CopyN(&check, br, rest); err != nil {
		return 0, noEOF(err)
	}
	return int64(g.TransactionLength), check.Close()
}
