package router

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"cohort/consensus/state"
)

// waiter is a session of the property test.
type waiter struct {
	key  string
	done chan struct{}
	out  Outcome
	err  error
	seen bool // visible when it was told
}

// goroutine names the goroutine that calls it.
func goroutine() string {
	var b [32]byte
	return strings.Fields(string(b[:runtime.Stack(b[:], false)]))[1]
}

// TestOutcomesAreTrue interleaves sessions, verdicts, new lives of the primary,
// appointments and applied numbers in any order, also inside Expect, and compares what the
// sessions were told with what the log says in the end.
func TestOutcomesAreTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newFakeLog()
		l.join(self, state.StateOnline)
		l.join(other, state.StateOnline)
		r := newTestRouter(l)
		r.Ordered(l.take(9))
		var (
			lastN, applied uint64
			appointed      uint64   // what xids of earlier epochs count to
			xids, gtids    []string // made, whether or not somebody waits
			waiters        []*waiter
			wg             sync.WaitGroup
		)
		decided := func(m map[string]state.Outcome, key string) bool { _, ok := m[key]; return ok }
		// orderTxn does what the origin and the state machine do with a prepare:
		// a commit needs the present incarnation.
		orderTxn := func(xid string, want bool) {
			if decided(l.outcomes, xid) {
				return
			}
			x, err := ParseXID(xid)
			if err != nil {
				t.Fatal(err)
			}
			d := state.Decision{Kind: state.KindTxn, Origin: l.view.Primary, Incarnation: x.Incarnation, XID: xid, Errno: 3101}
			if want && x.Incarnation == l.incarnation(l.view.Primary) && x.Counter > appointed {
				lastN++
				d.Committed, d.N, d.Errno = true, lastN, 0
			}
			l.decide(d)
		}
		orderDirect := func(gtid string) {
			if decided(l.directs, gtid) {
				return
			}
			lastN++
			l.decide(state.Decision{Kind: state.KindDirect, Origin: self, Incarnation: l.incarnation(self), LocalGTID: gtid, Committed: true, N: lastN})
		}
		pick := func(label string, from []string) string {
			return from[rapid.IntRange(0, len(from)-1).Draw(t, label)]
		}
		step := func(label string) {
			switch rapid.IntRange(0, 6).Draw(t, label) {
			case 0:
				if len(xids) > 0 {
					orderTxn(pick("txn", xids), rapid.Bool().Draw(t, "commit"))
				}
			case 1:
				if len(gtids) > 0 {
					orderDirect(pick("direct", gtids))
				}
			case 2:
				if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
					l.join(self, state.StateOnline)
				}
			case 3:
				r.Ordered(l.take(rapid.IntRange(1, 4).Draw(t, "batch")))
			case 4:
				if applied < lastN {
					applied++
					r.Tracker(self).Add(applied)
					r.Tracker(other).Add(applied)
				}
			case 5:
				l.join(other, state.StateOnline)
			case 6:
				if rapid.IntRange(0, 2).Draw(t, "switch") == 0 {
					appointed = r.counter.Load()
					l.appoint(self + other - l.view.Primary)
				}
			}
		}
		inside, main := false, goroutine()
		l.between = func() {
			if goroutine() != main {
				return // a session that waits looks for the primary
			}
			// Not within itself: step asks the log too.
			if inside || rapid.IntRange(0, 2).Draw(t, "gap") != 0 {
				return
			}
			inside = true
			step("inside")
			inside = false
		}
		// NewXID reads the view as well; what happens there is what happens
		// between it and Expect.
		await := func(key string, tk *Ticket) {
			w := &waiter{key: key, done: make(chan struct{})}
			waiters = append(waiters, w)
			wg.Go(func() {
				defer close(w.done)
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
				defer cancel()
				w.out, w.err = tk.Wait(ctx)
				w.seen = r.Tracker(self).Contains(w.out.N) || r.Tracker(other).Contains(w.out.N)
			})
		}
		defer wg.Wait()
		defer r.Close()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "who") {
			case 0:
				xid := r.NewXID()
				xids = append(xids, xid)
				tk := r.Expect(xid)
				if rapid.IntRange(0, 9).Draw(t, "cancel") == 0 {
					tk.Cancel()
				} else {
					await(xid, tk)
				}
			case 1:
				gtid := fmt.Sprintf("u:%d", rapid.IntRange(1, 5).Draw(t, "gtid"))
				gtids = append(gtids, gtid)
				await(gtid, r.ExpectDirect(gtid))
			default:
				step("step")
			}
		}
		// The end: everything is ordered, heard and applied, and one more life
		// fences whatever was never proposed.
		l.mu.Lock()
		l.between = nil
		l.mu.Unlock()
		for _, g := range gtids {
			orderDirect(g)
		}
		l.join(self, state.StateOnline)
		l.join(other, state.StateOnline)
		r.Ordered(l.take(1 << 20))
		r.Tracker(self).AddRange(1, max(lastN, 1))
		r.Tracker(other).AddRange(1, max(lastN, 1))
		for _, w := range waiters {
			<-w.done
			o, ok := l.outcomes[w.key]
			if !ok {
				o = l.directs[w.key]
			}
			switch {
			case w.err != nil:
				t.Fatalf("%s: %v", w.key, w.err)
			case w.out.Committed != o.Committed || w.out.N != o.N:
				t.Fatalf("%s: told %+v, the log says %+v", w.key, w.out, o)
			case w.out.Committed && !w.seen:
				t.Fatalf("%s: told before it was visible", w.key)
			}
		}
		if n := len(r.xids.open) + len(r.directs.open); n != 0 {
			t.Fatalf("%d tickets left in the table", n)
		}
	})
}
