package consensus

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/rs/zerolog"

	"cohort/consensus/state"
	"cohort/internal/allowlist"
	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/grouptls"
)

// Sentinel errors.
var (
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("consensus: closed")
	// ErrFenced is returned by a proposer whose incarnation has ended, and for a
	// change of state that its incarnation can no longer make.
	ErrFenced = errors.New("consensus: this incarnation has ended")
	// ErrNotFounded is returned before the group was founded by a Bootstrap.
	ErrNotFounded = errors.New("consensus: the group has not been founded")
	// ErrNotAdmitted is returned while this member has no place in the log: it has
	// not entered the group yet, or the group goes on without it. See Node.Enter.
	ErrNotAdmitted = errors.New("consensus: this member has no place in the group's log")
	// ErrAddress means that the address of this member's log cannot be used.
	ErrAddress = errors.New("consensus: cannot listen at the local address")
	// ErrNoSeed is returned by Enter when no member that was asked could speak for
	// the group.
	ErrNoSeed = errors.New("consensus: no seed lets this member into the group")
	// ErrNoMajority is what a member answers that cannot speak for the group.
	ErrNoMajority = errors.New("consensus: no majority")
	// ErrOtherGroup, ErrOtherSettings and ErrOtherHistory are refusals of Enter: the
	// seed is of a group of another name; what all members must share differs; the
	// data that this member holds are not the group's.
	ErrOtherGroup    = errors.New("consensus: the seed belongs to another group")
	ErrOtherSettings = errors.New("consensus: this member's settings differ from the group's")
	ErrOtherHistory  = errors.New("consensus: this member's data are not the group's")
	// ErrDuplicateServerID and ErrDuplicateAddress are refusals of Enter: a member of
	// the group has the server_id, or the address.
	ErrDuplicateServerID = errors.New("consensus: another member has this server_id")
	ErrDuplicateAddress  = errors.New("consensus: another member has this address")
	// ErrGroupFull is the refusal of a tenth member.
	ErrGroupFull = errors.New("consensus: the group is full")
	// ErrPresent is a refusal for now: the group takes an earlier life of this
	// member for alive.
	ErrPresent = errors.New("consensus: the group takes this member for present")

	errNotMember = errors.New("consensus: not in the group itself")
	errAsked     = errors.New("consensus: the question was not answered")

	// ErrNotJoined is returned for calls that need a Join first.
	ErrNotJoined = errors.New("consensus: this member has not joined")
	// ErrDuplicateUUID is returned by Join when another member, whatever its state,
	// has the same server_uuid: two members share one mysqld or one was made of a
	// copy of the other's data directory. Removing the copy's auto.cnf gives it a
	// new one.
	ErrDuplicateUUID = errors.New("consensus: another member has this server_uuid")
	// ErrBaseTooLong is returned by Bootstrap for a Base above state.MaxBase.
	ErrBaseTooLong = errors.New("consensus: the founding member's GTID set is too long")
	// ErrTooManyAborts is returned by ForceVerdict when as many forced aborts as
	// can be kept (state.MaxForced) wait for their transactions. Then nothing is
	// known of those that have no verdict.
	ErrTooManyAborts = errors.New("consensus: too many forced aborts wait for their transactions")
	// ErrStuck means that the log stands still here, though nothing has failed.
	ErrStuck = errors.New("consensus: the log stands still on this member")
	// ErrFailed wraps what stopped the state machine.
	ErrFailed = errors.New("consensus: the member has stopped")
	// ErrNotAppointed is returned by AppointPrimary when the member is not ONLINE
	// or another one was appointed or elected before.
	ErrNotAppointed = errors.New("consensus: the member was not appointed")
	// ErrRowsMissing means that the log no longer holds what this member lacks: it
	// was sent a snapshot, which has no rows, and there is no RowSource.
	ErrRowsMissing = errors.New("consensus: the log was compacted beyond this member's group binlog")
	// ErrDiverged means that what this member's group binlog holds is not the
	// beginning of what the group ordered: its data are not the group's.
	ErrDiverged = errors.New("consensus: this member's transactions are not the group's; its data must be provisioned anew")
	// ErrCorrupt means that local files contradict each other.
	ErrCorrupt = errors.New("consensus: local state is corrupt")
	// ErrNoTransfer means that raft leadership did not move.
	ErrNoTransfer = errors.New("consensus: leadership was not transferred")
)

// GroupBinlog is the store of the rows; *groupbinlog.Store is one.
type GroupBinlog interface {
	// Append writes transaction n, which must be the last one plus 1.
	Append(n, dep uint64, meta binlog.Meta, body io.Reader, bodyLen int64) error
	// Sync makes everything appended durable.
	Sync() (groupbinlog.Position, error)
	// Position is the end of what was appended.
	Position() groupbinlog.Position
	// Truncate removes what lies after the position.
	Truncate(groupbinlog.Position) error
	// Reset empties the store so that the next transaction is afterN+1.
	Reset(afterN uint64) (groupbinlog.Position, error)
	// LastN is the number of the last transaction.
	LastN() uint64
	// Limit hides what lies beyond n from readers until another Limit.
	Limit(n uint64)
}

// Observer is told what the log decides.
type Observer interface {
	// Ordered is called in the order of the log, from the goroutine that applies
	// it: it must enqueue and return. It owns the slice. After a restart it is
	// called again for entries after the last checkpoint.
	Ordered([]state.Decision)
}

// SkipObserver is an Observer that is also told when it was not told everything.
type SkipObserver interface {
	// Skipped is called, from the goroutine that calls Ordered, after the state of
	// another member took the place of decisions that were never applied here: what
	// somebody waits for has to be looked up.
	Skipped()
}

// Defaults of Config.
const (
	DefaultRTT                  = 10 * time.Millisecond
	DefaultElectionRTT          = 60
	DefaultHeartbeatRTT         = 6
	DefaultCompressionThreshold = 1000000
	DefaultFragmentSize         = 256 << 10
	DefaultWindowBytes          = 4 << 20
	DefaultWindowEntries        = 4
	DefaultQueueBytes           = 8 << 20
	DefaultCheckpointInterval   = 5 * time.Second
	DefaultCheckpointBytes      = 64 << 20
	DefaultRetainLogBytes       = 1 << 30
	DefaultMaxKeys              = 128 << 10
)

// Config configures a Node. Zero values of optional fields mean the defaults
// above.
type Config struct {
	// Dir is where the log and the state are kept. Not shared with anyone.
	Dir string
	// GroupName is the UUID of the group. Members of different groups never
	// talk to each other, even where addresses were mixed up.
	GroupName string
	// ReplicaID is this member's id in the group for good, not 0; see MemberID. In a
	// group begun with InitialMembers it is its number there.
	ReplicaID uint64
	// LocalAddress is host:port where the other members reach this one's log.
	LocalAddress string
	// ListenAddress is where to listen, LocalAddress when empty.
	ListenAddress string
	// InitialMembers has the LocalAddress of every member by id, this one
	// included, for a log that several members begin at once; equal on all. Empty
	// for a group that one member founds and others enter (Node.Enter).
	InitialMembers map[uint64]string
	// TLS encrypts the connections to the other members; nil: it does not.
	TLS *grouptls.Config
	// Allowlist says which addresses may connect; nil: all.
	Allowlist *allowlist.List
	// Allowed is the fence: messages of a replica for which it is false are not
	// taken. It is called for every frame and must be cheap. May be nil.
	Allowed func(replica uint64) bool
	// Seeds are addresses of members to ask for entrance; this member's own may be
	// among them.
	Seeds []string
	// ExpelTimeout is how long a member may be OFFLINE or in ERROR before the log
	// goes on without it; 0: for ever. See Node.SetExpelTimeout.
	ExpelTimeout time.Duration
	// Store is the group binlog. New truncates it to what the state says. The
	// caller closes it after the node.
	Store GroupBinlog
	// Observer is told the decisions; may be nil.
	Observer Observer
	// Rows brings what the log no longer holds; nil: such a member stops with
	// ErrRowsMissing.
	Rows   RowSource
	Logger zerolog.Logger
	// OnFatal is called once, from any goroutine, when the member cannot go on;
	// the process should end soon. It must not block. May be nil.
	OnFatal func(error)

	// OnDiverged is told that this member's data are not the group's (ErrDiverged).
	// Nothing is applied any more, but the process can go on to say so. It must not
	// block; nil: that is fatal.
	OnDiverged func(error)

	// RTT is raft's tick. Elections are held after ElectionRTT to twice that
	// many ticks without a leader, heartbeats sent every HeartbeatRTT. Equal on
	// all members. A failover of the primary's process waits for an election, so
	// the default is as short as is sound: a leader's heartbeats wait for its
	// fsyncs, which take a few hundred milliseconds on a busy disk, and election
	// timeouts under 500 ms lose leaders under load.
	RTT          time.Duration
	ElectionRTT  uint64
	HeartbeatRTT uint64

	// CompressionThreshold is the size in bytes of a body from which on it is
	// compressed; negative: never.
	CompressionThreshold int
	// FragmentSize is the size in bytes of the parts into which a body is cut
	// that is larger than inlineFragments of them, or that is not in memory.
	// Small parts let small transactions pass quickly.
	FragmentSize int
	// WindowBytes and WindowEntries bound what is proposed and not yet decided.
	// What comes while the window is full goes into the next entry together.
	WindowBytes   int
	WindowEntries int
	// QueueBytes bounds what Submit takes before it blocks, the window included.
	QueueBytes int64
	// MaxKeys is the size of a write set from which on whole tables are the unit
	// of conflict.
	MaxKeys int

	// CheckpointInterval and CheckpointBytes bound what is applied again after a
	// restart.
	CheckpointInterval time.Duration
	CheckpointBytes    uint64
	// RetainLogBytes is how much of the log is kept for members that are away.
	RetainLogBytes uint64
	// StuckTimeout is how long the log may stand still on this member before it
	// stops, because a write or fsync does not end, say.
	StuckTimeout time.Duration
	// FollowPrimary moves raft leadership to the primary's member while that is
	// ONLINE.
	FollowPrimary bool

	// proposeTimeout is how long an entry may take before it is sent again, at
	// first. Normally it takes milliseconds, with a full window on a slow disk a
	// few hundred; a lost leader is noticed otherwise. An entry may
	// be lost unnoticed, most likely at a leader that hands over, and holds up all
	// that follow: a failover may cost that much.
	proposeTimeout time.Duration
	// controlTimeout is the same of a control entry.
	controlTimeout time.Duration
	// wrapLogDB is the tests': it puts something between dragonboat and the log's
	// files.
	wrapLogDB func(raftio.ILogDB) raftio.ILogDB
	// forceFault fails a step towards a forced membership, in tests.
	forceFault func(step string, member uint64) error
}

const defaultProposeTimeout = 700 * time.Millisecond

// inlineFragments: a body of up to so many fragments travels in one piece.
const inlineFragments = 4

// withDefaults returns c with defaults filled in, or says what is wrong.
func (c Config) withDefaults() (Config, error) {
	setDefault(&c.ListenAddress, c.LocalAddress)
	setDefault(&c.RTT, DefaultRTT)
	setDefault(&c.ElectionRTT, DefaultElectionRTT)
	setDefault(&c.HeartbeatRTT, DefaultHeartbeatRTT)
	setDefault(&c.CompressionThreshold, DefaultCompressionThreshold)
	setDefault(&c.FragmentSize, DefaultFragmentSize)
	setDefault(&c.WindowBytes, DefaultWindowBytes)
	setDefault(&c.WindowEntries, DefaultWindowEntries)
	setDefault(&c.QueueBytes, DefaultQueueBytes)
	setDefault(&c.MaxKeys, DefaultMaxKeys)
	setDefault(&c.proposeTimeout, defaultProposeTimeout)
	setDefault(&c.controlTimeout, defaultControlTimeout)
	setDefault(&c.CheckpointInterval, DefaultCheckpointInterval)
	setDefault(&c.CheckpointBytes, DefaultCheckpointBytes)
	setDefault(&c.RetainLogBytes, DefaultRetainLogBytes)
	setDefault(&c.StuckTimeout, DefaultStuckTimeout)
	switch {
	case c.Dir == "":
		return c, errors.New("consensus: no directory")
	case c.GroupName == "":
		return c, errors.New("consensus: no group name")
	case c.Store == nil:
		return c, errors.New("consensus: no group binlog")
	case c.ReplicaID == 0 || c.LocalAddress == "":
		return c, errors.New("consensus: no member id or no local address")
	case len(c.InitialMembers) > 0 && c.InitialMembers[c.ReplicaID] != c.LocalAddress:
		return c, fmt.Errorf("consensus: replica %d is not in the list of members at %q", c.ReplicaID, c.LocalAddress)
	case c.StuckTimeout < time.Second:
		return c, fmt.Errorf("consensus: a timeout of %s for a log that stands still", c.StuckTimeout)
	case c.RTT < time.Millisecond:
		return c, fmt.Errorf("consensus: RTT %s is below 1ms", c.RTT)
	case c.FragmentSize > state.MaxFragment || c.FragmentSize < 1<<10:
		return c, fmt.Errorf("consensus: fragment size %d", c.FragmentSize)
	}
	return c, nil
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
