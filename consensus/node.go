package consensus

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/rs/zerolog"

	"cohort/consensus/state"
	"cohort/internal/binlog/groupbinlog"
)

// shardID is the one raft group of a member.
const shardID = 1

// Node is this member's part of the ordered log. New starts it, Run does its
// chores, Close ends it. All methods are safe for concurrent use.
type Node struct {
	cfg      Config
	log      zerolog.Logger
	machine  *machine
	host     atomic.Pointer[host] // nil while this member has no replica
	hostMu   sync.Mutex           // one change of host at a time
	identity identity             // of the replica at work, needs hostMu
	fence    atomic.Pointer[fence]
	closed   atomic.Pointer[closedLog] // while there is a fence, soon after it
	forceMu  sync.Mutex                // one step towards a forced membership at a time
	forcing  sync.Mutex                // one Force at a time
	// strayed is why this member cannot follow a membership that was forced without
	// it.
	strayed atomic.Pointer[error]
	checked atomic.Bool // that no membership was forced without it
	// executed is the last Entrance's.
	executed  atomic.Uint64
	leader    leadership
	incoming  incoming
	insisting atomic.Bool // a TimeoutNow is being repeated
	reads     readGroup
	compact   compactor
	live      liveness
	expel     atomic.Int64 // Config.ExpelTimeout at present
	doubt     atomic.Pointer[func(uint64) bool]
	patient   atomic.Pointer[func(uint64) bool]

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	lifeMu sync.Mutex     // goroutines are started under it, and not after cancel
	wg     sync.WaitGroup // of these

	ckptBytes atomic.Uint64 // applied since the last checkpoint
	ckptWake  chan struct{} // cap 1

	proposer  atomic.Pointer[Proposer]
	joinMu    sync.Mutex    // one Join at a time
	joining   atomic.Uint64 // Nonce of the last Join, 0 before the first
	closeOnce sync.Once
	fatalOnce sync.Once
}

// New opens the member's log and state and takes part in the group's log at
// once: entries that were not in the last checkpoint are applied again, and the
// Observer told of them, possibly before New returns.
func New(cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	setRaftLogger(cfg.Logger)
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{cfg: cfg, log: cfg.Logger, ctx: ctx, cancel: cancel, ckptWake: make(chan struct{}, 1)}
	n.leader.init()
	n.machine = &machine{cfg: cfg, log: cfg.Logger, fatal: n.onFatal, applied: n.onApplied, live: &n.live}
	n.expel.Store(int64(cfg.ExpelTimeout))
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		cancel()
		return nil, fmt.Errorf("consensus: %w", err)
	}
	if err := checkDir(cfg); err != nil {
		cancel()
		return nil, fmt.Errorf("consensus: %w", err)
	}
	if err := n.machine.load(); err != nil {
		cancel()
		return nil, fmt.Errorf("consensus: %w", err)
	}
	if err := n.begin(); err != nil {
		n.cancel()
		if h := n.host.Load(); h != nil {
			h.nh.Close()
		}
		if c := n.closed.Load(); c != nil {
			c.nh.Close()
		}
		n.machine.close()
		return nil, err
	}
	return n, nil
}

// begin starts the replica that the directory holds, if any.
func (n *Node) begin() error {
	id, err := n.adoptIdentity()
	if err != nil {
		return fmt.Errorf("consensus: %w", err)
	}
	f, err := loadFence(n.cfg.Dir)
	if err != nil {
		return fmt.Errorf("consensus: %w", err)
	}
	if f != nil && (id.Replica == 0 || id.Generation == f.Generation) {
		// A crash came between the last two steps of retire, or of complete.
		if err := removeFence(n.cfg.Dir); err != nil {
			return fmt.Errorf("consensus: %w", err)
		}
		f = nil
	}
	switch {
	case id.Replica == 0:
		n.machine.left(n.cfg.ReplicaID)
		return nil
	case f != nil:
		n.fence.Store(f)
		return n.openClosed(id)
	case !n.static() && n.View().Founded:
		// Before the replica runs: with others like it, it might be a majority of
		// the members that there were.
		ctx, cancel := context.WithTimeout(n.ctx, forcedLook)
		defer cancel()
		if n.removed(ctx, askForced, id) {
			return n.stepAside(id)
		}
	}
	return n.startReplica(id)
}

// checkDir refuses a directory of which a part was lost: a replica that forgot
// its log could vote twice (a member of a group that takes new ones gets another
// replica then, see adoptIdentity), one that forgot its state would apply the rest
// of the log to nothing and throw its group binlog away. In a new directory it stores
// the first checkpoint, so that a log never exists without one.
func checkDir(cfg Config) error {
	exists := func(path ...string) bool {
		_, err := os.Stat(filepath.Join(append([]string{cfg.Dir}, path...)...))
		return err == nil
	}
	haveState, haveLog := exists(checkpointName), exists("raft", flagFile)
	if haveState {
		st, _, err := loadCheckpoint(cfg.Dir)
		if err != nil {
			return err
		}
		if !haveLog && st.Index() > 0 && len(cfg.InitialMembers) > 0 {
			return fmt.Errorf("%w: %s has a state but no log", ErrCorrupt, cfg.Dir)
		}
		return nil
	}
	switch {
	case haveLog:
		return fmt.Errorf("%w: %s has a log but no state", ErrCorrupt, cfg.Dir)
	case cfg.Store.LastN() > 0:
		return fmt.Errorf("%w: the group binlog has transactions up to %d, but %s is new", ErrCorrupt, cfg.Store.LastN(), cfg.Dir)
	}
	return storeCheckpoint(cfg.Dir, encodeCheckpoint(state.New(), groupbinlog.Position{}))
}

// deploymentID keeps groups of different names apart a second time, after the
// transport: dragonboat drops frames of another deployment.
func deploymentID(group string) uint64 {
	h := fnv.New64a()
	h.Write([]byte("cohort group "))
	h.Write([]byte(group))
	return h.Sum64() | 1 // 0 means any
}

// Run does the node's chores until ctx ends or the member has to stop; it
// returns the reason for the latter.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(n.ctx, cancel)
	defer stop()
	var wg sync.WaitGroup
	chores := []func(context.Context){n.runCheckpoints, n.runCompaction, n.runReconcile, n.runStuckWatch}
	if !n.static() {
		chores = append(chores, n.runRemovalWatch, n.runFence)
	}
	if n.cfg.FollowPrimary {
		chores = append(chores, n.runFollowPrimary)
	}
	for _, f := range chores {
		wg.Go(func() { f(ctx) })
	}
	wg.Wait()
	return n.machine.err()
}

// Close leaves the log, without a word to the others: a member that closes is
// as one that crashed, only that it first writes a checkpoint. It waits for
// everything the node started, only not for a log that stands still.
func (n *Node) Close() error { return n.close(true) }

// close is Close; without a checkpoint it leaves what a crash would.
func (n *Node) close(checkpoint bool) error {
	var err error
	n.closeOnce.Do(func() {
		n.lifeMu.Lock()
		n.cancel()
		n.lifeMu.Unlock()
		n.wg.Wait()
		if checkpoint && n.machine.err() == nil {
			err = n.machine.checkpoint()
		}
		n.hostMu.Lock()
		defer n.hostMu.Unlock()
		if errors.Is(n.machine.err(), ErrStuck) {
			return // dragonboat would wait for what stands still; the process ends
		}
		if h := n.host.Load(); h != nil {
			h.nh.Close()
		}
		if c := n.closed.Load(); c != nil {
			c.nh.Close()
		}
		n.machine.close()
	})
	return err
}

// spawn runs f in a goroutine that Close waits for, unless it is too late.
func (n *Node) spawn(f func()) bool {
	n.lifeMu.Lock()
	defer n.lifeMu.Unlock()
	if n.ctx.Err() != nil {
		return false
	}
	n.wg.Go(f)
	return true
}

// Err returns what stopped the member, nil while it works.
func (n *Node) Err() error { return n.machine.err() }

func (n *Node) onFatal(err error) {
	n.fatalOnce.Do(func() {
		if n.cfg.OnFatal != nil {
			n.cfg.OnFatal(err)
		}
	})
}

// onApplied runs on the apply goroutine after each batch.
func (n *Node) onApplied(index uint64, size int) {
	n.compact.note(index, size)
	if n.ckptBytes.Add(uint64(size)) >= n.cfg.CheckpointBytes {
		select {
		case n.ckptWake <- struct{}{}:
		default:
		}
	}
	if p := n.proposer.Load(); p != nil {
		p.applied()
	}
}

// runCheckpoints bounds what a restart has to apply again.
func (n *Node) runCheckpoints(ctx context.Context) {
	t := time.NewTicker(n.cfg.CheckpointInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-n.ckptWake:
		}
		n.ckptBytes.Store(0)
		if err := n.machine.checkpoint(); err != nil {
			if !errors.Is(err, ErrFailed) {
				n.log.Error().Err(err).Msg("checkpoint failed")
			}
			return
		}
	}
}

// View returns the current picture of the group. It costs nothing; LastN,
// Index and Checksum in it are those of the last change of the view, see LastN.
func (n *Node) View() *state.View { return n.machine.view.Load() }

// LastN returns the last group transaction number that was decided here.
func (n *Node) LastN() uint64 { return n.machine.lastN.Load() }

// Applied returns the index of the last log entry applied here.
func (n *Node) Applied() uint64 { return n.machine.index.Load() }

// Verdict returns what was decided about an xid. Verdicts are remembered for the
// last state.MinRecent decisions and until their origin reported them stable.
func (n *Node) Verdict(xid string) (state.Outcome, bool) { return n.machine.outcome(xid, false) }

// DirectByLocalGTID returns what became of a direct statement.
func (n *Node) DirectByLocalGTID(gtid string) (state.Outcome, bool) {
	return n.machine.outcome(gtid, true)
}

// ChecksumAt returns the chained checksum of everything up to transaction nr,
// where that is recent enough to be known.
func (n *Node) ChecksumAt(nr uint64) (uint64, bool) { return n.machine.checksumAt(nr) }

// EncodedState returns the encoded group state; members at the same Applied
// index return the same bytes.
func (n *Node) EncodedState() []byte { return n.machine.encoded() }

var _ raftio.IRaftEventListener = (*leadership)(nil)
