package recovery

import "time"

// Policy is how this member bears the loss of others, and its own. It may be
// changed while the member runs.
type Policy struct {
	// ExpelTimeout is how long a suspected member is waited for before it is
	// reported OFFLINE. That of the member that leads the log counts.
	ExpelTimeout time.Duration
	// MajorityTimeout is how long a member without a majority waits for it before
	// it is out of the group; 0 for ever.
	MajorityTimeout time.Duration
	// AutorejoinTries is how often a member that is out of the group against its
	// will tries to come back before it takes its exit action.
	AutorejoinTries uint64
	ExitAction      ExitAction
}

// Policy returns the present policy.
func (m *Member) Policy() Policy {
	m.policyMu.Lock()
	defer m.policyMu.Unlock()
	return m.policy
}

// ChangePolicy has change alter the policy.
func (m *Member) ChangePolicy(change func(*Policy)) {
	m.policyMu.Lock()
	defer m.policyMu.Unlock()
	change(&m.policy)
	if m.opt.Node != nil {
		m.opt.Node.SetExpelTimeout(m.policy.ExpelTimeout)
	}
}
