package router

import "cohort/consensus/state"

// MySQL's errors for a transaction that the group did not take.
const (
	errRequirement         = 3098 // ER_BEFORE_DML_VALIDATION_ERROR
	errRunHook             = 3100 // ER_RUN_HOOK_ERROR
	errTransactionRollback = 3101 // ER_TRANSACTION_ROLLBACK_DURING_COMMIT
)

// aborted is what the client of an aborted transaction is told, in MySQL's
// words.
func aborted(d state.Decision) Outcome {
	switch d.Errno {
	case errRequirement:
		return Outcome{Errno: errRequirement, SQLState: "HY000",
			Message: "The table does not comply with the requirements by an external plugin."}
	case errRunHook:
		return Outcome{Errno: errRunHook, SQLState: "HY000",
			Message: "Error on observer while running replication hook 'before_commit'."}
	default:
		return Outcome{Errno: errTransactionRollback, SQLState: "40000",
			Message: "Plugin instructed the server to rollback the current transaction."}
	}
}
