package router

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/consensus/state"
	"cohort/internal/uptime"
)

func TestLease(t *testing.T) {
	v := state.View{Primary: 1, Epoch: 3, Members: []state.Member{{ID: 1, Info: state.MemberInfo{UUID: "a"}}}}
	r := New(Options{Log: &viewLog{v}, Logger: zerolog.Nop()})
	defer r.Close()
	b, own := Backend{MemberUUID: "a", Epoch: 3}, Backend{Local: true}
	fresh := func(what string, want bool) {
		t.Helper()
		if got := r.Fresh(b, false); got != want {
			t.Errorf("%s: fresh %t", what, got)
		}
		if !r.Fresh(own, true) {
			t.Errorf("%s: out of the group a read waits", what)
		}
	}
	fresh("at first", false)
	r.SetLease(time.Now().Add(time.Hour))
	fresh("with a lease", true)
	r.SetLease(time.Now().Add(-time.Nanosecond))
	fresh("when it is over", false)
	r.SetLease(time.Now().Add(time.Hour))
	r.SetLease(time.Time{})
	fresh("when it was ended", false)
	r.NeedLease(false)
	fresh("where none is needed", true)
	r.SetLease(time.Time{})
	fresh("where none is needed, and there is none", true)
	if r.Fresh(b, true) {
		t.Error("a read that has to be fresh is, without a lease")
	}
	r.SetLease(time.Now().Add(time.Hour))
	if !r.Fresh(b, true) {
		t.Error("a read that has to be fresh is not, with a lease")
	}
	r.SetLease(time.Time{})
	r.NeedLease(true)
	fresh("where one is needed again", false)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.AwaitFresh(ctx, b, false); !errors.Is(err, ErrNoContact) {
		t.Errorf("without a lease: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- r.AwaitFresh(t.Context(), b, true) }()
	r.SetLease(time.Now().Add(time.Hour))
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.SetLease(time.Time{})
	if err := r.AwaitFresh(t.Context(), Backend{MemberUUID: "b", Epoch: 2}, true); err != nil {
		t.Errorf("on a server that is the primary's no more: %v", err)
	}
}

// A lease has to outlive both clocks: one of them stands while the machine does.
func TestMomentHolds(t *testing.T) {
	now := time.Now()
	up, wall := uptime.Of(now), now.UnixNano()
	for _, c := range []struct {
		up   time.Duration
		wall int64
		want bool
	}{
		{up + 1, wall + 1, true},
		{up, wall + 1, false},
		{up + 1, wall, false},
	} {
		if got := (&moment{c.up, c.wall}).holds(now); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}
