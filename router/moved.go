package router

// Moved reports whether sessions on b have to move: the group has appointed
// another primary since, or the same member anew.
func (r *Router) Moved(b Backend) bool {
	v := r.opt.Log.View()
	m, ok := v.Member(v.Primary)
	return ok && (m.Info.UUID != b.MemberUUID || v.Epoch != b.Epoch)
}
