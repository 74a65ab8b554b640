// Package peergr runs the real Group Replication: the servers that cohort is
// measured and compared against, from the same programs.
//
// It owns the processes and directories that it starts (three servers in
// single-primary mode on the loopback interface and, on request, MySQL Router
// in front of them). It must never be imported by anything that serves: it is
// for benchmarks and comparison tests.
package peergr
