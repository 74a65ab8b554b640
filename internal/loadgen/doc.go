// Package loadgen drives a MySQL server with short transactions and measures
// how many it commits and how long each one takes.
//
// It owns a command-phase client that costs as little CPU as a client can
// (the load shares its machine with the servers it measures), the workloads
// of the benchmark and a log-linear latency histogram. Connection set-up and
// authentication are left to go-sql-driver/mysql. It must never be used to
// prove that data are right: it counts, it does not remember what it wrote.
package loadgen
