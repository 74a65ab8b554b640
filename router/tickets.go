package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"cohort/consensus/state"
)

// ErrClosed is the cause of a wait that ends because this member shuts down;
// the outcome of what was waited for is unknown to the waiter.
var ErrClosed = errors.New("router: this member is shutting down")

// ErrUnknown says that what became of a transaction cannot be known any more: this
// member was away, and the group has forgotten.
var ErrUnknown = errors.New("router: this member was away from the group, which has forgotten the outcome meanwhile")

// ErrLeft is the cause of a wait that ends because this member has left the group,
// or lost its majority, and cannot learn what the group decides.
var ErrLeft = errors.New("router: this member has left the group")

// standing is the time that this member is in the group.
type standing struct {
	context.Context
	end context.CancelFunc
}

func newStanding() *standing {
	ctx, cancel := context.WithCancel(context.Background())
	return &standing{ctx, cancel}
}

// Abandon ends every wait for an outcome with ErrLeft, also those that begin
// later, until Resume.
func (r *Router) Abandon() { r.standing.Load().end() }

// Resume ends what Abandon began. Calls of both must not overlap.
func (r *Router) Resume() {
	if r.standing.Load().Err() != nil {
		r.standing.Store(newStanding())
	}
}

// Outcome is what became of a transaction or of a direct statement.
type Outcome struct {
	// Committed says that the group ordered it and that it is visible on the
	// primary's mysqld. Otherwise it is certainly not committed anywhere.
	Committed bool
	// N is its number within the group; 0 when not committed.
	N uint64
	// GTID is group:N.
	GTID string
	// Errno, SQLState and Message say why it was aborted.
	Errno    uint16
	SQLState string
	Message  string
}

// Ticket is the interest of one session in one verdict.
type Ticket struct {
	table *ticketTable
	key   string
	// incarnation of the primary that the xid was made under; 0 for a direct
	// statement, which no fence can abort.
	incarnation uint64
	// primary and epoch are those of the view that the ticket was made in.
	primary, epoch uint64
	decided        chan struct{} // closed by the table, once, after verdict is set
	next           *Ticket       // another one for the same key, under table.mu
	verdict        state.Decision
	unknown        bool // in place of verdict
	settle         func(context.Context, state.Decision) (Outcome, error)
	prepared       func(xid string)
}

// Prepared says that XA PREPARE was answered: the verdict must not be carried out
// before (see committer.Gate). A session that cannot say so need not.
func (t *Ticket) Prepared() {
	if t.prepared != nil {
		t.prepared(t.key)
	}
}

// Wait returns the outcome once it is decided and, if committed, visible on
// the primary's mysqld. An error means that the outcome is not known; it ends
// the interest too.
func (t *Ticket) Wait(ctx context.Context) (Outcome, error) {
	select {
	case <-t.decided:
		return t.told(ctx)
	case <-ctx.Done():
		t.Cancel()
		return Outcome{}, fmt.Errorf("wait for the verdict of %q: %w", t.key, context.Cause(ctx))
	case <-t.table.closed:
		t.Cancel()
		return Outcome{}, ErrClosed
	case <-t.table.standing.Load().Done():
		select {
		case <-t.decided:
			return t.told(ctx)
		default:
		}
		t.Cancel()
		return Outcome{}, ErrLeft
	}
}

// told is what a decided ticket says.
func (t *Ticket) told(ctx context.Context) (Outcome, error) {
	if t.unknown {
		return Outcome{}, fmt.Errorf("%w: %q", ErrUnknown, t.key)
	}
	return t.settle(ctx, t.verdict)
}

// Verdict returns what the log decided, whether it is visible anywhere or not.
func (t *Ticket) Verdict(ctx context.Context) (committed bool, n uint64, err error) {
	select {
	case <-t.decided:
		if t.unknown {
			return false, 0, fmt.Errorf("%w: %q", ErrUnknown, t.key)
		}
		return t.verdict.Committed, t.verdict.N, nil
	case <-ctx.Done():
		t.Cancel()
		return false, 0, fmt.Errorf("wait for the verdict of %q: %w", t.key, context.Cause(ctx))
	case <-t.table.closed:
		t.Cancel()
		return false, 0, ErrClosed
	}
}

// Cancel withdraws the interest; needed only when Wait is not called. It is
// safe to call at any time.
func (t *Ticket) Cancel() { t.table.remove(t) }

// ticketTable joins verdicts of the log with those that wait for them. Several
// may wait for one: a session and, after a crash of mysqld, the start-up
// sequence wait for the same direct statement.
type ticketTable struct {
	mu     sync.Mutex
	open   map[string]*Ticket // the first of a list linked by next
	closed chan struct{}
	// standing is the router's.
	standing *atomic.Pointer[standing]
}

func newTicketTable(s *atomic.Pointer[standing]) *ticketTable {
	return &ticketTable{open: make(map[string]*Ticket), closed: make(chan struct{}), standing: s}
}

func (tt *ticketTable) add(t *Ticket) *Ticket {
	t.table, t.decided = tt, make(chan struct{})
	tt.mu.Lock()
	t.next = tt.open[t.key]
	tt.open[t.key] = t
	tt.mu.Unlock()
	return t
}

// decide hands a verdict to whoever waits for it; the first one is final.
func (tt *ticketTable) decide(key string, d state.Decision) {
	tt.mu.Lock()
	t := tt.open[key]
	delete(tt.open, key)
	tt.mu.Unlock()
	t.tell(d)
}

// tell hands a verdict to a list that is no longer in the table: nobody else
// changes it.
func (t *Ticket) tell(d state.Decision) {
	for ; t != nil; t = t.next {
		t.verdict = d
		close(t.decided)
	}
}

// fence aborts every open ticket on a transaction that a change of the primary
// covers: the log rejects what it has not decided by now.
func (tt *ticketTable) fence(covers func(*Ticket) bool, d state.Decision) {
	tt.mu.Lock()
	var hit []*Ticket
	for key, first := range tt.open {
		// One that the fence covers says that nobody can commit the transaction;
		// so it holds for all tickets of the key.
		for t := first; t != nil; t = t.next {
			if t.incarnation != 0 && covers(t) {
				hit = append(hit, first)
				delete(tt.open, key)
				break
			}
		}
	}
	tt.mu.Unlock()
	for _, t := range hit {
		t.tell(d)
	}
}

// review has look say of each open ticket what was decided, nil for nothing, and
// whether the outcome is still to come where nothing was.
func (tt *ticketTable) review(look func(*Ticket) (d *state.Decision, open bool)) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	for key, first := range tt.open {
		d, open := look(first)
		if d == nil && open {
			continue
		}
		delete(tt.open, key)
		for t := first; t != nil; t = t.next {
			if d == nil {
				t.unknown = true
			} else {
				t.verdict = *d
			}
			close(t.decided)
		}
	}
}

func (tt *ticketTable) remove(t *Ticket) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	first := tt.open[t.key]
	switch {
	case first == nil:
	case first == t && t.next == nil:
		delete(tt.open, t.key)
	case first == t:
		tt.open[t.key] = t.next
	default:
		for p := first; p.next != nil; p = p.next {
			if p.next == t {
				p.next = t.next
				break
			}
		}
	}
}

func (tt *ticketTable) close() {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	select {
	case <-tt.closed:
	default:
		close(tt.closed)
	}
}
