// Package router knows, on one member, which mysqld serves a session, what the
// log decided about each session's transaction, and what is visible where.
//
// It follows the decisions of the ordered log and the applied sets of all
// members, and writes no data. It never decides about the group.
package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"cohort/consensus/state"
	"cohort/internal/applied"
	"cohort/internal/committer"
)

// ErrNoPrimary says that the group has no primary that takes sessions.
var ErrNoPrimary = errors.New("router: the group has no primary that is ready for sessions")

// Log is what the router reads of the ordered log.
type Log interface {
	View() *state.View
	// Outcome and DirectOutcome return verdicts of the recent past.
	Outcome(xid string) (state.Outcome, bool)
	DirectOutcome(localGTID string) (state.Outcome, bool)
}

// Options configure a Router.
type Options struct {
	// Self is this member's replica id, SelfUUID its mysqld's server_uuid.
	Self     uint64
	SelfUUID string
	// Socket is the local mysqld's unix socket.
	Socket string
	// GroupName is the UUID of the group's GTIDs.
	GroupName string
	Log       Log
	Logger    zerolog.Logger
}

// Backend is a mysqld that sessions run on.
type Backend struct {
	Network, Addr string
	Local         bool
	MemberUUID    string
	// Epoch is the one that it is the primary of, 0 where this member is out of the
	// group and mysqld its own. A session may stay only as
	// long as MemberUUID and Epoch are the present primary's.
	Epoch uint64
}

// Router is safe for concurrent use.
type Router struct {
	opt     Options
	xids    *ticketTable
	directs *ticketTable
	counter atomic.Uint64
	place   atomic.Int32  // a Place
	open    atomic.Uint64 // see SetOpen
	direct  atomic.Uint64 // number of the last direct statement ordered
	// standing ends when this member has left the group, see Abandon.
	standing atomic.Pointer[standing]
	// departure is the latest, nil for none.
	departure atomic.Pointer[Departure]
	lease     lease

	mu       sync.Mutex
	trackers map[uint64]*applied.Tracker
	changed  chan struct{} // closed and replaced when the view changes
	// reign ends, with endReign, when a primary is appointed.
	reign    context.Context
	endReign context.CancelFunc
	origin   origin
	tell     func(primary uint64, xid string) // nil: nobody is told
	guest    func(n uint64)                   // nil: nobody is told
}

// origin is the present life of the local mysqld as one whose transactions are
// decided: where the verdicts on them go.
type origin struct {
	incarnation uint64
	verdicts    Verdicts
}

// Verdicts carries out verdicts on the local mysqld; committer.Gate is one.
type Verdicts interface {
	// Submit takes verdicts. It must not block.
	Submit(...committer.Job)
	// Prepared says that the XA PREPARE of xid was answered.
	Prepared(xid string)
}

// New returns a router.
func New(opt Options) *Router {
	r := &Router{opt: opt, trackers: make(map[uint64]*applied.Tracker), changed: make(chan struct{})}
	r.xids, r.directs = newTicketTable(&r.standing), newTicketTable(&r.standing)
	r.standing.Store(newStanding())
	r.reign, r.endReign = context.WithCancel(context.Background())
	return r
}

// Close ends every wait with ErrClosed.
func (r *Router) Close() {
	r.xids.close()
	r.directs.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.trackers {
		t.Close(ErrClosed)
	}
}

// Tracker returns the applied set of a member: what is visible on its mysqld,
// as far as this member knows.
func (r *Router) Tracker(id uint64) *applied.Tracker {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.trackers[id]
	if t == nil {
		t = applied.New(applied.Set{})
		r.trackers[id] = t
	}
	return t
}

// SetOrigin says where verdicts on transactions of this member's incarnation
// go; nil ends that. Verdicts of other incarnations are settled by the start-up
// sequence.
func (r *Router) SetOrigin(incarnation uint64, verdicts Verdicts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.origin = origin{incarnation, verdicts}
}

// SetTeller says how another member, the primary, is told that the XA PREPARE of
// xid was answered; tell must not block, and may fail silently.
func (r *Router) SetTeller(tell func(primary uint64, xid string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell = tell
}

// SetGuest says who is told of direct statements that another member ran and that
// were ordered; told must not block, nil ends it.
func (r *Router) SetGuest(told func(n uint64)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.guest = told
}

// Prepared is told which XA PREPAREs on the local mysqld were answered, by
// sessions of this member and, through SetTeller, of others.
func (r *Router) Prepared(xid string) {
	r.mu.Lock()
	v := r.origin.verdicts
	r.mu.Unlock()
	if v != nil {
		v.Prepared(xid)
	}
}

// tellPrepared brings the word to the member that carries out the verdict.
func (r *Router) tellPrepared(xid string) {
	primary := r.opt.Log.View().Primary
	if primary == r.opt.Self {
		r.Prepared(xid)
		return
	}
	r.mu.Lock()
	tell := r.tell
	r.mu.Unlock()
	if tell != nil {
		tell(primary, xid)
	}
}

// Ordered takes decisions in the order of the log. It does not block.
func (r *Router) Ordered(ds []state.Decision) {
	r.mu.Lock()
	o, guest := r.origin, r.guest
	r.mu.Unlock()
	var jobs []committer.Job
	viewChanged, appointed := false, false
	for i := range ds {
		d := &ds[i]
		mine := d.Origin == r.opt.Self && o.verdicts != nil && d.Incarnation == o.incarnation && (!d.Repeated || d.Kind == state.KindTxn && !d.Committed)
		switch d.Kind {
		case state.KindTxn:
			if mine {
				jobs = append(jobs, verdictJob(d))
			}
			r.xids.decide(d.XID, *d)
		case state.KindDirect:
			if mine && d.Committed {
				jobs = append(jobs, committer.Job{Kind: committer.Empty, N: d.N, LocalGTID: d.LocalGTID})
			}
			if d.Committed {
				r.direct.Store(d.N)
				if d.Origin != r.opt.Self && guest != nil {
					guest(d.N)
				}
			}
			r.directs.decide(d.LocalGTID, *d)
		case state.KindAbort:
			r.xids.decide(d.XID, *d)
		case state.KindJoin:
			viewChanged = true
			// Not by the view, which may be later than this decision: verdicts on
			// what it does not concern may follow.
			r.xids.fence(func(t *Ticket) bool { return t.primary == d.Origin && t.incarnation < d.Incarnation }, *fenced(d, state.ReasonFenced))
		case state.KindPrimary:
			viewChanged, appointed = true, true
			// What the former primary did not get ordered by now is of an epoch
			// that has ended.
			r.xids.fence(func(t *Ticket) bool { return t.epoch < d.Epoch }, *fenced(d, state.ReasonEpoch))
		case state.KindBootstrap, state.KindState, state.KindForce, state.KindWeight:
			viewChanged = true
		}
	}
	if len(jobs) > 0 {
		o.verdicts.Submit(jobs...)
	}
	if viewChanged {
		r.announce(appointed)
	}
}

// announce wakes who waits for a change of the view, and of the primary.
func (r *Router) announce(appointed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
	if appointed {
		r.endReign()
		r.reign, r.endReign = context.WithCancel(context.Background())
	}
}

func verdictJob(d *state.Decision) committer.Job {
	if d.Committed {
		return committer.Job{Kind: committer.Commit, XID: d.XID, N: d.N}
	}
	return committer.Job{Kind: committer.Rollback, XID: d.XID}
}

// fenced is the verdict that a new life of the primary, or the appointment of
// another one, implies for what was not ordered before.
func fenced(by *state.Decision, why state.Reason) *state.Decision {
	d := *by
	d.Committed, d.Reason, d.Errno, d.N = false, why, errTransactionRollback, 0
	return &d
}

// LastDirect is the number of the last direct statement that was ordered since
// this process began: only those change definitions. 0 if there was none.
func (r *Router) LastDirect() uint64 { return r.direct.Load() }

// Changed returns a channel that is closed at the next change of the view.
func (r *Router) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Primary returns the mysqld that takes writes. It waits, up to ctx, for one
// that is ready: an appointed member has to apply what was ordered before, and
// says in the log when it is open.
func (r *Router) Primary(ctx context.Context) (Backend, error) {
	for {
		changed := r.Changed()
		v := r.opt.Log.View()
		place := Place(r.place.Load())
		if place == OnLocal || place == OnAdrift {
			return Backend{Network: "unix", Addr: r.opt.Socket, Local: true, MemberUUID: r.opt.SelfUUID}, nil
		}
		if m, ok := v.Member(v.Primary); ok && place == OnPrimary && m.State == state.StateOnline && m.OpenEpoch == v.Epoch {
			if m.ID != r.opt.Self {
				return Backend{Network: "tcp", Addr: m.Info.MysqldAddress, MemberUUID: m.Info.UUID, Epoch: v.Epoch}, nil
			}
			if r.open.Load() == v.Epoch {
				return Backend{Network: "unix", Addr: r.opt.Socket, Local: true, MemberUUID: m.Info.UUID, Epoch: v.Epoch}, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Backend{}, fmt.Errorf("%w: %w", ErrNoPrimary, context.Cause(ctx))
		case <-r.xids.closed:
			return Backend{}, ErrClosed
		}
	}
}

// NewXID makes an xid under the primary's present incarnation. Should the
// primary be another member, or another life, by the time it is prepared, its
// origin refuses it: so a fence decides every xid it covers. A session that gets
// an xid looks afterwards whether it still runs on the primary: if not, nobody
// can decide the xid before the present primary ends.
func (r *Router) NewXID() string {
	v := r.opt.Log.View()
	m, _ := v.Member(v.Primary)
	return NewXID(r.opt.SelfUUID, m.Incarnation, r.counter.Add(1))
}

// Expect registers interest in the verdict on xid; call it before XA PREPARE
// is sent. Where that is on another member, it is told that somebody waits here.
func (r *Router) Expect(xid string) *Ticket {
	x, err := ParseXID(xid)
	if err != nil {
		// Not ours, so the log never decides it: it can only be cancelled.
		x.Incarnation = 0
	}
	before := r.opt.Log.View()
	r.Tracker(before.Primary).Announce()
	t := r.xids.add(&Ticket{key: xid, incarnation: x.Incarnation, primary: before.Primary, epoch: before.Epoch,
		settle: r.settle, prepared: r.tellPrepared})
	// What was decided before the ticket was there has to be looked up. The view
	// comes first: verdicts read after it include all that precede its fence, so
	// an xid without one is certainly rejected.
	v := r.opt.Log.View()
	m, ok := v.Member(v.Primary)
	switch o, decided := r.opt.Log.Outcome(xid); {
	case decided:
		r.xids.decide(xid, decisionOf(o, xid, ""))
	case x.Incarnation == 0 || !ok:
	case v.Epoch != before.Epoch:
		r.xids.decide(xid, *fenced(&state.Decision{Kind: state.KindPrimary, Origin: v.Primary, Epoch: v.Epoch}, state.ReasonEpoch))
	case x.Incarnation != m.Incarnation:
		// Made under an earlier life of the primary, or under another primary: an
		// incarnation is given to one life of one member.
		r.xids.decide(xid, *fenced(&state.Decision{Kind: state.KindJoin, Origin: m.ID, Incarnation: m.Incarnation}, state.ReasonFenced))
	}
	return t
}

// ExpectDirect registers interest in a statement that committed on the primary
// under a local GTID, whether the log has ordered it yet or not.
func (r *Router) ExpectDirect(localGTID string) *Ticket {
	r.Tracker(r.opt.Log.View().Primary).Announce()
	t := r.directs.add(&Ticket{key: localGTID, settle: r.settle})
	if o, ok := r.opt.Log.DirectOutcome(localGTID); ok {
		r.directs.decide(localGTID, decisionOf(o, "", localGTID))
	}
	return t
}

func decisionOf(o state.Outcome, xid, localGTID string) state.Decision {
	return state.Decision{XID: xid, LocalGTID: localGTID, Origin: o.Origin, Incarnation: o.Incarnation,
		N: o.N, Committed: o.Committed, Errno: o.Errno, Reason: o.Reason}
}

// settle turns a verdict into what the session is told, once it is visible on
// the primary that there is then.
func (r *Router) settle(ctx context.Context, d state.Decision) (Outcome, error) {
	if !d.Committed {
		return aborted(d), nil
	}
	if err := r.visible(ctx, d.N); err != nil {
		return Outcome{}, fmt.Errorf("transaction %d is ordered, but not yet visible on the primary: %w", d.N, err)
	}
	return Outcome{Committed: true, N: d.N, GTID: committer.GTID(r.opt.GroupName, d.N)}, nil
}

// visible waits until n is visible on the present primary's mysqld, whoever
// that comes to be.
func (r *Router) visible(ctx context.Context, n uint64) error {
	for {
		r.mu.Lock()
		reign := r.reign
		r.mu.Unlock()
		t := r.Tracker(r.opt.Log.View().Primary)
		if t.Contains(n) {
			return nil
		}
		wait, cancel := context.WithCancelCause(ctx)
		stop := context.AfterFunc(reign, func() { cancel(errAppointed) })
		left := context.AfterFunc(r.standing.Load(), func() { cancel(ErrLeft) })
		err := t.Wait(wait, n)
		stop()
		left()
		cancel(nil)
		if !errors.Is(err, errAppointed) {
			return err
		}
	}
}

// errAppointed ends a wait for what a former primary has to do.
var errAppointed = errors.New("router: another primary was appointed")
