// Package groupbinlog keeps the group binlog: every ordered transaction of the
// group, in order of its number N, as ordinary MySQL binary log files that
// mysqlbinlog reads.
//
// It owns a directory of files cohort-bin.000001, cohort-bin.000002, …, each
// made of the magic number, a format description, the previous GTIDs
// (group:1-N of all earlier files) and whole transactions. It must never
// decide anything: what is appended was ordered by the log. It must never
// guess either: a file that does not hold what it should is an error.
//
// # Authority
//
// The ordered log decides and the caller's state says how far the files are
// true: Sync makes them durable and returns the Position that the caller then
// stores atomically with its state. After a start the caller first cuts the
// store to its stored Position (Truncate) and appends again what the log
// replays. Hence a torn tail after a crash is normal: Open only notes it, and
// Append refuses until Truncate removed it. Anything unreadable at or below
// the stored Position is ErrCorrupt. After any failed append or sync the store
// refuses to write for ever, because what reached the disk is then unknown.
//
// # Determinism
//
// The bytes of a transaction depend only on N, its dependency, Meta, the body,
// the group's UUID and the first N of the file that it stands in. Log
// positions are 0 in every event, so one rendering serves the file and every
// reader.
//
// # Logical clock
//
// sequence_number counts from 1 in each file, and last_committed is the
// dependency in the same count. A dependency that lies before the file becomes
// the file's first transaction (0 for that one itself): 0 would make an applier
// run the transaction alone, and waiting for the first one implies waiting for
// everything before the file. Readers therefore report a dependency that is
// never lower than the one appended.
//
// # Readers
//
// A transaction is visible to readers once Append returns. The last few
// megabytes stay in memory, shared by all readers; what is older, or too large
// to keep, is read from the files. The bytes of recent appends reach the files
// in batches: nothing leaves the shared tail before it was written.
package groupbinlog
