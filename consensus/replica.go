package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	sm "github.com/lni/dragonboat/v4/statemachine"

	"cohort/consensus/state"
	"cohort/consensus/transport"
	"cohort/internal/durable"
	"cohort/internal/pause"
)

// host is one replica of the log at work here. A member has one after the other,
// each under an id of its own.
type host struct {
	nh      *dragonboat.NodeHost
	session *client.Session
	replica uint64
	// generation is the identity's.
	generation uint64
}

// members returns the members of the log, as a majority confirms. A read that was
// lost on its way to the leader is not repeated by anyone else.
func (h *host) members(ctx context.Context) (*dragonboat.Membership, error) {
	for {
		try, cancel := context.WithTimeout(ctx, readTimeout)
		m, err := h.nh.SyncGetShardMembership(try, shardID)
		cancel()
		if err == nil || ctx.Err() != nil || !dragonboat.IsTempError(err) && !errors.Is(err, context.DeadlineExceeded) {
			return m, err
		}
		if pause.For(ctx, retryLast) != nil {
			return nil, err
		}
	}
}

// identity is what a member's directory says of itself.
type identity struct {
	// Member is the member's id in the group, for good.
	Member uint64 `json:"member"`
	// Replica is the replica whose log the directory holds, 0 for none: then
	// whatever log is there is of one that was removed.
	Replica uint64 `json:"replica"`
	// Founder: the replica began the log alone.
	Founder bool `json:"founder,omitempty"`
	// Address is where the group knows the replica.
	Address string `json:"address,omitempty"`
	// Generation is the forced membership that the replica lives in, 0 for none.
	Generation uint64 `json:"generation,omitempty"`
}

const identityName = "identity"

func loadIdentity(dir string) (identity, bool, error) {
	var id identity
	b, err := os.ReadFile(filepath.Join(dir, identityName))
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	if err != nil || id.Member == 0 {
		return id, false, fmt.Errorf("%w: %s: %w", ErrCorrupt, identityName, errors.Join(err, errors.New("who this member is cannot be read")))
	}
	return id, true, nil
}

// storeIdentity replaces the identity so that a crash leaves the old one or the
// new one.
func storeIdentity(dir string, id identity) error {
	return storeJSON(dir, identityName, id)
}

// MemberID returns the id in the group of the member whose log is kept in dir:
// the one it has, and for a new directory one that follows from the server_uuid
// of its mysqld. So a member that lost its directory is still the same one, and
// two members with one mysqld cannot both be let in.
func MemberID(dir, serverUUID string) (uint64, error) {
	id, ok, err := loadIdentity(dir)
	if err != nil {
		return 0, fmt.Errorf("consensus: %w", err)
	}
	if ok {
		return id.Member, nil
	}
	h := fnv.New64a()
	h.Write([]byte(strings.ToLower(serverUUID)))
	v := h.Sum64()
	return max(1, (v^v>>48)&(1<<48-1)), nil
}

// adoptIdentity finds out which replica this directory holds, 0 for none.
//
// A replica whose log is gone is none any more: its promises are forgotten, so
// it must never vote again. The member joins anew under another id.
func (n *Node) adoptIdentity() (identity, error) {
	dir := n.cfg.Dir
	if n.static() {
		return identity{Member: n.cfg.ReplicaID, Replica: n.cfg.ReplicaID}, nil
	}
	id, ok, err := loadIdentity(dir)
	if err != nil {
		return id, err
	}
	_, err = os.Stat(filepath.Join(dir, "raft", flagFile))
	haveLog := err == nil
	switch {
	case !ok && haveLog:
		return id, fmt.Errorf("%w: %s has a log but does not say whose", ErrCorrupt, dir)
	case !ok:
		id = identity{Member: n.cfg.ReplicaID}
		return id, storeIdentity(dir, id)
	case id.Member != n.cfg.ReplicaID:
		return id, fmt.Errorf("%w: %s belongs to member %d", ErrCorrupt, dir, id.Member)
	case id.Replica == 0:
		// A crash came between the two steps of retire.
		return id, removeLog(dir)
	case !haveLog:
		n.log.Warn().Uint64("replica", id.Replica).Msg("the log of this replica is gone; the member will join the group anew")
		id.Replica, id.Founder = 0, false
		return id, storeIdentity(dir, id)
	case !strings.EqualFold(id.Address, n.cfg.LocalAddress):
		return id, fmt.Errorf("%w: the group knows this member at %s, not at %s; stop it in the group at its old address first",
			ErrAddress, id.Address, n.cfg.LocalAddress)
	}
	return id, nil
}

func removeLog(dir string) error {
	if err := os.RemoveAll(filepath.Join(dir, "raft")); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// static reports whether the log was begun by several members at once.
func (n *Node) static() bool { return len(n.cfg.InitialMembers) > 0 }

// raft returns the replica at work, or ErrNotAdmitted.
func (n *Node) raft() (*host, error) {
	if h := n.host.Load(); h != nil {
		return h, nil
	}
	switch {
	case n.ctx.Err() != nil:
		return nil, ErrClosed
	case n.Fenced():
		return nil, errLogClosed
	}
	return nil, ErrNotAdmitted
}

// adopt begins the life of a replica that was just given, and keeps that in mind
// first.
func (n *Node) adopt(id identity, keep bool) error {
	n.hostMu.Lock()
	defer n.hostMu.Unlock()
	if n.ctx.Err() != nil {
		return ErrClosed
	}
	if !keep {
		n.log.Info().Msg("a membership was forced upon the group since this member left it: what it applied is brought to it again")
		if err := n.machine.forget(); err != nil {
			return err
		}
		n.compact.reset()
	}
	// The machine says by this what it need not be told again.
	if err := n.machine.checkpoint(); err != nil {
		return err
	}
	id.Member, id.Address = n.cfg.ReplicaID, n.cfg.LocalAddress
	if err := storeIdentity(n.cfg.Dir, id); err != nil {
		return fmt.Errorf("consensus: %w", err)
	}
	return n.startReplica(id)
}

// openLog opens dragonboat without a replica. Needs hostMu, or nobody else to know
// n.
func (n *Node) openLog(id identity, closed bool) (*dragonboat.NodeHost, raftio.ILogDB, error) {
	cfg := n.cfg
	raftDir := filepath.Join(cfg.Dir, "raft")
	if err := adoptHostname(raftDir); err != nil {
		return nil, nil, fmt.Errorf("consensus: %w", err)
	}
	n.leader.reset()
	n.live.at.Store(0)
	factory := &logDBFactory{log: cfg.Logger, live: &n.live, wrap: cfg.wrapLogDB}
	nhc := config.NodeHostConfig{
		DeploymentID:        deploymentID(cfg.GroupName),
		NodeHostDir:         raftDir,
		RTTMillisecond:      uint64(cfg.RTT / time.Millisecond),
		RaftAddress:         cfg.LocalAddress,
		ListenAddress:       cfg.ListenAddress,
		RaftEventListener:   &n.leader,
		NotifyCommit:        false, // we acknowledge what was applied
		MaxSendQueueSize:    64 << 20,
		MaxReceiveQueueSize: 64 << 20,
	}
	nhc.Expert.LogDBFactory = factory
	n.incoming.deployment, n.incoming.called = nhc.DeploymentID, n.insist
	n.incoming.TransportFactory = transport.NewFactory(transport.Options{
		Group: cfg.GroupName, Shard: shardID, Replica: id.Replica,
		TLS: cfg.TLS, Allowlist: cfg.Allowlist, Allowed: cfg.Allowed,
		Address: n.addressOf, Asked: n.answerTo, AskedBy: askMagic[0],
		Generation: id.Generation, Closed: closed, Called: n.serveCall,
		Patient: n.isPatient,
		Logger:  cfg.Logger,
	})
	nhc.Expert.TransportFactory = &n.incoming
	nhc.Expert.Engine = config.EngineConfig{ExecShards: 1, CommitShards: 1, ApplyShards: 1,
		SnapshotShards: 1, CloseShards: 1}
	nhc.Expert.LogDB = config.GetTinyMemLogDBConfig()
	nhc.Expert.LogDB.Shards = 1
	// Tan takes this as the size of each of its 16 scratch buffers; pages that
	// were never written cost nothing. A larger update gets a buffer of its own.
	nhc.Expert.LogDB.KVWriteBufferSize = 512 << 10
	nh, err := dragonboat.NewNodeHost(nhc)
	if err == nil && nh == nil {
		err = errors.New("dragonboat did not start; the log says why") // it recovers from its own panics
	}
	if err != nil {
		return nil, nil, fmt.Errorf("consensus: %w", err)
	}
	return nh, factory.db, nil
}

// startReplica opens dragonboat. Needs hostMu, or nobody else to know n.
func (n *Node) startReplica(id identity) error {
	cfg := n.cfg
	nh, db, err := n.openLog(id, false)
	if err != nil {
		return err
	}
	if !cfg.TLS.Verifies() {
		n.log.Info().Str("address", cfg.LocalAddress).Bool("encrypted", cfg.TLS != nil).
			Msg("the members' log connections are not authenticated (group_replication_ssl_mode below VERIFY_CA): only members may be able to reach this address from the allowlist")
	}
	var members map[uint64]dragonboat.Target
	switch {
	case n.static():
		members = make(map[uint64]dragonboat.Target, len(cfg.InitialMembers))
		for id, addr := range cfg.InitialMembers {
			members[id] = addr
		}
	case id.Founder:
		members = map[uint64]dragonboat.Target{id.Replica: cfg.LocalAddress}
	}
	joins := members == nil
	// A replica that was let in begins without a vote. Dragonboat wants to know
	// what it was when the part of the log began that it will replay.
	ss, fresh, err := beginning(db, id.Replica)
	if err != nil {
		nh.Close()
		return fmt.Errorf("consensus: %w", err)
	}
	_, voted := ss.Membership.Addresses[id.Replica]
	learner := joins && !voted
	n.machine.begin(fresh)
	err = nh.StartOnDiskReplica(members, joins,
		func(uint64, uint64) sm.IOnDiskStateMachine { return n.machine },
		config.Config{
			ReplicaID: id.Replica, ShardID: shardID, IsNonVoting: learner,
			CheckQuorum: true, PreVote: true, OrderedConfigChange: true,
			ElectionRTT: cfg.ElectionRTT, HeartbeatRTT: cfg.HeartbeatRTT,
			// Compaction goes by size, see compactor.
			SnapshotEntries: 0, CompactionOverhead: 20000,
		})
	if err != nil {
		nh.Close()
		return fmt.Errorf("consensus: %w", err)
	}
	n.identity = id
	n.host.Store(&host{nh: nh, session: nh.GetNoOPSession(shardID), replica: id.Replica, generation: id.Generation})
	return nil
}

// addressOf tells the transport where a replica is, where the group said so.
func (n *Node) addressOf(replica uint64) (string, bool) {
	if a, ok := n.cfg.InitialMembers[replica]; ok {
		return a, true
	}
	m, ok := n.View().MemberByReplica(replica)
	return m.Address, ok && m.Address != ""
}

// beginning returns the snapshot that a replica's log begins with, if any, and
// whether the log is empty, as dragonboat sees it.
func beginning(db raftio.ILogDB, replica uint64) (ss raftpb.Snapshot, fresh bool, err error) {
	if ss, err = db.GetSnapshot(shardID, replica); err != nil {
		return ss, false, err
	}
	rs, err := db.ReadRaftState(shardID, replica, ss.Index)
	if errors.Is(err, raftio.ErrNoSavedLog) {
		return ss, true, nil
	}
	return ss, err == nil && ss.Index == 0 && rs.EntryCount == 0 && raftpb.IsEmptyState(rs.State), err
}

// begin says what the replica's log is like that comes next.
func (m *machine) begin(fresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fresh = fresh
}

// retire ends a replica that the log does not count any more, and forgets its
// log. What was applied stays: the group ordered it. Never call it on a mere
// suspicion: a vote that is forgotten and still counted may cost the group its
// majority for good.
func (n *Node) retire(h *host) error {
	n.hostMu.Lock()
	defer n.hostMu.Unlock()
	if n.host.Load() != h || n.ctx.Err() != nil {
		return nil
	}
	if err := n.machine.checkpoint(); err != nil {
		return err
	}
	if err := storeIdentity(n.cfg.Dir, identity{Member: n.cfg.ReplicaID}); err != nil {
		return fmt.Errorf("consensus: %w", err)
	}
	n.host.Store(nil)
	h.nh.Close()
	n.leader.reset()
	if err := removeLog(n.cfg.Dir); err != nil {
		return fmt.Errorf("consensus: %w", err)
	}
	n.machine.left(n.cfg.ReplicaID)
	n.log.Info().Uint64("replica", h.replica).Msg("the group's log goes on without this member; it can join anew")
	return nil
}

// stepAside keeps a replica from running that a forced membership goes on without.
// Whether its data are a beginning of the group's is asked when it is known what
// its mysqld has, see Enter; therefore what its log is known to have committed is
// applied. The log stays until then.
func (n *Node) stepAside(id identity) error {
	n.log.Warn().Uint64("replica", id.Replica).Msg("a membership was forced upon the group without this member; its log is not used any more")
	if err := n.openClosed(id); err != nil {
		return err
	}
	if err := n.replay(n.closed.Load()); err != nil {
		return fmt.Errorf("consensus: %w", err)
	}
	n.machine.left(n.cfg.ReplicaID)
	return nil
}

// replay applies what a log whose replica does not run has committed, as
// dragonboat would.
func (n *Node) replay(c *closedLog) error {
	e, err := c.end()
	if err != nil {
		return err
	}
	for from := n.Applied() + 1; from <= e.Commit; {
		es, err := c.read(from, e.Commit, readBytes)
		if err != nil {
			return err
		}
		var todo []sm.Entry
		for _, x := range es {
			cmd, err := payload(&x)
			if err != nil {
				return err
			}
			if len(cmd) > 0 {
				todo = append(todo, sm.Entry{Index: x.Index, Cmd: cmd})
			}
		}
		if _, err := n.machine.Update(todo); err != nil {
			return err
		}
		if err := n.machine.err(); err != nil {
			return err
		}
		from = es[len(es)-1].Index + 1
	}
	return nil
}

// retireClosed is retire for a replica that does not run.
func (n *Node) retireClosed(c *closedLog) error {
	n.hostMu.Lock()
	defer n.hostMu.Unlock()
	// Not while the transport closes: it waits for calls, which wait for forceMu.
	gone, err := func() (bool, error) {
		n.forceMu.Lock()
		defer n.forceMu.Unlock()
		if n.closed.Load() != c || n.ctx.Err() != nil {
			return false, nil
		}
		// First what must survive a crash: that there is no replica any more.
		if err := storeIdentity(n.cfg.Dir, identity{Member: n.cfg.ReplicaID}); err != nil {
			return false, err
		}
		n.closed.Store(nil)
		return true, nil
	}()
	if err != nil || !gone {
		return err
	}
	c.nh.Close()
	if err := errors.Join(removeFence(n.cfg.Dir), removeLog(n.cfg.Dir)); err != nil {
		return err
	}
	n.fence.Store(nil)
	n.machine.left(n.cfg.ReplicaID)
	n.log.Info().Uint64("replica", c.id.Replica).Msg("the group's log goes on without this member; it can join anew")
	return nil
}

// left makes the view say what the log could not tell this member any more: that
// it is out.
func (m *machine) left(member uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.st.View()
	for i := range v.Members {
		if x := &v.Members[i]; x.ID == member {
			x.Replica, x.Voter = 0, false
			if x.State != state.StateError {
				x.State = state.StateOffline
			}
		}
	}
	m.view.Store(v)
}
