package proxy

import (
	"context"
	"time"

	"cohort/sqlparse"
)

// Backend is a mysqld that sessions run on.
type Backend struct {
	// Network and Addr as for net.Dial: "unix" and a path, or "tcp".
	Network, Addr string
	// Local: it is this member's own mysqld.
	Local bool
	// MemberUUID is the server_uuid of the member it belongs to.
	MemberUUID string
	// Epoch is the one that it is the primary of; 0 is a server that takes no
	// writes, of a member that is out of the group.
	Epoch uint64
}

// Group is what the proxy asks of the group; the router implements it.
type Group interface {
	// Primary returns the mysqld that takes writes. It may wait, up to ctx, for
	// there to be one.
	Primary(ctx context.Context) (Backend, error)
	// Moved reports whether sessions on b have to move: the group's primary is
	// another one. It is called for every command, and must be cheap.
	Moved(b Backend) bool
	// Unheard reports whether the member whose server b is says nothing at present,
	// so that its server will not end the sessions that it has, either.
	Unheard(b Backend) bool
	// Fresh reports whether what b's server answers now is as new as the group's
	// consistency promises; always: as new as can be. It is called for every
	// statement, and must be cheap.
	Fresh(b Backend, always bool) bool
	// AwaitFresh waits until it is, or sessions on b have to move; an error says why
	// it may never be.
	AwaitFresh(ctx context.Context, b Backend, always bool) error
	// Departure is how this member left the group.
	Departure() Departure
	// Adrift reports that the group is out of reach: sessions run on the local mysqld to
	// administer the group, and must not read data there.
	Adrift() bool
	// NewXID returns an xid that nobody can guess and nobody else uses: the
	// gtrid as plain ASCII without quotes, at most 64 bytes.
	NewXID() string
	// Expect registers interest in the verdict on xid. It is called before XA
	// PREPARE is sent, so that the verdict cannot be missed.
	Expect(xid string) Ticket
	// ExpectDirect registers interest in the statement that committed under a
	// local GTID ("uuid:n"). It may be called after the group has ordered it.
	ExpectDirect(localGTID string) Ticket
}

// Departure says that whatever the group's primaries showed before At is in the GTID
// set. The zero value says nothing.
type Departure struct {
	At    time.Time
	GTIDs string
}

// Ticket is a session's interest in one verdict. Exactly one of Wait, to its
// end, or Cancel settles it.
type Ticket interface {
	// Wait returns after the verdict and, when that is to commit, after the
	// transaction is visible on the primary's mysqld. An error means that the
	// outcome is not known; ErrLeft that this member cannot learn it.
	Wait(ctx context.Context) (Outcome, error)
	// Prepared says that XA PREPARE was answered with OK: only then may the
	// verdict be carried out. It is called before Wait, and not at all where the
	// answer was lost.
	Prepared()
	// Cancel withdraws the interest.
	Cancel()
}

// Outcome is a verdict.
type Outcome struct {
	Committed bool
	// N is the group transaction number, GTID is "group:N".
	N    uint64
	GTID string
	// Errno, SQLState and Message say why it was aborted; a zero Errno stands
	// for error 3101.
	Errno    uint16
	SQLState string
	Message  string
}

// SessionInfo tells Admin who asks.
type SessionInfo struct {
	// User is the account's user name, Host the client's address.
	User, Host string
	// Schema is the default schema.
	Schema string
	// ThreadID is CONNECTION_ID() on the primary's mysqld.
	ThreadID uint32
	// Locked: the session is in a LOCK TABLES section. InTransaction: it is in a
	// transaction. Both and Account are set for Exec and Function only.
	Locked, InTransaction bool
	// Account asks mysqld who the session is and what it may do.
	Account func() (Account, error)
}

// AdminStatement is a statement that concerns the group, not mysqld.
type AdminStatement struct {
	// Class is StartGroup, StopGroup, Set for an assignment of a group_replication
	// variable, or Maintenance for RESET PERSIST.
	Class sqlparse.Class
	// Text is the whole statement.
	Text string
	// Set are the assignments of a Set.
	Set []Assignment
	// User and Password are options of StartGroup, nil where they are not given.
	User, Password *string
	// Reset is the variable that RESET PERSIST names; IfExists: it need not be there.
	Reset    string
	IfExists bool
	// Consistency notes what group_replication_consistency is in the session from now
	// on.
	Consistency func(level string)
	// Warn notes a warning for the client.
	Warn func(code uint16, message string)
}

// Assignment is one of a SET list.
type Assignment struct {
	// Scope is GLOBAL, PERSIST, PERSIST_ONLY, or SESSION also where none is given.
	Scope string
	// Name is the variable, in lower case.
	Name  string
	Value Value
}

// NamedValue is a variable with its value.
type NamedValue struct{ Name, Value string }

// GroupCall is a call of one of the group's functions.
type GroupCall struct {
	Name string // in lower case
	Args []Value
}

// Table is a virtual table of performance_schema.
type Table struct {
	Columns []TableColumn
	// Rows hold one text per column; nil is NULL.
	Rows [][]*string
	// Beside: mysqld has the table too, and these rows are shown beside its own, but
	// for those for which Instead, a condition, holds ("" for none).
	Beside  bool
	Instead string
}

// TableColumn is a column of a Table.
type TableColumn struct {
	Name string
	// CastType is the type to cast literals to, for instance "CHAR(36)" or
	// "UNSIGNED"; empty is CHAR(255).
	CastType string
}

// Admin answers what only the group knows. A *wire.ServerError is shown to the
// client as it is, any other error as 1105. A nil Admin leaves all of it to
// mysqld.
type Admin interface {
	// Exec runs START or STOP GROUP_REPLICATION, or sets variables. done is
	// false when mysqld should run the statement instead.
	Exec(ctx context.Context, who SessionInfo, st AdminStatement) (done bool, err error)
	// Variables returns all group_replication variables as SHOW VARIABLES shows
	// them, Status the group's status variables.
	Variables(ctx context.Context, who SessionInfo) []NamedValue
	Status(ctx context.Context, who SessionInfo) []NamedValue
	// Function runs one of the group's functions, on behalf of a session outside of
	// any wait, and returns its result; ok is false for one that mysqld should run.
	Function(ctx context.Context, who SessionInfo, call GroupCall) (result string, ok bool, err error)
	// Table returns performance_schema.name (lower case); ok is false for a
	// table that mysqld should answer.
	Table(ctx context.Context, who SessionInfo, name string) (t Table, ok bool)
	// Variable returns the value of a group_replication variable (lower case);
	// numeric says that it is shown as a number; ok is false for a variable
	// that mysqld should answer.
	Variable(ctx context.Context, who SessionInfo, name string) (value string, numeric, ok bool)
}
