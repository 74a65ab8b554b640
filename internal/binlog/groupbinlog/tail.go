package groupbinlog

import "cohort/internal/binlog"

// tail holds the latest transactions in memory, contiguous from first on.
type tail struct {
	first   uint64 // number of the first entry, or of the next if there is none
	entries []tailEntry
	bytes   int64
}

type tailEntry struct {
	raw  []byte // whole transaction; nil if it is too large to keep
	dep  uint64
	meta binlog.Meta
}

func (t *tail) reset(next uint64) { *t = tail{first: next} }

// full says whether an entry must be dropped before one of size more is added.
func (t *tail) full(more int, limit int64) bool {
	return len(t.entries) > 0 && (t.bytes+int64(more) > limit || len(t.entries) >= maxTailEntries)
}

func (t *tail) drop() {
	t.bytes -= int64(len(t.entries[0].raw))
	t.entries[0] = tailEntry{}
	t.entries = t.entries[1:] // append reallocates in time, copying only what is left
	t.first++
}

func (t *tail) add(e tailEntry) {
	t.entries = append(t.entries, e)
	t.bytes += int64(len(e.raw))
}

// get returns entry n if it is held with its bytes.
func (t *tail) get(n uint64) (tailEntry, bool) {
	if n < t.first || n-t.first >= uint64(len(t.entries)) {
		return tailEntry{}, false
	}
	e := t.entries[n-t.first]
	return e, e.raw != nil
}
