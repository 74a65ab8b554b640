// Package failover measures how long a client cannot write when the primary of a
// group fails or hands over: of a cohort group, and of Group Replication behind
// MySQL Router from the same server programs.
//
// It owns the client that writes without pause, its record of answers, and the
// tables that come out. It must never take an error for an acknowledgement, nor
// report a figure for a run that did not recover within its limit.
package failover
