package state

// MinRecent is how many of the latest verdicts are always remembered.
const MinRecent = 10000

// Outcome is a remembered verdict on a transaction or direct statement.
type Outcome struct {
	// Key is the xid or, for a direct statement, the local GTID.
	Key         string
	Direct      bool
	Origin      uint64 // 0 when the log never saw the transaction itself
	Incarnation uint64
	Committed   bool
	N           uint64 // when committed
	Errno       uint16 // otherwise
	Reason      Reason
	// LastN is the last number given when this was decided.
	LastN uint64
}

// recent remembers verdicts in the order of the log. The first verdict on a key
// is final. A verdict is forgotten only when MinRecent later ones exist and its
// origin has reported that its mysqld has put everything up to it on stable
// storage: from then on no prepared transaction can need it. So a forced abort
// can never contradict a verdict that was forgotten. Aborts forced on what the
// log has not seen yet are not here, see forced.
type recent struct {
	list []Outcome // behind off forgotten ones
	off  int
	base uint64 // number of outcomes forgotten before list[off]
	keys map[outcomeKey]uint64
}

// outcomeKey keeps xids and local GTIDs apart.
type outcomeKey struct {
	name   string
	direct bool
}

func (r *recent) find(name string, direct bool) (*Outcome, bool) {
	if i, ok := r.keys[outcomeKey{name, direct}]; ok {
		return &r.list[r.off+int(i-r.base)], true
	}
	return nil, false
}

func (r *recent) add(o Outcome) {
	if r.keys == nil {
		r.keys = make(map[outcomeKey]uint64)
	}
	r.keys[outcomeKey{o.Key, o.Direct}] = r.base + uint64(r.len())
	r.list = append(r.list, o)
}

func (r *recent) len() int { return len(r.list) - r.off }

func (r *recent) all() []Outcome { return r.list[r.off:] }

// trim forgets what may be forgotten; stable gives an origin's report.
func (r *recent) trim(stable func(origin uint64) uint64) {
	for r.len() > MinRecent {
		o := &r.list[r.off]
		if o.Origin != 0 && stable(o.Origin) < o.LastN {
			break
		}
		delete(r.keys, outcomeKey{o.Key, o.Direct})
		*o = Outcome{}
		r.off++
		r.base++
	}
	if r.off > MinRecent && r.off > len(r.list)/2 {
		n := copy(r.list, r.list[r.off:])
		clear(r.list[n:])
		r.list = r.list[:n]
		r.off = 0
	}
}
