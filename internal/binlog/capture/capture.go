// Package capture is the one reader of the local mysqld's binary log: it turns
// the stream of events into what the group has to order (prepared
// transactions, direct statements), with write set, snapshot and a body that
// any member can apply.
//
// It owns the dump connection, the account of positions, and the knowledge
// which of the group's numbers this binary log holds. It must never write to
// mysqld, decide about a transaction, or hand out an event twice within one
// Run.
package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/rs/zerolog"

	"cohort/internal/binlog"
)

// Errors of this package. Run and ScanDirects wrap them, or those of package
// binlog for malformed events, or the network's.
var (
	// ErrPosition means that our account of positions and mysqld's differ.
	ErrPosition = errors.New("capture: binary log position")
	// ErrUnterminated means that an event came where it has no place in the
	// flow of a transaction.
	ErrUnterminated = errors.New("capture: transaction not terminated")
	// ErrIncident means that mysqld lost events: this binary log does not hold
	// everything that its data hold, so the member has to be provisioned anew.
	ErrIncident = errors.New("capture: mysqld logged an incident")
)

// Heartbeats that mysqld sends while it has nothing else to send, and how long
// the connection may be silent before it counts as lost.
const (
	DefaultHeartbeat   = time.Second
	DefaultReadTimeout = 10 * time.Second
)

// Options configure a Capture.
type Options struct {
	// Network ("unix" or "tcp"), Addr, User and Password reach the local mysqld.
	// The account needs REPLICATION SLAVE.
	Network  string
	Addr     string
	User     string
	Password string
	// Dialer replaces net.Dialer in tests.
	Dialer client.Dialer
	// ServerID is the replica's server id shown to mysqld; it must be nobody
	// else's in the group.
	ServerID uint32
	// GroupUUID is the UUID of the group's GTIDs (group_replication_group_name).
	GroupUUID string
	// Executed is the snapshot at the place where Run starts: exactly the group
	// transactions that precede it in this binary log. It must not be newer
	// than that place. When Run starts at the head of a file it may be left
	// empty, since the file says it.
	Executed Snapshot
	// Extractor makes the write sets (certify/writeset).
	Extractor Extractor
	// TransactionSizeLimit in bytes refuses longer prepared transactions with
	// error 3100; 0 is no limit. See SetTransactionSizeLimit.
	TransactionSizeLimit int64
	// SpillDir is where bodies above 4 MB lie, in files without a name. The
	// empty string means the system's directory for temporary files.
	SpillDir string
	// OnGroup, if not nil, is called in binary log order when a transaction
	// under group:n went by. It must not block.
	OnGroup func(n uint64)
	// Heartbeat and ReadTimeout default to DefaultHeartbeat, DefaultReadTimeout.
	Heartbeat   time.Duration
	ReadTimeout time.Duration
	Logger      zerolog.Logger
}

// Capture reads the binary log. Its snapshot outlives a lost connection: Run
// again from Position while the same mysqld runs.
type Capture struct {
	opt   Options
	group binlog.UUID
	limit atomic.Int64
	asm   assembler
	mu    sync.Mutex
	place StartAt // guarded by mu
	busy  atomic.Bool
}

// New checks the options and returns a Capture; nothing is connected yet.
func New(opt Options) (*Capture, error) {
	group, err := binlog.ParseUUID(opt.GroupUUID)
	if err != nil {
		return nil, fmt.Errorf("capture: group UUID: %w", err)
	}
	if opt.Extractor == nil {
		return nil, errors.New("capture: no extractor")
	}
	if opt.ServerID == 0 {
		return nil, errors.New("capture: server id 0")
	}
	if opt.Network == "" {
		opt.Network = "unix"
	}
	if opt.Heartbeat <= 0 {
		opt.Heartbeat = DefaultHeartbeat
	}
	if opt.ReadTimeout <= 0 {
		opt.ReadTimeout = DefaultReadTimeout
	}
	c := &Capture{opt: opt, group: group}
	c.limit.Store(opt.TransactionSizeLimit)
	c.asm = *newAssembler(&c.opt, group, c.limit.Load)
	c.asm.tracker.low = opt.Executed.Low
	for _, n := range opt.Executed.Extra {
		c.asm.tracker.add(n)
	}
	return c, nil
}

func newAssembler(opt *Options, group binlog.UUID, limit func() int64) *assembler {
	return &assembler{
		opt: opt, group: group, ex: opt.Extractor, limit: limit,
		wanted: func(Kind) bool { return true },
		body:   builder{dir: opt.SpillDir, skip: true},
	}
}

// SetTransactionSizeLimit changes Options.TransactionSizeLimit from the next
// event on.
func (c *Capture) SetTransactionSizeLimit(bytes int64) { c.limit.Store(bytes) }

// Position is where the binary log stands behind the last transaction that the
// sink took. It is the zero StartAt before the first Run.
func (c *Capture) Position() StartAt {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.place
}

func (c *Capture) setPosition(p StartAt) {
	c.mu.Lock()
	c.place = p
	c.mu.Unlock()
}

// Run reads from start, which must be at a transaction's boundary, until ctx
// ends, the connection is lost or the sink fails, and returns that error. sink
// is called in binary log order from one goroutine; while it blocks nothing
// more is read. When it fails, its Captured was not taken and Position stays
// before it.
func (c *Capture) Run(ctx context.Context, start StartAt, sink func(Captured) error) error {
	if !c.busy.CompareAndSwap(false, true) {
		return errors.New("capture: already running")
	}
	defer c.busy.Store(false)
	d, err := dialDump(ctx, &c.opt, start, 0, c.opt.Heartbeat, c.opt.ReadTimeout)
	if err != nil {
		return err
	}
	defer d.close()
	a := &c.asm
	a.restart(start)
	a.sink = sink
	defer a.stop()
	c.setPosition(start)
	c.opt.Logger.Info().Str("file", start.File).Uint64("pos", start.Pos).Msg("capture reads the binary log")
	last := start
	for {
		ev, err := d.next()
		if err != nil {
			return contextError(ctx, err)
		}
		if err := a.handle(ctx, ev); err != nil {
			return contextError(ctx, err)
		}
		if last != a.done {
			last = a.done
			c.setPosition(last)
		}
	}
}

// restart forgets the stream, not the snapshot.
func (a *assembler) restart(start StartAt) {
	a.file, a.pos, a.done = start.File, start.Pos, start
	a.phase, a.checksum, a.inner = phaseIdle, false, false
	a.body.drop()
}

func (a *assembler) stop() {
	a.body.drop()
	a.payload.close()
	a.sink = nil
}

func contextError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// ScanDirects reads the binary log from from (a transaction's boundary) to end
// and calls fn, in order, for what mysqld committed by itself in between
// (KindDirect), and for decisions about prepared transactions that carry a local
// GTID (KindXADecision). It ends where the binary log ends if that comes first. It is
// for start-up, before Run: it uses the same Extractor. The snapshots are
// exact, whatever from.Pos is, because the file is read from its head.
func (c *Capture) ScanDirects(ctx context.Context, from, end StartAt, fn func(Captured) error) error {
	if !c.busy.CompareAndSwap(false, true) {
		return errors.New("capture: already running")
	}
	defer c.busy.Store(false)
	head := StartAt{File: from.File, Pos: binlog.MagicSize}
	d, err := dialDump(ctx, &c.opt, head, dumpNonBlock, 0, 6*c.opt.ReadTimeout)
	if err != nil {
		return err
	}
	defer d.close()
	opt := c.opt
	opt.OnGroup = nil
	a := newAssembler(&opt, c.group, func() int64 { return 0 })
	a.restart(head)
	// Definitions are those of now, not of then: the extractor tells where that
	// shows, and forgets them afterwards.
	opt.Extractor.Invalidate()
	defer opt.Extractor.Invalidate()
	defer a.stop()
	inside := func() bool {
		// pos is behind the GTID event when this is asked first.
		return from.Before(StartAt{a.file, a.pos})
	}
	a.wanted = func(k Kind) bool { return (k == KindDirect || k == KindXADecision) && inside() }
	a.sink = fn
	for a.done.Before(end) {
		ev, err := d.next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return contextError(ctx, err)
		}
		if err := a.handle(ctx, ev); err != nil {
			return contextError(ctx, err)
		}
	}
	if a.phase != phaseIdle {
		return fmt.Errorf("%w: %s at the end of a scan", ErrUnterminated, a.gtid.String())
	}
	return nil
}
