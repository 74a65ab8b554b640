package recovery

import (
	"testing"
	"time"
)

// What the members of a group show of a planned change from member 1 to member 2.
func TestStages(t *testing.T) {
	now := time.Unix(1000, 0)
	tell := func(p *changeProgress, by string, x phase, done, all uint64) bool {
		return p.take(&holdRequest{By: by, Epoch: 4, Phase: x, Completed: done, Estimated: all}, now)
	}
	var p changeProgress
	if p.live(now) {
		t.Error("there is a change before one was told")
	}
	for _, c := range []struct {
		what            string
		phase           phase
		done, all       uint64
		primary, epoch  uint64 // as the member that is asked knows them
		old, new, third string
	}{
		{"it begins", phaseChecks, 0, 0, 1, 4, stageChecks, stageChecks, stageChecks},
		{"transactions run", phasePending, 1, 3, 1, 4, stagePending, stageElsewhere, stageElsewhere},
		{"the election", phaseElection, 0, 0, 1, 4, stageElection, stageElection, stageElection},
		{"another one is the primary", phaseElection, 0, 0, 2, 5, stageOperation, stageBuffered, stageOperation},
	} {
		if !tell(&p, "a", c.phase, c.done, c.all) || !p.live(now) {
			t.Errorf("%s: not taken", c.what)
		}
		for id, want := range map[uint64]string{1: c.old, 2: c.new, 3: c.third} {
			s := p.stage(id, c.primary, c.epoch)
			work := [2]uint64{0, 1}
			if want == stagePending {
				work = [2]uint64{c.done, c.all}
			}
			if s.Name != want || [2]uint64{s.Completed, s.Estimated} != work || s.Since.After(now) {
				t.Errorf("%s: member %d shows %+v, want %s", c.what, id, s, want)
			}
		}
		now = now.Add(time.Second)
	}
	if tell(&p, "b", phasePending, 0, 1) || p.by != "a" {
		t.Error("a second change was taken")
	}
	if tell(&p, "b", phaseNone, 0, 0); p.by != "a" {
		t.Error("the second one's end ended the first")
	}
	since := p.since
	now = now.Add(holdLease - 2*time.Second)
	if tell(&p, "a", phaseElection, 0, 0); p.since != since {
		t.Error("a stage that goes on began anew")
	}
	if p.live(now.Add(holdLease)) {
		t.Error("a change that is not heard of goes on")
	}
	if tell(&p, "a", phaseNone, 0, 0); p.live(now) {
		t.Error("a change that has ended goes on")
	}
	if !tell(&p, "b", phasePending, 0, 1) {
		t.Error("the next change was not taken")
	}
}
