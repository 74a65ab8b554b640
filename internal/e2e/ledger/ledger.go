package ledger

import (
	"errors"
	"fmt"
	"sync"

	"cohort/internal/loadgen"
)

// Kind is a kind of write.
type Kind string

// The kinds of writes.
const (
	Autocommit Kind = "autocommit" // one INSERT
	Prepared   Kind = "prepared"   // one INSERT by a statement prepared once for each connection
	Multi      Kind = "multi"      // BEGIN, two INSERTs and an UPDATE, COMMIT
	Large      Kind = "large"      // megabytes in one transaction
	DDL        Kind = "ddl"        // CREATE TABLE
	Locked     Kind = "locked"     // an INSERT under LOCK TABLES
	Call       Kind = "call"       // a CALL of a procedure that commits by itself
	User       Kind = "user"       // CREATE USER; needs a privileged account
)

// Kinds are those that an account with privileges on its own schema may write.
var Kinds = []Kind{Autocommit, Multi, Large, DDL, Locked, Call}

// Outcome is what the client knows about a write.
type Outcome int

// Outcomes.
const (
	Unknown Outcome = iota // no answer, or one that settles nothing
	Acked                  // answered with success
	Refused                // answered with a definite abort
)

// Account is who writes, and where.
type Account struct{ User, Schema string }

// Write is one write and its outcome.
type Write struct {
	Writer  int
	Seq     int64
	Outcome Outcome
	Err     error // nil when acknowledged
}

// Writer describes one of the concurrent writers.
type Writer struct {
	ID      int
	Kind    Kind
	Account Account
	Member  int // index of the member that it connects to
}

// Ledger remembers every write.
type Ledger struct {
	Writers []Writer
	// Stay has writers go on with their connection after an error that the
	// server answered; otherwise they open another one. Set it before Run.
	Stay bool

	largeRows int

	mu     sync.Mutex
	writes map[int][]Write // by writer, in order of Seq
	acked  map[Kind]int
	losses map[int][]error // by writer: what ended its connections
}

// New makes a ledger with one writer for each account, kind and member index
// in 0..members-1; User writers for the first account only.
func New(accounts []Account, kinds []Kind, members int) *Ledger {
	l := &Ledger{largeRows: 8, writes: map[int][]Write{}, acked: map[Kind]int{}, losses: map[int][]error{}}
	for i, account := range accounts {
		for _, kind := range kinds {
			if kind == User && i > 0 {
				continue
			}
			// Large and direct writes need one writer each; members take turns.
			from, to := 0, members
			if kind != Autocommit && kind != Prepared && kind != Multi {
				from = len(l.Writers) % members
				to = from + 1
			}
			for m := from; m < to; m++ {
				l.Writers = append(l.Writers, Writer{ID: len(l.Writers) + 1, Kind: kind, Account: account, Member: m})
			}
		}
	}
	return l
}

func (l *Ledger) record(w Writer, seq int64, err error) {
	outcome := Acked
	if err != nil {
		outcome = classify(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes[w.ID] = append(l.writes[w.ID], Write{Writer: w.ID, Seq: seq, Outcome: outcome, Err: err})
	if outcome == Acked {
		l.acked[w.Kind]++
	}
}

// Errors returns the errors that writers of a kind were answered or met.
func (l *Ledger) Errors(k Kind) []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, w := range l.Writers {
		for _, write := range l.writes[w.ID] {
			if w.Kind == k && write.Err != nil {
				errs = append(errs, write.Err)
			}
		}
	}
	return errs
}

// Losses returns what ended connections of a kind's writers, one error for each
// connection.
func (l *Ledger) Losses(k Kind) []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, w := range l.Writers {
		if w.Kind == k {
			errs = append(errs, l.losses[w.ID]...)
		}
	}
	return errs
}

func (l *Ledger) lose(w Writer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.losses[w.ID] = append(l.losses[w.ID], err)
}

// Acked counts acknowledged writes of a kind.
func (l *Ledger) Acked(k Kind) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked[k]
}

// Progress is the number of acknowledged writes by writer.
func (l *Ledger) Progress() map[int]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	progress := map[int]int{}
	for _, w := range l.Writers {
		for _, write := range l.writes[w.ID] {
			if write.Outcome == Acked {
				progress[w.ID]++
			}
		}
	}
	return progress
}

// Summary is one line for a test's log.
func (l *Ledger) Summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var acked, refused, unknown int
	errnos := map[uint16]int{}
	for _, writes := range l.writes {
		for _, w := range writes {
			switch w.Outcome {
			case Acked:
				acked++
			case Refused:
				refused++
			default:
				unknown++
			}
			var se *loadgen.ServerError
			if errors.As(w.Err, &se) {
				errnos[se.Number]++
			}
		}
	}
	return fmt.Sprintf("%d acknowledged %v, %d refused, %d unknown, errors %v", acked, l.acked, refused, unknown, errnos)
}

// classify says which errors promise that nothing was written: a deadlock, a
// certification conflict, a transaction above the size limit. Everything else,
// in particular a lost connection, promises nothing.
func classify(err error) Outcome {
	var se *loadgen.ServerError
	if errors.As(err, &se) {
		switch se.Number {
		case 1213, 3100, 3101:
			return Refused
		}
	}
	return Unknown
}
