package router

import (
	"testing"

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
