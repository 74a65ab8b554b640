package router

import (
	"testing"
	"testing/synctest"

	"cohort/consensus/state"
)

type viewLog struct{ v state.View }

func (l *viewLog) View() *state.View                          { return &l.v }
func (l *viewLog) Outcome(string) (o state.Outcome, ok bool)  { return }
func (l *viewLog) DirectOutcome(string) (state.Outcome, bool) { return state.Outcome{}, false }

func TestMoved(t *testing.T) {
	l := &viewLog{state.View{Primary: 1, Epoch: 4, Members: []state.Member{
		{ID: 1, Info: state.MemberInfo{UUID: "a"}}, {ID: 2, Info: state.MemberInfo{UUID: "b"}}}}}
	r := New(Options{Log: l})
	b := Backend{MemberUUID: "a", Epoch: 4}
	if r.Moved(b) {
		t.Error("moved while the primary is the same")
	}
	l.v.Epoch = 5
	if !r.Moved(b) {
		t.Error("not moved in a new epoch")
	}
	l.v.Epoch, l.v.Primary = 4, 2
	if !r.Moved(b) {
		t.Error("not moved with another primary")
	}
	l.v.Primary = 0
	if r.Moved(b) {
		t.Error("moved to no primary")
	}
}

// A cut-off member sees itself as the open primary whatever becomes of its mysqld.
func TestOwnServerIsOpenNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &viewLog{state.View{Primary: 1, Epoch: 4, Members: []state.Member{
			{ID: 1, State: state.StateOnline, OpenEpoch: 4, Info: state.MemberInfo{UUID: "a"}}}}}
		r := New(Options{Self: 1, SelfUUID: "a", Log: l})
		got := make(chan Backend, 1)
		primary := func() {
			b, err := r.Primary(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- b
		}
		go primary()
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("given out before its mysqld takes writes")
		}
		r.SetOpen(4)
		b := <-got
		if !b.Local || b.Epoch != 4 || r.Moved(b) {
			t.Errorf("%+v, moved %v", b, r.Moved(b))
		}
		changed := r.Changed()
		r.SetOpen(0)
		select {
		case <-changed:
		default:
			t.Error("nobody was told")
		}
		if !r.Moved(b) {
			t.Error("sessions stay on a mysqld that takes no writes any more")
		}
		go primary()
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("given out again")
		}
		r.SetAdrift(true) // nobody else can be reached
		if b := <-got; !b.Local || b.Epoch != 0 || r.Moved(b) || !r.Adrift() {
			t.Errorf("adrift: %+v, moved %v", b, r.Moved(b))
		}
		if r.Moved(Backend{MemberUUID: "a", Epoch: 4}) {
			t.Error("adrift, a session with a connection to the primary's server leaves it")
		}
		r.SetAdrift(false)
		if r.Adrift() || !r.Moved(Backend{Local: true}) {
			t.Error("sessions stay where they were adrift")
		}
		go primary()
		synctest.Wait()
		r.SetPlace(OnLocal) // a START that is to come, and reads until then
		r.SetAdrift(true)
		if r.Adrift() {
			t.Error("a member that is out of the group is adrift")
		}
		if b := <-got; !b.Local || b.Epoch != 0 || r.Moved(b) {
			t.Errorf("out of the group: %+v, moved %v", b, r.Moved(b))
		}
		if !r.Suspend() || r.Suspend() || !r.Moved(Backend{Local: true}) {
			t.Error("sessions stay on a mysqld on which all are about to be killed")
		}
		go primary()
		synctest.Wait()
		r.SetPlace(OnLocal)
		if b := <-got; !b.Local || b.Epoch != 0 {
			t.Errorf("out of the group still: %+v", b)
		}
	})
}

// Who waits for a change of the view hears of each that may matter to it, and of no
// other decision.
func TestAnnouncedDecisions(t *testing.T) {
	l := newFakeLog()
	l.join(self, state.StateOnline)
	r := newTestRouter(l)
	for kind, want := range map[state.Kind]bool{state.KindJoin: true, state.KindPrimary: true, state.KindBootstrap: true, state.KindState: true,
		state.KindForce: true, state.KindWeight: true, state.KindTxn: false, state.KindWatermark: false} {
		changed := r.Changed()
		r.Ordered([]state.Decision{{Kind: kind, Origin: 77, Committed: true}})
		select {
		case <-changed:
			if !want {
				t.Errorf("%s was announced", kind)
			}
		default:
			if want {
				t.Errorf("%s was not announced", kind)
			}
		}
	}
}
