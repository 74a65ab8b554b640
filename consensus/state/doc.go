// Package state is the group state machine: what every member makes of the
// entries of the ordered log. It owns the formats of these entries and the
// state they build up: members and their incarnations, the primary and its
// epoch, the certification map, group transaction numbers, verdicts.
//
// It is a pure function: no I/O, no clock, no randomness, nothing local. What
// has to happen outside (append to the group binlog, spool a fragment, tell
// waiters) is handed to a Sink in the order of the log. Two members that apply
// the same entries hold states that encode to the same bytes.
package state
