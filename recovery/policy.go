package recovery

import (
	"errors"
	"time"
)

// Policy is how this member bears the loss of others, and its own. It may be
// changed while the member runs.
type Policy struct {
	// ExpelTimeout is how long a suspected member is waited for before it is
	// reported OFFLINE. That of the member that leads the log counts.
	ExpelTimeout time.Duration
}

// ErrRejoining: the number of tries cannot be changed while they are made.
var ErrRejoining = errors.New("recovery: the member is trying to rejoin")

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
}
