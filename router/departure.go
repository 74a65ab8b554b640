package router

import (
	"strconv"
	"time"
)

// Departure is what a member knows that left the group in good order: whatever the
// group's primaries showed before At is among the first N transactions. That stays
// true. The zero value knows nothing.
type Departure struct {
	At time.Time
	N  uint64
}

// GTIDs is the set of these transactions, "" for none.
func (d Departure) GTIDs(group string) string {
	if d.N == 0 {
		return ""
	}
	return group + ":1-" + strconv.FormatUint(d.N, 10)
}

// SetDeparture keeps the latest departure; it is called before sessions may run on
// the local mysqld.
func (r *Router) SetDeparture(d Departure) { r.departure.Store(&d) }

// Departure returns the latest, and its transactions as a GTID set.
func (r *Router) Departure() (at time.Time, gtids string) {
	d := r.departure.Load()
	if d == nil {
		return time.Time{}, ""
	}
	return d.At, d.GTIDs(r.opt.GroupName)
}
