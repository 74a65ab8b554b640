package failover

import (
	"errors"
	"time"

	"cohort/internal/loadgen"
)

// outcome is what the client knows about a write.
type outcome int

const (
	unknown outcome = iota // no answer, or one that settles nothing
	acked
	refused // answered with an error that promises that nothing was written
)

// refusals promise that nothing was written: a conflict, a deadlock, or a server
// that does not take writes.
var refusals = map[uint16]bool{1213: true, 3100: true, 3101: true, 1290: true, 1836: true}

// lostConnection is the number that clients give to an error that no server sent.
const lostConnection = 2013

func classify(err error) (outcome, uint16) {
	var se *loadgen.ServerError
	switch {
	case err == nil:
		return acked, 0
	case !errors.As(err, &se):
		return unknown, lostConnection
	case refusals[se.Number]:
		return refused, se.Number
	default:
		return unknown, se.Number
	}
}

// write is one INSERT; its id is its place in the record.
type write struct {
	begun, answered time.Time
	outcome         outcome
	errno           uint16
}

// gap is the longest time without an acknowledgement between from and until, the
// last acknowledgement before from included; ok is false when until came without
// one after from. Writes are in the order of their answers.
func gap(writes []write, from, until time.Time) (longest time.Duration, ok bool) {
	last := from
	for _, w := range writes {
		switch {
		case w.outcome != acked:
		case w.answered.After(until):
			return longest, ok
		case !w.answered.After(from):
			last = w.answered
		default:
			longest, ok = max(longest, w.answered.Sub(last)), true
			last = w.answered
		}
	}
	return longest, ok
}

// Contents are how often each id is found on one member.
type Contents struct {
	Member string
	Count  map[int64]int
}

// Audit is how a member's rows differ from what was answered.
type Audit struct {
	Acked   int // acknowledged writes
	Refused int // answered with a definite refusal
	Unknown int // neither
	Written int // of the unknown ones: found on the first member

	Lost    int // acknowledged and missing on some member
	Doubled int // more than once on some member
	Ghosts  int // refused or never made, and there
	Differ  int // ids that members do not agree on
}

// Wrong says whether anything was found that must not be.
func (a Audit) Wrong() bool { return a.Lost+a.Doubled+a.Ghosts+a.Differ > 0 }

// audit holds every member to the answers. Ids are 1 to len(writes).
func audit(writes []write, members []Contents) Audit {
	var a Audit
	for i, w := range writes {
		id := int64(i + 1)
		var lost, doubled, there, differ bool
		for j, m := range members {
			n := m.Count[id]
			lost = lost || n == 0
			doubled = doubled || n > 1
			there = there || n > 0
			differ = differ || n != members[0].Count[id]
			if j == 0 && n > 0 && w.outcome == unknown {
				a.Written++
			}
		}
		switch w.outcome {
		case acked:
			a.Acked++
			a.Lost += one(lost)
		case refused:
			a.Refused++
			a.Ghosts += one(there)
		default:
			a.Unknown++
		}
		a.Doubled += one(doubled)
		a.Differ += one(differ)
	}
	strange := map[int64]bool{}
	for _, m := range members {
		for id := range m.Count {
			if id < 1 || id > int64(len(writes)) {
				strange[id] = true
			}
		}
	}
	a.Ghosts += len(strange)
	return a
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
