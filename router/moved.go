package router

// Place says where the sessions of this member run.
type Place int32

const (
	// OnPrimary is wherever the group's primary is.
	OnPrimary Place = iota
	// OnNone is nowhere: the member is leaving or entering the group and sessions wait.
	OnNone
	// OnLocal is the member's own mysqld, which takes no writes: the member is out
	// of the group, where it can be looked at and told to START.
	OnLocal
	// OnAdrift is the member's own mysqld too, for nothing but to administer the group
	// (Adrift): there is no majority, and the primary cannot be reached.
	OnAdrift
)

// SetOpen says in which epoch the local mysqld takes writes as the primary's, 0 for
// none. A member that is cut off from the group goes on seeing itself as the open
// primary, also after its mysqld, or its process, began anew and was fenced: what the
// log says is not enough to send sessions there.
func (r *Router) SetOpen(epoch uint64) {
	if r.open.Swap(epoch) == epoch {
		return
	}
	r.announce(false)
}

// SetPlace says where sessions run from now on; those elsewhere have to move.
func (r *Router) SetPlace(p Place) {
	if Place(r.place.Swap(int32(p))) == p {
		return
	}
	r.announce(false)
}

// Suspend has sessions wait that run on the member's own mysqld since it is out of the
// group, and reports whether that is so.
func (r *Router) Suspend() bool {
	if !r.place.CompareAndSwap(int32(OnLocal), int32(OnNone)) {
		return false
	}
	r.announce(false)
	return true
}

// SetAdrift says whether sessions have nowhere to run because the group is out of
// reach, unless this member is out of the group.
func (r *Router) SetAdrift(adrift bool) {
	from, to := OnPrimary, OnAdrift
	if !adrift {
		from, to = to, from
	}
	if !r.place.CompareAndSwap(int32(from), int32(to)) {
		return
	}
	r.announce(false)
}

// Adrift reports whether sessions run here only to administer the group. What the
// local mysqld holds may be old, and nobody can say how old: it is not read.
func (r *Router) Adrift() bool { return Place(r.place.Load()) == OnAdrift }

// Moved reports whether sessions on b have to move: the group has appointed
// another primary since, or the same member anew, or this member left or joined
// the group, or its own mysqld is the open primary's no more.
func (r *Router) Moved(b Backend) bool {
	switch local, place := b.Local && b.Epoch == 0, Place(r.place.Load()); {
	case place == OnAdrift && local:
		return false
	case place == OnAdrift:
		// Who has a connection to the primary's mysqld is better off with it.
	case place == OnNone:
		return true
	case place == OnLocal:
		return !local
	case local, b.Local && b.Epoch != r.open.Load():
		return true
	}
	v := r.opt.Log.View()
	m, ok := v.Member(v.Primary)
	return ok && (m.Info.UUID != b.MemberUUID || v.Epoch != b.Epoch)
}
