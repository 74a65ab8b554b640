package applied

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// blocked reports how many waiters t has.
func (t *Tracker) blocked() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.prefix)
	for _, ws := range t.exact {
		n += len(ws)
	}
	return n
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func wait(t *testing.T, ch <-chan error) error {
	t.Helper()
	select {
	case err := <-ch:
		return err
	case <-time.After(time.Minute):
		t.Fatal("the waiter was not woken")
		return nil
	}
}

func async(f func() error) <-chan error {
	ch := make(chan error, 1)
	go func() { ch <- f() }()
	return ch
}

func TestWaitIsExactAndWaitAllNeedsThePrefix(t *testing.T) {
	tr := New(Set{Low: 10})
	ctx := t.Context()
	exact := async(func() error { return tr.Wait(ctx, 12) })
	all := async(func() error { return tr.WaitAll(ctx, 12) })
	eventually(t, "both wait", func() bool { return tr.blocked() == 2 })
	tr.Add(12)
	if err := wait(t, exact); err != nil {
		t.Fatal(err)
	}
	if tr.blocked() != 1 || tr.Low() != 10 || !tr.Contains(12) || tr.Contains(11) {
		t.Fatalf("after 12: %+v, %d blocked", tr.Snapshot(), tr.blocked())
	}
	tr.Add(11)
	if err := wait(t, all); err != nil {
		t.Fatal(err)
	}
	if s := tr.Snapshot(); s.Low != 12 || len(s.Extra) != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestAlreadyThereWinsOverContextAndClose(t *testing.T) {
	tr := New(Set{Low: 5})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tr.Close(nil)
	for _, n := range []uint64{0, 1, 5} {
		if err := tr.Wait(ctx, n); err != nil {
			t.Errorf("Wait(%d): %v", n, err)
		}
		if err := tr.WaitAll(ctx, n); err != nil {
			t.Errorf("WaitAll(%d): %v", n, err)
		}
	}
	if err := tr.Wait(t.Context(), 6); !errors.Is(err, ErrClosed) {
		t.Errorf("Wait(6): %v", err)
	}
	tr.Add(6)
	if tr.Contains(6) {
		t.Error("a closed tracker grew")
	}
}

func TestCloseWakesEverybodyWithItsError(t *testing.T) {
	tr, cause := New(Set{}), errors.New("mysqld is gone")
	var chs []<-chan error
	for i := range 20 {
		chs = append(chs, async(func() error { return tr.Wait(t.Context(), uint64(i%3+1)) }),
			async(func() error { return tr.WaitAll(t.Context(), uint64(i+1)) }))
	}
	eventually(t, "all wait", func() bool { return tr.blocked() == 40 })
	tr.Close(cause)
	tr.Close(errors.New("second"))
	for _, ch := range chs {
		if err := wait(t, ch); err != cause {
			t.Errorf("got %v", err)
		}
	}
}

func TestCancelledWaitersLeaveNothingBehind(t *testing.T) {
	tr, cause := New(Set{}), errors.New("killed")
	ctx, cancel := context.WithCancelCause(t.Context())
	var chs []<-chan error
	for i := range 50 {
		chs = append(chs, async(func() error { return tr.Wait(ctx, uint64(i%7+1)) }),
			async(func() error { return tr.WaitAll(ctx, uint64(i%11+1)) }))
	}
	stays := async(func() error { return tr.Wait(t.Context(), 3) })
	eventually(t, "all wait", func() bool { return tr.blocked() == 101 })
	cancel(cause)
	for _, ch := range chs {
		if err := wait(t, ch); err != cause {
			t.Errorf("got %v", err)
		}
	}
	if n := tr.blocked(); n != 1 {
		t.Errorf("%d still blocked", n)
	}
	tr.Add(3)
	if err := wait(t, stays); err != nil {
		t.Error(err)
	}
	if len(tr.exact) != 0 || len(tr.prefix) != 0 {
		t.Error("waiters left behind")
	}
}

func TestResetWakesAndShrinks(t *testing.T) {
	tr := New(Set{Low: 100})
	w := async(func() error { return tr.Wait(t.Context(), 105) })
	all := async(func() error { return tr.WaitAll(t.Context(), 101) })
	eventually(t, "both wait", func() bool { return tr.blocked() == 2 })
	tr.Reset(Set{Low: 50, Extra: []Range{{105, 105}}})
	if err := wait(t, w); err != nil {
		t.Fatal(err)
	}
	if tr.Contains(100) || !tr.Contains(105) || tr.Low() != 50 {
		t.Errorf("%+v", tr.Snapshot())
	}
	tr.AddRange(51, 104)
	if err := wait(t, all); err != nil || tr.Low() != 105 {
		t.Errorf("%v %+v", err, tr.Snapshot())
	}
}

// The set must be what a plain map of numbers would be, in its normal form.
func TestSetAgainstModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		low := rapid.Uint64Range(0, 5).Draw(r, "low")
		tr, model := New(Set{Low: low}), map[uint64]bool{}
		for n := range low {
			model[n+1] = true
		}
		sub, follower := tr.Subscribe(), New(Set{})
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			from := rapid.Uint64Range(0, 60).Draw(r, "from")
			to := from + rapid.Uint64Range(0, 6).Draw(r, "len")
			tr.AddRange(from, to)
			for n := max(from, 1); n <= to; n++ {
				model[n] = true
			}
			if rapid.Bool().Draw(r, "drain") {
				follow(r, sub, follower)
			}
		}
		tr.AddRange(70, 69)
		s := tr.Snapshot()
		last := s.Low
		for _, x := range s.Extra {
			if x.From > x.To || x.From <= last+1 {
				r.Fatalf("not in normal form: %+v", s)
			}
			last = x.To
		}
		for n := uint64(1); n < 80; n++ {
			if s.Contains(n) != model[n] {
				r.Fatalf("%d: %v, model %v, in %+v", n, s.Contains(n), model[n], s)
			}
		}
		if got := len(s.Numbers(-1)) + int(s.Low); got != len(model) {
			r.Fatalf("%d numbers, want %d", got, len(model))
		}
		follow(r, sub, follower)
		if f := follower.Snapshot(); f.Low != s.Low || !slices.Equal(f.Extra, s.Extra) {
			r.Fatalf("subscriber has %+v, tracker %+v", f, s)
		}
	})
}

func follow(r *rapid.T, sub *Subscription, to *Tracker) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		u, err := sub.Next(ctx)
		if u.Reset {
			to.Reset(Set{})
		}
		for _, x := range u.Ranges {
			to.AddRange(x.From, x.To)
		}
		if err != nil {
			sub.t.mu.Lock()
			drained := !sub.whole && len(sub.pending) == 0
			sub.t.mu.Unlock()
			if drained {
				return
			}
		}
	}
}

// Many committers add nearly in order while many sessions wait, as on a busy
// primary; everybody must be woken, and only for what is there.
func TestManyWaiters(t *testing.T) {
	const workers, each = 64, 200
	tr := New(Set{})
	numbers := make(chan uint64)
	var wg sync.WaitGroup
	errs := make(chan error, workers*2)
	for w := range workers {
		wg.Add(2)
		go func() {
			defer wg.Done()
			for n := range numbers {
				tr.Add(n)
			}
		}()
		go func() {
			defer wg.Done()
			for i := range each {
				n := uint64(i*workers + w + 1)
				if err := tr.Wait(t.Context(), n); err != nil || !tr.Contains(n) {
					errs <- fmt.Errorf("Wait(%d): %v", n, err)
				}
				if i%16 == 0 {
					if err := tr.WaitAll(t.Context(), n); err != nil || tr.Low() < n {
						errs <- fmt.Errorf("WaitAll(%d): %v, low %d", n, err, tr.Low())
					}
				}
			}
		}()
	}
	for n := uint64(1); n <= workers*each; n++ {
		numbers <- n
	}
	close(numbers)
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if s := tr.Snapshot(); s.Low != workers*each || len(s.Extra) != 0 || tr.blocked() != 0 {
		t.Errorf("at the end %+v, %d blocked", s, tr.blocked())
	}
}

func TestSlowSubscriberGetsTheWholeSet(t *testing.T) {
	tr := New(Set{Low: 3})
	sub := tr.Subscribe()
	defer sub.Close()
	u, err := sub.Next(t.Context())
	if err != nil || !u.Reset || !slices.Equal(u.Ranges, []Range{{1, 3}}) {
		t.Fatalf("first: %+v %v", u, err)
	}
	for n := uint64(5); n < 5+2*(maxPending+10); n += 2 {
		tr.Add(n)
	}
	if len(sub.pending) > maxPending {
		t.Fatalf("%d pending", len(sub.pending))
	}
	u, err = sub.Next(t.Context())
	if err != nil || !u.Reset || len(u.Ranges) != maxPending+11 {
		t.Fatalf("after overflow: reset %v, %d ranges, %v", u.Reset, len(u.Ranges), err)
	}
}

func TestSubscriptionEndsWithTheTracker(t *testing.T) {
	tr, cause := New(Set{}), errors.New("gone")
	sub := tr.Subscribe()
	if u, err := sub.Next(t.Context()); err != nil || !u.Reset || len(u.Ranges) != 0 {
		t.Fatalf("first: %+v %v", u, err)
	}
	tr.Add(1)
	tr.Close(cause)
	if u, err := sub.Next(t.Context()); err != nil || len(u.Ranges) != 1 {
		t.Fatalf("what came before the end: %+v %v", u, err)
	}
	for range 2 {
		if _, err := sub.Next(t.Context()); err != cause {
			t.Fatalf("end: %v", err)
		}
	}
	sub.Close()
	if len(tr.subs) != 0 {
		t.Error("subscription left behind")
	}
}

func BenchmarkAddWait64(b *testing.B) {
	tr := New(Set{})
	var next, woken sync.WaitGroup
	work := make(chan uint64, 64)
	for range 64 {
		next.Add(1)
		go func() {
			defer next.Done()
			for n := range work {
				tr.Wait(b.Context(), n)
				woken.Done()
			}
		}()
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		woken.Add(1)
		work <- uint64(i + 1)
		tr.Add(uint64(i + 1))
	}
	woken.Wait()
	close(work)
	next.Wait()
}

// Whoever begins to wait is announced, before it does and without the lock; who finds
// what it wants is not.
func TestOnWait(t *testing.T) {
	tr := New(Set{Low: 5})
	waits := make(chan uint64, 10)
	tr.OnWait(func() { waits <- tr.Low() })
	for name, wait := range map[string]func(context.Context, uint64) error{"Wait": tr.Wait, "WaitAll": tr.WaitAll} {
		if err := wait(t.Context(), 5); err != nil || len(waits) != 0 {
			t.Errorf("%s for what is there: %v, announced %d times", name, err, len(waits))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- wait(ctx, 9) }()
		if low := <-waits; low != 5 {
			t.Errorf("%s: announced at %d", name, low)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || len(waits) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
