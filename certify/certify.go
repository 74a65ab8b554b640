package certify

import (
	"slices"
)

// DefaultMaxTouches bounds the certification map: when the transactions above
// the horizon touch more keys than this, the horizon is raised (see
// Certifier.GC). It is part of the decision rules: every member of a group must
// use the same value. A key costs about 48 bytes of memory at most.
const DefaultMaxTouches = 2 << 20

// Snapshot says which group transactions precede a prepare in the binary log
// of the member that ran it: 1..Low and those in Extra. Extra is sorted,
// without duplicates, each above Low.
type Snapshot struct {
	Low   uint64
	Extra []uint64
}

// Contains reports whether transaction n is inside the snapshot.
func (s Snapshot) Contains(n uint64) bool {
	if n <= s.Low {
		return true
	}
	if len(s.Extra) == 0 {
		return false
	}
	_, ok := slices.BinarySearch(s.Extra, n)
	return ok
}

// normal folds the leading run of Extra into Low.
func (s Snapshot) normal() Snapshot {
	for len(s.Extra) > 0 && s.Extra[0] <= s.Low+1 {
		if s.Extra[0] == s.Low+1 {
			s.Low++
		}
		s.Extra = s.Extra[1:]
	}
	return s
}

// Txn is what the certifier needs to know of one transaction. All hashes are 64
// bits wide; equal hashes count as equal keys.
type Txn struct {
	// Origin is the member whose mysqld ran it, Incarnation that member's life.
	Origin      uint64
	Incarnation uint64
	Snapshot    Snapshot
	// Writes are the keys written, of before and after images. They conflict
	// with writes and refs.
	Writes []uint64
	// Refs are the parent keys referenced: read locks. They conflict with
	// writes only.
	Refs []uint64
	// Tables are hashes of the names of the tables (or, for a direct statement,
	// of the objects) touched. For a Direct or Wide transaction each counts as
	// written, otherwise as referenced.
	Tables []uint64
	// Direct marks a statement that its origin has committed already. It is
	// always Serial.
	Direct bool
	// Wide makes whole tables the unit of conflict, for transactions with more
	// keys than are worth remembering.
	Wide bool
	// Serial makes it wait for everything before it and everything after wait
	// for it.
	Serial bool
	// CommitOrder makes it wait for everything before it.
	CommitOrder bool
}

// Reason says why a transaction was refused.
type Reason uint8

// The reasons of a Verdict that does not commit.
const (
	// ReasonNone is the reason of a transaction that commits.
	ReasonNone Reason = iota
	// ReasonConflict is a newer write outside the snapshot.
	ReasonConflict
	// ReasonHorizon is a snapshot too old to be judged.
	ReasonHorizon
	// ReasonInvalid is a snapshot that names a transaction which does not exist.
	ReasonInvalid
)

// String returns the reason in a word.
func (r Reason) String() string {
	switch r {
	case ReasonNone:
		return "none"
	case ReasonConflict:
		return "conflict"
	case ReasonHorizon:
		return "horizon"
	default:
		return "invalid"
	}
}

// Verdict is the outcome of Certify.
type Verdict struct {
	Commit bool
	Reason Reason
	// N is the group transaction number of a transaction that commits.
	N uint64
	// Dep is the highest number that must be applied before N may be; 0 when
	// there is none. Everything up to Dep must have been applied.
	Dep uint64
	// Conflict is the key that decided, With the number of the transaction that
	// wrote it (ReasonConflict only).
	Conflict uint64
	With     uint64
}

// Certifier holds the last writer and the last referrer of every key touched
// above the horizon. It is not safe for concurrent use.
//
// A key remembers one writer only. That suffices because snapshots are closed
// under conflict: a member applies other members' transactions in order, and
// whoever wrote a key was itself certified against the writer before.
//
// Transactions of one incarnation never conflict with each other: their
// mysqld's own locks kept them apart while both were prepared, and those that
// were not prepared together are in each other's snapshot. So a key written
// last by the transaction's own incarnation is no conflict (but still a
// dependency). The same holds, whatever the incarnation, between a direct
// statement and anything else of its origin, because a direct statement was
// committed there before it was proposed.
type Certifier struct {
	last       uint64
	horizon    uint64
	floor      uint64
	maxTouches uint64
	touches    uint64 // sum over meta
	keys       table
	meta       []txnMeta // of horizon+1..last, behind metaOff dead ones
	metaOff    int
	owners     []owner
	run        run
}

// owner is a distinct (origin, incarnation, direct).
type owner struct {
	origin, incarnation uint64
	direct              bool
}

// txnMeta is what is kept per transaction above the horizon.
type txnMeta struct {
	owner   uint32 // index into owners
	touches uint32 // keys touched, plus one
}

// New returns an empty certifier. maxTouches bounds its memory, 0 means
// DefaultMaxTouches.
func New(maxTouches uint64) *Certifier {
	if maxTouches == 0 {
		maxTouches = DefaultMaxTouches
	}
	return &Certifier{maxTouches: maxTouches}
}

// Last returns the number of the last transaction certified, 0 for none.
func (c *Certifier) Last() uint64 { return c.last }

// Horizon returns the number up to which knowledge was collected: a snapshot
// must hold 1..Horizon or its transaction is refused, unless everything ordered
// since came from its own side (see alone).
func (c *Certifier) Horizon() uint64 { return c.horizon }

// Floor returns the number of the last serial transaction.
func (c *Certifier) Floor() uint64 { return c.floor }

// Touches returns an upper bound of the number of keys held.
func (c *Certifier) Touches() uint64 { return c.touches }

// StartAt makes n the last number, for a group whose first member brings
// numbers of its own. It panics when something was certified before.
func (c *Certifier) StartAt(n uint64) {
	if c.last != 0 {
		panic("certify: StartAt after transactions")
	}
	c.last, c.horizon, c.floor = n, n, n
	c.run.originBefore, c.run.lifeBefore = n, n // who ran these is not known
}

// Certify decides t and, when it commits, remembers what it touched. It keeps
// no reference to t's slices.
func (c *Certifier) Certify(t *Txn) Verdict {
	snap := t.Snapshot.normal()
	if snap.Low > c.last || len(snap.Extra) > 0 && snap.Extra[len(snap.Extra)-1] > c.last {
		return Verdict{Reason: ReasonInvalid}
	}
	wide := t.Direct || t.Wide
	// Before the horizon, and before conflicts, which may look at nothing below
	// it.
	if c.alone(t, snap.Low) {
		return c.commit(t, snap, wide)
	}
	// What was written up to the horizon is forgotten, so a snapshot without
	// all of it cannot be judged.
	if snap.Low < c.horizon {
		return Verdict{Reason: ReasonHorizon}
	}
	v := Verdict{}
	if c.conflicts(t, snap, t.Writes, 0, true, &v) ||
		c.conflicts(t, snap, t.Refs, 0, false, &v) ||
		c.conflicts(t, snap, t.Tables, tableDomain, wide, &v) {
		v.Reason = ReasonConflict
		return v
	}
	return c.commit(t, snap, wide)
}

// conflicts looks for a key touched since the snapshot.
func (c *Certifier) conflicts(t *Txn, snap Snapshot, keys []uint64, domain uint64, write bool, v *Verdict) bool {
	for _, k := range keys {
		s := c.keys.find(keyOf(k, domain))
		if s == nil {
			continue
		}
		if n := s.write; n > snap.Low && !snap.Contains(n) && !c.exempt(t, n) {
			v.Conflict, v.With = k, n
			return true
		}
		if !write {
			continue
		}
		// The last referrer stands for earlier ones only if they are covered.
		if n := s.ref &^ refCovered; n > snap.Low &&
			(s.ref&refCovered == 0 || !snap.Contains(n) && !c.exemptRef(t, n)) {
			v.Conflict, v.With = k, n
			return true
		}
	}
	return false
}

// exempt reports whether t cannot conflict with n, above the horizon, because
// of who ran them.
func (c *Certifier) exempt(t *Txn, n uint64) bool {
	o := c.owners[c.metaOf(n).owner]
	return o.origin == t.Origin && (o.direct || t.Direct || o.incarnation == t.Incarnation)
}

// exemptRef is exempt for a referrer that stands for earlier ones of its own
// incarnation too, which need not be direct statements.
func (c *Certifier) exemptRef(t *Txn, n uint64) bool {
	o := c.owners[c.metaOf(n).owner]
	return o.origin == t.Origin && (t.Direct || o.incarnation == t.Incarnation)
}

// commit gives t its number and records its keys.
func (c *Certifier) commit(t *Txn, snap Snapshot, wide bool) Verdict {
	c.last++
	n := c.last
	c.run.add(n, t)
	touched := len(t.Writes) + len(t.Refs) + len(t.Tables)
	c.keys.reserve(touched, c.horizon)
	own := c.ownerOf(t)
	c.meta = append(c.meta, txnMeta{owner: own, touches: uint32(touched) + 1})
	c.touches += uint64(touched) + 1

	// What was collected may still be unapplied on a member that lags, so the
	// horizon is a dependency too.
	dep := max(c.floor, c.horizon)
	dep = max(dep, c.write(t.Writes, 0, n))
	if wide {
		dep = max(dep, c.write(t.Tables, tableDomain, n))
	} else {
		dep = max(dep, c.refer(t.Tables, tableDomain, n, snap.Low, own))
	}
	dep = max(dep, c.refer(t.Refs, 0, n, snap.Low, own))
	if t.Serial || t.Direct {
		dep = n - 1
		c.floor = n
	} else if t.CommitOrder {
		dep = n - 1
	}
	if c.touches > c.maxTouches {
		c.overflow()
	}
	return Verdict{Commit: true, N: n, Dep: dep}
}

// write makes n the last writer of keys and returns the highest number that
// touched one of them before.
func (c *Certifier) write(keys []uint64, domain, n uint64) (dep uint64) {
	for _, k := range keys {
		s := c.keys.insert(keyOf(k, domain))
		if s.write != n {
			dep = max(dep, s.write)
			s.write = n
		}
		if r := s.ref &^ refCovered; r != n {
			dep = max(dep, r)
		}
	}
	return dep
}

// refer makes n the last referrer of keys and returns the highest number that
// wrote one of them before. It runs after write, which has seen the referrers
// that it overwrites.
func (c *Certifier) refer(keys []uint64, domain, n, low uint64, own uint32) (dep uint64) {
	for _, k := range keys {
		s := c.keys.insert(keyOf(k, domain))
		if s.write != n {
			dep = max(dep, s.write)
		}
		prev := s.ref &^ refCovered
		if prev == n {
			continue
		}
		// Covered: every earlier referrer is known to whoever knows n, either
		// because n's snapshot holds it or because both are of one incarnation.
		covered := prev <= c.horizon || prev <= low ||
			s.ref&refCovered != 0 && c.sameLife(c.metaOf(prev).owner, own)
		s.ref = n
		if covered {
			s.ref |= refCovered
		}
	}
	return dep
}

func (c *Certifier) sameLife(a, b uint32) bool {
	x, y := &c.owners[a], &c.owners[b]
	return x.origin == y.origin && x.incarnation == y.incarnation
}

// GC raises the horizon: no transaction whose snapshot lacks any of 1..upto
// will be accepted (but see alone), and what only these touched is forgotten. It must be driven
// by entries of the log. A smaller value than before changes nothing.
func (c *Certifier) GC(upto uint64) {
	upto = min(upto, c.last)
	for c.horizon < upto {
		c.touches -= uint64(c.meta[c.metaOff].touches)
		c.metaOff++
		c.horizon++
	}
	if c.metaOff > 1024 && c.metaOff > len(c.meta)/2 {
		c.meta = append(c.meta[:0], c.meta[c.metaOff:]...)
		c.metaOff = 0
	}
}

// overflow raises the horizon as far as the bound on memory asks for, and a
// quarter more so that transactions in flight do not hit a moving wall each
// time.
func (c *Certifier) overflow() {
	upto, touches := c.horizon, c.touches
	for i := c.metaOff; touches > c.maxTouches/4*3 && i < len(c.meta); i++ {
		touches -= uint64(c.meta[i].touches)
		upto++
	}
	c.GC(upto)
}

// metaOf returns the record of n, which must be above the horizon.
func (c *Certifier) metaOf(n uint64) txnMeta {
	return c.meta[c.metaOff+int(n-c.horizon-1)]
}

// ownerOf returns the index of t's owner, adding it when it is new. A group has
// a handful of live owners, so a scan from the newest is fastest.
func (c *Certifier) ownerOf(t *Txn) uint32 {
	o := owner{t.Origin, t.Incarnation, t.Direct}
	for i := len(c.owners) - 1; i >= 0; i-- {
		if c.owners[i] == o {
			return uint32(i)
		}
	}
	if len(c.owners) >= 256 {
		c.compactOwners()
	}
	c.owners = append(c.owners, o)
	return uint32(len(c.owners) - 1)
}

// compactOwners forgets owners that no live transaction has.
func (c *Certifier) compactOwners() {
	to := make(map[uint32]uint32)
	var kept []owner
	for i := c.metaOff; i < len(c.meta); i++ {
		old := c.meta[i].owner
		idx, ok := to[old]
		if !ok {
			idx = uint32(len(kept))
			kept = append(kept, c.owners[old])
			to[old] = idx
		}
		c.meta[i].owner = idx
	}
	c.owners = kept
}

// Clone returns an independent copy, for encoding while this one goes on.
func (c *Certifier) Clone() *Certifier {
	d := *c
	d.keys.slots = slices.Clone(c.keys.slots)
	d.meta = slices.Clone(c.meta[c.metaOff:])
	d.metaOff = 0
	d.owners = slices.Clone(c.owners)
	return &d
}
