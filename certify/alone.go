package certify

// run says who ordered the latest numbers: all above originBefore are of
// origin, all above lifeBefore of its incarnation. lifeBefore is never below
// originBefore. Collecting knowledge does not touch it.
type run struct {
	origin, originBefore    uint64
	incarnation, lifeBefore uint64
}

// add notes that n, the number after all others, is t's.
func (r *run) add(n uint64, t *Txn) {
	switch {
	case t.Origin != r.origin:
		*r = run{origin: t.Origin, originBefore: n - 1, incarnation: t.Incarnation, lifeBefore: n - 1}
	case t.Incarnation != r.incarnation:
		r.incarnation, r.lifeBefore = t.Incarnation, n-1
	}
}

// alone reports whether everything ordered since a snapshot of 1..low comes
// from those whose transactions t never conflicts with (see Certifier): for a
// direct statement its origin, otherwise its own incarnation.
//
// Such a transaction commits without a look at what others touched, however
// much of that was collected. Proof: a conflict needs some n outside t's
// snapshot that is not exempt. n > low, since the snapshot holds 1..low; so n
// is in the run, and thus exempt. The map, had nothing been collected, would
// have let t pass too or refused it needlessly, so what later ones conclude
// from it stays true: those that are alone do not ask it, the others have
// everything up to the horizon in their snapshots. And t is not applied too
// early anywhere: what it may depend on below the horizon is covered by the
// horizon being a dependency of all (see commit).
//
// Without this rule the member that runs everything could be refused, for good
// where the statement is direct: the horizon passes it while it is away, or by
// the bound on memory while the proposal waits behind bulk loads.
func (c *Certifier) alone(t *Txn, low uint64) bool {
	if t.Origin != c.run.origin {
		return false
	}
	if t.Direct {
		return low >= c.run.originBefore
	}
	return t.Incarnation == c.run.incarnation && low >= c.run.lifeBefore
}
