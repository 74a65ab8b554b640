// Package certify decides whether a transaction may commit: it compares the
// rows a transaction wrote with those written since its snapshot, gives it the
// next group transaction number, and says which earlier transaction it depends
// on, so that members may apply independent ones in parallel.
//
// It owns the certification map (who wrote a key last), its garbage collection
// and its encoding. It must never do I/O, read a clock, or depend on anything
// but its inputs: every member runs it on the same entries of the ordered log
// and must come to the same verdicts.
package certify
