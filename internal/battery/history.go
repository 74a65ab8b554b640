package battery

import (
	"errors"
	"fmt"
	"time"

	"cohort/internal/loadgen"
)

// Outcome is what a client knows about an operation.
type Outcome string

// The outcomes. An unknown operation may have happened, or may happen at any
// later time; a failed one never did and never will.
const (
	OK      Outcome = "ok"
	Fail    Outcome = "fail"
	Unknown Outcome = "unknown"
)

// Call is what all operations of all workloads record.
type Call struct {
	Session int           `json:"session"` // a client, one operation at a time
	Conn    int           `json:"conn"`    // counts the connections of all sessions
	Through string        `json:"through"` // the member it is connected to
	Start   time.Duration `json:"start"`   // since the history's beginning
	End     time.Duration `json:"end"`     // of the answer; of no meaning when unknown
	Outcome Outcome       `json:"outcome"`
	Err     string        `json:"err,omitempty"`
}

// refusals promise that nothing was written: a deadlock or a lost transaction,
// too large a transaction, a lost certification. 1180 is the one that leaves it open.
var refusals = map[uint16]bool{1213: true, 3100: true, 3101: true}

// outcomeOf judges the answer to the statement that commits.
func outcomeOf(err error) Outcome {
	var se *loadgen.ServerError
	switch {
	case err == nil:
		return OK
	case errors.As(err, &se) && refusals[se.Number]:
		return Fail
	default:
		return Unknown
	}
}

// Finding is something that must not be.
type Finding struct {
	Workload string `json:"workload"`
	Anomaly  string `json:"anomaly"`
	Detail   string `json:"detail"`
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Workload, f.Anomaly, f.Detail) }

// Verdict is what a checker says of one workload's history.
type Verdict struct {
	Findings []Finding
	// Stale counts reads that were older than what had been acknowledged before
	// they began. Reads under EVENTUAL may be; it is a figure and no finding.
	Stale int
	// Undecided says what could not be checked.
	Undecided []string
}

func (v *Verdict) add(workload, anomaly, format string, args ...any) {
	v.Findings = append(v.Findings, Finding{workload, anomaly, fmt.Sprintf(format, args...)})
}
