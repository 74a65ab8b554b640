package recovery

import (
	"time"

	"cohort/internal/uptime"
)

// Stage is what this member is at, in the terms of
// performance_schema.events_stages_current.
type Stage struct {
	// Name is that of MySQL's stage, without "stage/group_rpl/".
	Name                 string
	Completed, Estimated uint64
	// Since is when it began.
	Since time.Time
}

// Names of stages.
const (
	stageChecks     = "Primary Switch: checking current primary pre-conditions"
	stagePending    = "Primary Switch: waiting for pending transactions to finish"
	stageElsewhere  = "Primary Switch: waiting on another member step completion"
	stageElection   = "Primary Switch: executing Primary election"
	stageBuffered   = "Primary Election: applying buffered transactions"
	stageOperation  = "Primary Switch: waiting for operation to complete on all members"
	stageAutorejoin = "Undergoing auto-rejoin procedure"
)

// phase is what a planned change of the primary is at.
type phase uint8

const (
	phaseNone phase = iota
	// phaseChecks: the next primary lacks too much.
	phaseChecks
	// phasePending: transactions have to end.
	phasePending
	// phaseElection: the primary is appointed, or about to be.
	phaseElection
)

// changeProgress is the planned change that this member has been told of. One that is not
// heard of for holdLease is over.
type changeProgress struct {
	by                   string
	epoch                uint64
	phase                phase
	completed, estimated uint64
	since, until         time.Time
}

func (p *changeProgress) live(now time.Time) bool { return p.phase != phaseNone && now.Before(p.until) }

// take notes what a request says; of two changes at a time the first one heard of
// counts: false for the other.
func (p *changeProgress) take(q *holdRequest, now time.Time) bool {
	switch {
	case p.live(now) && p.by != q.By:
		return false
	case q.Phase == phaseNone:
		*p = changeProgress{}
	default:
		if p.by != q.By || p.phase != q.Phase {
			p.since = now
		}
		p.by, p.epoch, p.phase, p.until = q.By, q.Epoch, q.Phase, now.Add(holdLease)
		p.completed, p.estimated = q.Completed, q.Estimated
	}
	return true
}

// stage is what the member self shows of it, which knows of the epoch and the primary
// given.
func (p *changeProgress) stage(self, primary, epoch uint64) Stage {
	s := Stage{Estimated: 1, Since: p.since}
	switch {
	case epoch > p.epoch && self == primary:
		s.Name = stageBuffered
	case epoch > p.epoch:
		s.Name = stageOperation
	case p.phase == phaseElection:
		s.Name = stageElection
	case p.phase == phaseChecks:
		s.Name = stageChecks
	case self == primary:
		s.Name, s.Completed, s.Estimated = stagePending, p.completed, max(p.estimated, 1)
	default:
		s.Name = stageElsewhere
	}
	return s
}

// Stages are those that this member is at.
func (m *Member) Stages() []Stage {
	m.holds.mu.Lock()
	p := m.holds.progress
	m.holds.mu.Unlock()
	var list []Stage
	if p.live(time.Now()) {
		v := m.opt.Node.View()
		list = append(list, p.stage(m.opt.ReplicaID, v.Primary, v.Epoch))
	}
	if m.Rejoining() {
		list = append(list, Stage{Name: stageAutorejoin, Completed: m.rejoinTries.Load(), Estimated: m.Policy().AutorejoinTries,
			Since: time.Now().Add(time.Duration(m.rejoinSince.Load()) - uptime.Now())})
	}
	return list
}
