// Package bench compares, in one run and on one machine, a single mysqld, a
// cohort group and a Group Replication group from the same server programs.
//
// It owns the order of the measurements, the counters read at the edges of
// each window and the tables that come out. It must never load two systems at
// once, and never count a transaction that some member had not applied when
// the window ended.
package bench
