// Package ledger writes through a group under faults, remembers what was
// answered to every write, and afterwards holds each member to it.
//
// It owns the tables it creates and the record of outcomes. Its rule: a write
// that was acknowledged is there exactly once on every member; one that was
// answered with a definite abort is nowhere; any other may be either, but the
// same everywhere and never in part. It must never take an error for an
// acknowledgement, nor retry a write under the same number.
package ledger
