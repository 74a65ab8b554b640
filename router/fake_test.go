package router

import (
	"sync"

	"github.com/rs/zerolog"

	"cohort/consensus/state"
	"cohort/internal/committer"
)

// fakeLog is the log as a router sees it: verdicts and views appear at once
// when they are ordered, the observer hears of them later (deliver).
type fakeLog struct {
	mu       sync.Mutex
	view     state.View
	outcomes map[string]state.Outcome
	directs  map[string]state.Outcome
	queue    []state.Decision
	// between is called, without the lock, inside View and Outcome: a test lets
	// the log go on there.
	between func()
}

const self, other = 1, 2

func newFakeLog() *fakeLog {
	l := &fakeLog{outcomes: map[string]state.Outcome{}, directs: map[string]state.Outcome{}}
	l.view = state.View{Founded: true, Primary: self, Epoch: 1}
	return l
}

func newTestRouter(l *fakeLog) *Router {
	r := New(Options{Self: self, SelfUUID: "01234567-aaaa", Socket: "/sock", GroupName: "group", Log: l, Logger: zerolog.Nop()})
	r.SetOpen(l.View().Epoch)
	return r
}

func (l *fakeLog) pass() {
	l.mu.Lock()
	f := l.between
	l.mu.Unlock()
	if f != nil {
		f()
	}
}

func (l *fakeLog) View() *state.View {
	l.pass()
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.view
	v.Members = append([]state.Member(nil), l.view.Members...)
	return &v
}

func (l *fakeLog) Outcome(xid string) (state.Outcome, bool) {
	l.pass()
	l.mu.Lock()
	defer l.mu.Unlock()
	o, ok := l.outcomes[xid]
	return o, ok
}

func (l *fakeLog) DirectOutcome(gtid string) (state.Outcome, bool) {
	l.pass()
	l.mu.Lock()
	defer l.mu.Unlock()
	o, ok := l.directs[gtid]
	return o, ok
}

// join orders a new incarnation of a member.
func (l *fakeLog) join(id uint64, st state.MemberState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := state.Member{ID: id, State: st, Info: state.MemberInfo{UUID: "uuid", MysqldAddress: "host:1"}}
	inc := uint64(1)
	for _, x := range l.view.Members {
		inc = max(inc, x.Incarnation+1)
	}
	m.Incarnation = inc
	if st == state.StateOnline {
		m.OpenEpoch = l.view.Epoch
	}
	kept := l.view.Members[:0]
	for _, x := range l.view.Members {
		if x.ID != id {
			kept = append(kept, x)
		}
	}
	l.view.Members = append(kept, m)
	l.queue = append(l.queue, state.Decision{Kind: state.KindJoin, Origin: id, Incarnation: inc, State: st, Committed: true})
}

func (l *fakeLog) setState(id uint64, st state.MemberState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.view.Members {
		if l.view.Members[i].ID == id {
			l.view.Members[i].State = st
			if st == state.StateOnline && l.view.Primary == id {
				l.view.Members[i].OpenEpoch = l.view.Epoch
			}
		}
	}
	l.queue = append(l.queue, state.Decision{Kind: state.KindState, Origin: id, State: st, Committed: true})
}

// appoint makes a member the primary of a new epoch; setState opens it.
func (l *fakeLog) appoint(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.view.Primary = id
	l.view.Epoch++
	l.queue = append(l.queue, state.Decision{Kind: state.KindPrimary, Origin: id, Epoch: l.view.Epoch, Committed: true})
}

func (l *fakeLog) incarnation(id uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, _ := l.view.Member(id)
	return m.Incarnation
}

// decide orders the verdict on a transaction, or on a direct statement.
func (l *fakeLog) decide(d state.Decision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := state.Outcome{Key: d.XID, Origin: d.Origin, Incarnation: d.Incarnation, Committed: d.Committed, N: d.N, Errno: d.Errno, Reason: d.Reason}
	if d.Kind == state.KindDirect {
		o.Key, o.Direct = d.LocalGTID, true
		l.directs[d.LocalGTID] = o
	} else {
		l.outcomes[d.XID] = o
	}
	l.queue = append(l.queue, d)
}

// take removes up to n of what the observer has not heard.
func (l *fakeLog) take(n int) []state.Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, len(l.queue))
	out := append([]state.Decision(nil), l.queue[:n]...)
	l.queue = l.queue[n:]
	return out
}

// verdicts are what an origin is told.
type verdicts struct {
	submit   func(...committer.Job)
	prepared []string
}

func (v *verdicts) Submit(js ...committer.Job) { v.submit(js...) }
func (v *verdicts) Prepared(xid string)        { v.prepared = append(v.prepared, xid) }
