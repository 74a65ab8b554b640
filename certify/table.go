package certify

// refCovered in slot.ref: whoever knows this referrer knows all earlier ones.
const refCovered = 1 << 63

// tableDomain keeps hashes of table names apart from hashes of row keys.
const tableDomain = 0x9e3779b97f4a7c15

// slot is one key of the certification map. Values up to the horizon mean
// nothing any more.
type slot struct {
	key   uint64 // 0: free
	write uint64
	ref   uint64 // with refCovered
}

// table is an open-addressing hash table with linear probing. Nothing is ever
// deleted from it: slots whose values lie below the horizon are dropped when it
// is rebuilt, which happens when it is full, so collection costs a constant
// amount of work per insertion.
type table struct {
	slots []slot // a power of two, or none
	used  int
}

// keyOf maps a hash into its domain and away from 0, the mark of a free slot.
func keyOf(h, domain uint64) uint64 {
	if domain != 0 {
		h = mix(h ^ domain)
	}
	if h == 0 {
		return tableDomain
	}
	return h
}

// mix is the finaliser of MurmurHash3 (public domain, Austin Appleby).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return h
}

// index spreads keys even where a caller's hashes are weak in their low bits.
func (t *table) index(key uint64) int {
	return int(key*tableDomain>>32) & (len(t.slots) - 1)
}

// find returns the slot of key or nil.
func (t *table) find(key uint64) *slot {
	if len(t.slots) == 0 {
		return nil
	}
	for i := t.index(key); ; i = (i + 1) & (len(t.slots) - 1) {
		s := &t.slots[i]
		if s.key == key {
			return s
		}
		if s.key == 0 {
			return nil
		}
	}
}

// insert returns the slot of key, taking a free one when it has none. There
// must be room: see reserve.
func (t *table) insert(key uint64) *slot {
	for i := t.index(key); ; i = (i + 1) & (len(t.slots) - 1) {
		s := &t.slots[i]
		if s.key == key {
			return s
		}
		if s.key == 0 {
			s.key = key
			t.used++
			return s
		}
	}
}

// reserve makes room for n insertions, keeping a quarter of the slots free.
func (t *table) reserve(n int, horizon uint64) {
	if t.used+n <= len(t.slots)/4*3 {
		return
	}
	live := 0
	for i := range t.slots {
		if t.slots[i].live(horizon) {
			live++
		}
	}
	// At most half full afterwards, so that the next rebuild is far away; this
	// shrinks too.
	size := 64
	for size < (live+n)*2 {
		size *= 2
	}
	old := t.slots
	t.slots = make([]slot, size)
	t.used = 0
	for i := range old {
		if old[i].live(horizon) {
			*t.insert(old[i].key) = old[i]
		}
	}
}

// live reports whether the slot says anything above the horizon.
func (s *slot) live(horizon uint64) bool {
	return s.key != 0 && (s.write > horizon || s.ref&^refCovered > horizon)
}
