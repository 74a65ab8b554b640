package sqlparse

// Class says what a statement is to a proxy that wraps transactions.
type Class uint8

// Classes of statements.
const (
	// Unknown is anything not recognised: a possible write, and possibly one
	// that commits implicitly.
	Unknown Class = iota
	// Empty holds no statement at all: white space and comments.
	Empty
	// Read is SELECT, TABLE, VALUES, WITH … SELECT, SHOW, EXPLAIN, DESCRIBE,
	// HELP, CHECKSUM TABLE. A SELECT may still write through a function.
	Read
	// DML is INSERT, REPLACE, UPDATE, DELETE, WITH … UPDATE or DELETE.
	DML
	// LoadData is LOAD DATA and LOAD XML; FlagLocal for LOCAL.
	LoadData
	// Begin is BEGIN [WORK] and START TRANSACTION.
	Begin
	// Commit and Rollback end a transaction; see Chain and Release.
	Commit
	Rollback
	// Savepoint, RollbackTo and ReleaseSavepoint: Name is the savepoint.
	Savepoint
	RollbackTo
	ReleaseSavepoint
	// Set is a list of assignments, SET NAMES, SET ROLE and the like.
	Set
	// SetTransaction is SET [GLOBAL|SESSION] TRANSACTION; FlagOneShot when it
	// is for the next transaction only.
	SetTransaction
	// The XA statements; Name is the xid.
	XAStart
	XAEnd
	XAPrepare
	XACommit // FlagOnePhase
	XARollback
	XARecover
	// DDL commits implicitly: CREATE, ALTER, DROP, RENAME, TRUNCATE, IMPORT.
	DDL
	// Account is an account statement; it commits implicitly.
	Account
	// Maintenance commits implicitly: ANALYZE, OPTIMIZE, REPAIR, CHECK TABLE,
	// CACHE INDEX, LOAD INDEX INTO CACHE, FLUSH, RESET, INSTALL, UNINSTALL,
	// replication control, CLONE.
	Maintenance
	// CreateTemporary and DropTemporary do not commit; Name is the (first) table.
	CreateTemporary
	DropTemporary
	// LockTables commits implicitly; UnlockTables does when tables are locked.
	LockTables
	UnlockTables
	// LockInstance is LOCK INSTANCE FOR BACKUP and UNLOCK INSTANCE.
	LockInstance
	// Call is CALL; Name is the procedure.
	Call
	// Do is DO.
	Do
	// Prepare, Execute and Deallocate are the text protocol's prepared
	// statements: Name is the statement, Arg what it is prepared from.
	Prepare
	Execute
	Deallocate
	// Diagnostics reads the diagnostics area and leaves it alone: SHOW
	// WARNINGS, SHOW ERRORS, SHOW COUNT(*) …, GET DIAGNOSTICS.
	Diagnostics
	// Handler is HANDLER … OPEN, READ, CLOSE.
	Handler
	// Kill is KILL.
	Kill
	// Use is USE; Name is the schema.
	Use
	// Signal is SIGNAL and RESIGNAL.
	Signal
	// StartGroup and StopGroup are START and STOP GROUP_REPLICATION.
	StartGroup
	StopGroup
	// Shutdown is SHUTDOWN and RESTART.
	Shutdown
)

var classNames = [...]string{
	"Unknown", "Empty", "Read", "DML", "LoadData", "Begin", "Commit", "Rollback", "Savepoint", "RollbackTo",
	"ReleaseSavepoint", "Set", "SetTransaction", "XAStart", "XAEnd", "XAPrepare", "XACommit", "XARollback",
	"XARecover", "DDL", "Account", "Maintenance", "CreateTemporary", "DropTemporary", "LockTables",
	"UnlockTables", "LockInstance", "Call", "Do", "Prepare", "Execute", "Deallocate", "Diagnostics", "Handler",
	"Kill", "Use", "Signal", "StartGroup", "StopGroup", "Shutdown",
}

// String returns the class's name.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return "Class?"
}

// CommitsImplicitly reports whether the server ends an open transaction
// before it runs a statement of this class.
func (c Class) CommitsImplicitly() bool {
	switch c {
	case DDL, Account, Maintenance, LockTables, Begin:
		return true
	}
	return false
}

// Flags tell more about a statement than its class.
type Flags uint32

// Flags of a statement.
const (
	// FlagReadOnly, FlagReadWrite and FlagSnapshot are options of START
	// TRANSACTION; the first two also of SET TRANSACTION.
	FlagReadOnly Flags = 1 << iota
	FlagReadWrite
	FlagSnapshot
	// FlagOnePhase is XA COMMIT … ONE PHASE.
	FlagOnePhase
	// FlagOneShot is SET TRANSACTION without a scope.
	FlagOneShot
	// FlagLocal is LOAD DATA LOCAL.
	FlagLocal
	// FlagRowCount: ROW_COUNT() is called.
	FlagRowCount
	// FlagDiagVar: @@warning_count or @@error_count is read.
	FlagDiagVar
	// FlagGroupTable: an identifier that starts with replication_group_ occurs.
	FlagGroupTable
	// FlagGroupVar: @@group_replication_… is read.
	FlagGroupVar
	// FlagInto: INTO occurs at the outermost level of a SELECT.
	FlagInto
	// FlagLocking: a SELECT asks for row locks.
	FlagLocking
	// FlagForbidden: the statement assigns a variable that clients may not
	// set; Name is the variable.
	FlagForbidden
	// FlagSetGroupVar: the statement assigns group_replication_…; Name is the
	// variable.
	FlagSetGroupVar
	// FlagTrackers: the statement assigns session_track_….
	FlagTrackers
	// FlagMixed: a SET list that assigns autocommit and something else.
	FlagMixed
	// FlagXAOption: JOIN, RESUME, SUSPEND or FOR MIGRATE follow the xid.
	FlagXAOption
	// FlagCall: a function that the server does not bring, or a stored
	// function, may be called: an identifier is followed by a parenthesis.
	FlagCall
	// FlagFrom: a FROM occurs at the outermost level of a SELECT, or the
	// statement is TABLE.
	FlagFrom
	// FlagVersioned: part of the statement stood in a versioned comment.
	FlagVersioned
	// FlagGroupFunc: a function group_replication_…() is called; see GroupCalls.
	FlagGroupFunc
	// FlagShowVars: SHOW VARIABLES with LIKE or WHERE; see ShowVariables.
	FlagShowVars
	// FlagSharedTable: an identifier occurs that is the name of a table of
	// performance_schema which the server has and which may show the group, too.
	FlagSharedTable
	// FlagShowStatus: SHOW STATUS with LIKE or WHERE; see ShowVariables.
	FlagShowStatus
	// FlagBad: the text ends inside a literal or a comment.
	FlagBad
)

// Option is a choice a statement may make or leave to its default.
type Option uint8

// Values of an Option.
const (
	Unset Option = iota
	Yes
	No
	// Expr: the value is an expression, known only after it ran.
	Expr
)

// Span is a piece of the text.
type Span struct{ Start, End int }

// Of returns the piece of sql.
func (s Span) Of(sql []byte) []byte { return sql[s.Start:s.End] }

// Statement is what Classify found out about the first statement of a text.
type Statement struct {
	Class Class
	Flags Flags
	// Chain and Release are options of COMMIT and ROLLBACK.
	Chain, Release Option
	// Autocommit is what a SET assigns to the session's autocommit.
	Autocommit Option
	// Name and Arg: see the classes.
	Name, Arg Span
	// Start is where the statement's first token begins.
	Start int
	// End is the offset behind the statement's last byte, the delimiter left
	// out; Rest is where the text of the next statement begins, len(sql) when
	// there is none but white space and comments.
	End, Rest int
}

// Has reports whether any of the flags is set.
func (s *Statement) Has(f Flags) bool { return s.Flags&f != 0 }
