package httpapi

// The words that states and roles take, as MEMBER_STATE and MEMBER_ROLE of
// performance_schema.replication_group_members.
const (
	Online      = "ONLINE"
	Unreachable = "UNREACHABLE"
	Error       = "ERROR"
	Primary     = "PRIMARY"
	Secondary   = "SECONDARY"
)

// Status is what /status shows: one member's view of the group and of itself.
type Status struct {
	// GroupName is the group's UUID; ViewID as MySQL shows it.
	GroupName string `json:"group_name"`
	ViewID    string `json:"view_id"`
	// Self is the member that answers.
	Self Self `json:"self"`
	// Members are all members of the view, this one included.
	Members []Member `json:"members"`
	// Primary is the primary's member id, "" if there is none or it is unknown.
	Primary string `json:"primary"`
	// Epoch counts the appointments of a primary.
	Epoch uint64 `json:"epoch"`
	// LastOrdered is the number of the last group transaction that this member's
	// copy of the log holds.
	LastOrdered uint64 `json:"last_ordered"`
	// Applied is the highest n for which 1..n are visible on this mysqld.
	Applied uint64 `json:"applied"`
	// Backlog is how many ordered transactions are not visible here yet.
	Backlog uint64 `json:"backlog"`
	// Leader is the member id of the log's leader, "" if unknown.
	Leader string `json:"leader"`

	// Serving says that clients are served: the member has a quorum, its mysqld
	// and, as a secondary, its feed. It is no part of /status but decides about
	// /health; Reason says why not.
	Serving bool   `json:"-"`
	Reason  string `json:"-"`
}

// Self is the member that answers.
type Self struct {
	MemberID string `json:"member_id"`
	State    string `json:"state"`
	Role     string `json:"role"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
}

// Member is one member of the view. Host and Port are where clients connect,
// MysqldAddress is where members reach its mysqld.
// State is UNREACHABLE where the member that answers does not hear it.
type Member struct {
	MemberID      string `json:"member_id"`
	Host          string `json:"host"`
	Port          int    `json:"port"`
	State         string `json:"state"`
	Role          string `json:"role"`
	Version       string `json:"version"`
	MysqldAddress string `json:"mysqld_address"`
}

// ready returns "" if the member may be sent clients, otherwise why not.
func (s Status) ready() string {
	switch {
	case s.Self.State != Online:
		state := s.Self.State
		if state == "" {
			state = "unknown"
		}
		if s.Reason != "" {
			return "the member is " + state + ": " + s.Reason
		}
		return "the member is " + state
	case !s.Serving && s.Reason != "":
		return s.Reason
	case !s.Serving:
		return "the member does not serve clients now"
	}
	return ""
}

// hasRole returns "" if the member is ready and has the role.
func (s Status) hasRole(role string) string {
	if why := s.ready(); why != "" {
		return why
	}
	if s.Self.Role != role {
		return "the member's role is " + s.Self.Role
	}
	return ""
}
