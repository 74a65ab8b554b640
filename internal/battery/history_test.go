package battery

import (
	"errors"
	"testing"

	"cohort/internal/loadgen"
)

// An error promises that nothing was written by its number.
func TestOutcomeOf(t *testing.T) {
	server := func(number uint16, message string) error {
		return &loadgen.ServerError{Number: number, Message: message}
	}
	for _, c := range []struct {
		err  error
		want Outcome
	}{
		{nil, OK},
		{server(1213, "Deadlock found"), Fail},
		{server(3101, "Plugin instructed the server to rollback the current transaction."), Fail},
		{server(3100, "Error on observer while running replication hook 'before_commit'."), Fail},
		{server(1180, "The outcome of this COMMIT is unknown"), Unknown},
		{server(1105, "The group has no primary"), Unknown},
		{errors.New("EOF"), Unknown},
	} {
		if got := outcomeOf(c.err); got != c.want {
			t.Errorf("%v: %s, not %s", c.err, got, c.want)
		}
	}
}
