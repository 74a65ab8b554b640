// Package mysqlversion knows what differs between the versions of MySQL that a member
// runs beside. Whatever depends on the version asks here; whatever can be told by
// looking (a variable that is not there, a privilege that SHOW PRIVILEGES does not list)
// does not. It is pure: it must never talk to a server.
package mysqlversion

import "fmt"

// Version is a server's version as versioned comments spell it, 90704 for 9.7.4; 0
// where it is not known.
type Version int

// Oldest is what a member needs at least. XA transactions of clients survive a crash
// together with the binary log from it on (before it, a prepared transaction could be in
// one of InnoDB and the binary log alone), and it has every setting that is used:
// xa_detach_on_prepare is of 8.0.29, innodb_redo_log_capacity of 8.0.30.
const Oldest Version = 80030

// renamed is the first version that says BINARY LOG where all before it say MASTER; the
// old words are gone from 8.4 on.
const renamed Version = 80200

// Parse reads a version's text, as in @@version or a greeting: "8.0.36-0ubuntu0.22.04.1",
// "9.7.4". What follows the third number is not looked at.
func Parse(text string) Version {
	var major, minor, patch int
	if _, err := fmt.Sscanf(text, "%d.%d.%d", &major, &minor, &patch); err != nil ||
		min(major, minor, patch) < 0 || max(major, minor, patch) > 99 {
		return 0
	}
	return Version(major*10000 + minor*100 + patch)
}

// String is the version as 9.7.4.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100) }

// BinlogStatus is the statement that tells where the binary log ends.
func (v Version) BinlogStatus() string {
	if v < renamed {
		return "SHOW MASTER STATUS"
	}
	return "SHOW BINARY LOG STATUS"
}

// ResetBinlogs is the statement that empties the binary log and gtid_executed. Where the
// version is not known it is the newer one.
func (v Version) ResetBinlogs() string {
	if v != 0 && v < renamed {
		return "RESET MASTER"
	}
	return "RESET BINARY LOGS AND GTIDS"
}
