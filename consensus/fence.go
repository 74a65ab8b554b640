package consensus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/raftio"

	"cohort/internal/durable"
)

// A fence is a promise of this member to take part in one forced membership: the
// file is on disk before the member says yes. While it is there the replica does
// not run, so it neither votes nor takes entries but those of the one who forces.
// When the membership is complete, its generation moves into the identity, and
// the transport keeps replicas of any other one out for good.
type fence struct {
	// Generation is the lineage that the membership will begin.
	Generation uint64        `json:"generation"`
	Members    []forcedPlace `json:"members"`
	// Wrote are the attempts of which the log may hold entries, this one or earlier
	// ones: neither a majority nor a leader gave it these, so it must not run before
	// they are committed.
	Wrote []uint64 `json:"wrote,omitempty"`
	// Ready: the log holds all that the membership begins with, up to Last of Term.
	Ready bool   `json:"ready,omitempty"`
	Term  uint64 `json:"term,omitempty"`
	Last  uint64 `json:"last,omitempty"`
}

// forcedPlace is a member that was listed.
type forcedPlace struct {
	Member  uint64 `json:"member"`
	Replica uint64 `json:"replica"`
	Address string `json:"address"`
}

const fenceName = "fence"

func loadFence(dir string) (*fence, error) {
	b, err := os.ReadFile(filepath.Join(dir, fenceName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		var f fence
		if err = json.Unmarshal(b, &f); err == nil && f.Generation != 0 && len(f.Members) > 0 {
			return &f, nil
		}
	}
	// Never as if there were none: the others may count on it.
	return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, fenceName, errors.Join(err, errors.New("what this member promised cannot be read")))
}

func storeFence(dir string, f *fence) error { return storeJSON(dir, fenceName, f) }

func removeFence(dir string) error {
	if err := os.Remove(filepath.Join(dir, fenceName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", fenceName, err)
	}
	return durable.SyncDir(dir)
}

// storeJSON replaces a file so that a crash leaves the old one or the new one.
func storeJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := durable.WriteFile(filepath.Join(dir, name), append(b, '\n'), 0o640); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// closedLog is a log whose replica does not run.
type closedLog struct {
	nh *dragonboat.NodeHost
	db raftio.ILogDB
	id identity
}

// errLogClosed is for now: whoever waits for the log goes on waiting.
var errLogClosed = fmt.Errorf("consensus: the log is closed while a membership is forced: %w", dragonboat.ErrShardNotReady)

// fenceOff keeps the promise in mind and stops the replica.
func (n *Node) fenceOff(f *fence) error {
	if err := storeFence(n.cfg.Dir, f); err != nil {
		return err
	}
	n.fence.Store(f)
	n.log.Warn().Uint64("generation", f.Generation).Msg("a membership is being forced upon the group: this member's log is closed until that is complete")
	// Not here: the connection that asks for it is the replica's.
	if !n.spawn(n.closeLog) {
		return ErrClosed
	}
	return nil
}

// closeLog stops the replica; calls are taken as before.
func (n *Node) closeLog() {
	n.hostMu.Lock()
	defer n.hostMu.Unlock()
	h := n.host.Load()
	if h == nil || n.ctx.Err() != nil {
		return
	}
	id := n.identity
	n.host.Store(nil)
	h.nh.Close()
	n.leader.reset()
	if err := n.openClosed(id); err != nil {
		n.machine.fail(err)
	}
}

// openClosed opens the log without its replica. Needs hostMu, or nobody else to
// know n.
func (n *Node) openClosed(id identity) error {
	nh, db, err := n.openLog(id, true)
	if err != nil {
		return err
	}
	n.identity = id
	n.closed.Store(&closedLog{nh: nh, db: db, id: id})
	return nil
}

// reopen lets the replica run again, as what the identity on disk says.
func (n *Node) reopen() {
	n.hostMu.Lock()
	defer n.hostMu.Unlock()
	c := n.closed.Load()
	if c == nil || n.ctx.Err() != nil {
		return
	}
	id, _, err := loadIdentity(n.cfg.Dir)
	if err == nil {
		n.closed.Store(nil)
		c.nh.Close()
		err = n.startReplica(id)
	}
	if err != nil {
		n.machine.fail(err)
		return
	}
	n.fence.Store(nil)
}

// complete makes the forced membership that this member is fenced for its own:
// every listed member holds what it begins with, so that is committed. Needs
// forceMu.
func (n *Node) complete(f *fence, c *closedLog) error {
	if err := commitForced(c, f); err != nil {
		return err
	}
	id := c.id
	id.Generation = f.Generation
	if err := storeIdentity(n.cfg.Dir, id); err != nil {
		return err
	}
	// From here on a start finds the membership complete.
	if err := removeFence(n.cfg.Dir); err != nil {
		return err
	}
	done := *f
	done.Ready = false
	n.fence.Store(&done) // nobody completes it again
	n.log.Warn().Uint64("generation", f.Generation).Msg("the forced membership is this member's")
	if !n.spawn(n.reopen) {
		return ErrClosed
	}
	return nil
}

// Fenced reports whether a forced membership that this member agreed to is not
// complete: its log is closed, and forcing one again is the way out.
func (n *Node) Fenced() bool { return n.fence.Load() != nil }
