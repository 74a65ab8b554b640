package proxy

import (
	"errors"

	"cohort/internal/wire"
)

// Errors of MySQL that a session treats specially.
const (
	erQueryInterrupted = 1317
	erLockWaitTimeout  = 1205
	erLockDeadlock     = 1213
	erNotSupportedYet  = 1235
	erUnknown          = 1105
	erAccessDenied     = 1227
	erParse            = 1064
	erOperandColumns   = 1241
	erOptionPrevents   = 1290
	erUnsupportedPS    = 1295
	erConCount         = 1040
	erServerShutdown   = 1053
	erDuringCommit     = 1180
	erXANotA           = 1397
	erXAInval          = 1398
	erXARMFail         = 1399
	erXAOutside        = 1400
	erXARBRollback     = 1402
	erNotCompliant     = 3098
	erXATemporary      = 4091
	erOfflineMode      = 3032
	erRunHook          = 3100
	erRollbackDuring   = 3101
	erResetLogs        = 3190
)

var (
	// ErrBackendLost ends a session whose connection to mysqld is gone.
	ErrBackendLost = errors.New("proxy: connection to the primary's server lost")
	// ErrLeft is a Ticket's when this member is out of the group, or without its
	// majority for too long.
	ErrLeft = errors.New("proxy: this member has left the group")
	// ErrClientLost ends a session whose client is gone.
	ErrClientLost = errors.New("proxy: client gone")
	// errOutcome: it is not known what became of a transaction.
	errOutcome = errors.New("proxy: outcome of a transaction unknown")
	// errClose ends a session in good order.
	errClose = errors.New("proxy: session ended")
)

func xaError(code uint16, state string) *wire.ServerError {
	switch code {
	case erXANotA:
		return wire.NewError(code, "XAE04", "XAER_NOTA: Unknown XID")
	case erXAInval:
		return wire.NewError(code, "XAE05", "XAER_INVAL: Invalid arguments (or unsupported command)")
	case erXAOutside:
		return wire.NewError(code, "XAE09", "XAER_OUTSIDE: Some work is done outside global transaction")
	}
	return wire.NewError(erXARMFail, "XAE07",
		"XAER_RMFAIL: The command cannot be executed when global transaction is in the  %s state", state)
}

// outcomeError is what a client sees of a verdict that is not to commit.
func outcomeError(o Outcome) *wire.ServerError {
	code, state, msg := o.Errno, o.SQLState, o.Message
	if code == 0 {
		code, state = erRollbackDuring, "40000"
		msg = "Plugin instructed the server to rollback the current transaction."
	}
	if state == "" {
		state = "HY000"
	}
	return &wire.ServerError{Code: code, State: state, Message: msg}
}

// unknownOutcome is the answer where neither commit nor abort is proven. It has a number
// of its own (ER_ERROR_DURING_COMMIT): who gets another one knows that nothing of what
// was to be committed was, or will be.
func unknownOutcome(what string, err error) *wire.ServerError {
	if errors.Is(err, ErrLeft) {
		return wire.NewError(erDuringCommit, "HY000",
			"The member left the group: the outcome of this %s is unknown, it may or may not have been committed", what)
	}
	return wire.NewError(erDuringCommit, "HY000",
		"The outcome of this %s is unknown: it may or may not have been committed (%v)", what, err)
}

// unloggedError is the answer to what was written, or would be, without the
// binary log.
func unloggedError() *wire.ServerError {
	return wire.NewError(erNotCompliant, "HY000",
		"The session does not write the binary log (sql_log_bin=0), from which the group replicates; the transaction is rolled back and the connection closed")
}

// lostError is the answer to a statement whose server went away; what was open
// is rolled back, since it was never prepared.
func lostError() *wire.ServerError {
	return wire.NewError(erServerShutdown, "08S01",
		"Lost connection to the primary's server during the statement; its transaction is rolled back")
}
