package consensus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strings"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"

	"cohort/internal/pause"
)

// The steps of a forced membership are calls over the members' log connections, so
// only who may send raft messages can make them: a request, then a reply, each
// JSON behind its length and a CRC-32C (4 bytes each, big-endian).

const (
	// maxCall bounds a request and a reply, readBytes the entries that one carries:
	// an entry is a few megabytes at most.
	maxCall   = 64 << 20
	readBytes = 8 << 20
	// callTimeout bounds one call.
	callTimeout = 10 * time.Second
	// majorityLook is how long a member looks for a majority before it says that
	// there is none; right after that it only glances.
	majorityLook   = 1500 * time.Millisecond
	majorityGlance = 300 * time.Millisecond
)

// The steps.
const (
	stepCheck  = "check"  // could this member be part of it?
	stepClose  = "close"  // promise, and stop the replica
	stepEnd    = "end"    // where does the log end?
	stepTerm   = "term"   // of an entry
	stepRead   = "read"   // entries
	stepAppend = "append" // entries
	stepFinish = "finish" // commit them, and run
	stepCancel = "cancel" // forget the promise
	stepDone   = "done"   // is the membership complete here?
)

type forceRequest struct {
	Step       string        `json:"step"`
	Generation uint64        `json:"generation"`
	Members    []forcedPlace `json:"members,omitempty"`
	// Base is the generation that the group is of, Founding its first lineage.
	Base     uint64 `json:"base,omitempty"`
	Founding uint64 `json:"founding,omitempty"`
	// Member and Replica are who is asked.
	Member  uint64 `json:"member"`
	Replica uint64 `json:"replica"`

	From     uint64   `json:"from,omitempty"`
	Upto     uint64   `json:"upto,omitempty"`
	Entries  [][]byte `json:"entries,omitempty"`
	PrevTerm uint64   `json:"prev_term,omitempty"`
	Term     uint64   `json:"term,omitempty"`
	// Ready: these entries are the last ones.
	Ready bool `json:"ready,omitempty"`
	// Wrote are the attempts of which the entries may be, this one the last.
	Wrote []uint64 `json:"wrote,omitempty"`
}

type forceReply struct {
	// No says why not, "" for yes.
	No string `json:"no,omitempty"`
	// Wait: not yet.
	Wait bool `json:"wait,omitempty"`
	// Wrote is the fence's.
	Wrote   []uint64 `json:"wrote,omitempty"`
	End     logEnd   `json:"end"`
	Index   uint64   `json:"index,omitempty"` // applied
	LastN   uint64   `json:"last_n,omitempty"`
	Given   uint64   `json:"given,omitempty"` // the last replica id
	Term    uint64   `json:"term,omitempty"`
	Entries [][]byte `json:"entries,omitempty"`
	Done    bool     `json:"done,omitempty"`
}

func no(format string, args ...any) forceReply {
	return forceReply{No: fmt.Sprintf(format, args...)}
}

func writeCall(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxCall {
		return fmt.Errorf("%d bytes are too many", len(b))
	}
	buf := binary.BigEndian.AppendUint32(make([]byte, 0, len(b)+8), uint32(len(b)))
	buf = binary.BigEndian.AppendUint32(buf, crc32.Checksum(b, castagnoli))
	_, err = w.Write(append(buf, b...))
	return err
}

// readCall takes memory for what arrives, not for what a length claims.
func readCall(r io.Reader, v any) error {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxCall {
		return fmt.Errorf("%d bytes are too many", n)
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		return err
	}
	if crc32.Checksum(b.Bytes(), castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return fmt.Errorf("%w: checksum of a call", ErrCorrupt)
	}
	return json.Unmarshal(b.Bytes(), v)
}

func packEntries(es []raftpb.Entry) ([][]byte, error) {
	out := make([][]byte, len(es))
	for i := range es {
		b, err := es[i].Marshal()
		if err != nil {
			return nil, err
		}
		out[i] = b
	}
	return out, nil
}

func unpackEntries(list [][]byte) ([]raftpb.Entry, error) {
	out := make([]raftpb.Entry, len(list))
	for i, b := range list {
		if err := out[i].Unmarshal(b); err != nil {
			return nil, fmt.Errorf("%w: entry: %w", ErrCorrupt, err)
		}
	}
	return out, nil
}

// call makes one step at another member.
func (n *Node) call(ctx context.Context, addr string, q *forceRequest) (forceReply, error) {
	var a forceReply
	t := n.incoming.transport.Load()
	if t == nil {
		return a, ErrNotAdmitted
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := t.Call(ctx, addr)
	if err != nil {
		return a, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := writeCall(c, q); err != nil {
		return a, fmt.Errorf("call %s: %w", addr, err)
	}
	if err := readCall(bufio.NewReader(c), &a); err != nil {
		return a, fmt.Errorf("call %s: %w", addr, errors.Join(ctx.Err(), err))
	}
	return a, nil
}

// serveCall answers one call.
func (n *Node) serveCall(ctx context.Context, c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(callTimeout))
	var q forceRequest
	if err := readCall(bufio.NewReader(c), &q); err != nil {
		n.log.Debug().Err(err).Msg("a call was not understood")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := writeCall(c, n.step(ctx, &q)); err != nil {
		n.log.Debug().Err(err).Msg("a call was not answered")
	}
}

// step does this member's part of one step.
func (n *Node) step(ctx context.Context, q *forceRequest) forceReply {
	if q.Member != n.cfg.ReplicaID {
		return no("another member is at %s", n.cfg.LocalAddress)
	}
	if q.Generation == 0 || n.static() {
		return no("no membership can be forced upon this group")
	}
	if q.Step == stepCheck {
		return n.stepCheck(ctx, q, majorityLook)
	}
	n.forceMu.Lock()
	defer n.forceMu.Unlock()
	switch q.Step {
	case stepClose:
		return n.stepClose(ctx, q)
	case stepDone, stepFinish:
		id, ok, err := loadIdentity(n.cfg.Dir)
		if done := ok && err == nil && id.Generation == q.Generation; done || q.Step == stepDone {
			return forceReply{Done: done}
		}
	}
	f, c := n.fence.Load(), n.closed.Load()
	switch {
	case f == nil || f.Generation != q.Generation:
		return no("this member takes part in another forced membership, or in none")
	case c == nil:
		return forceReply{Wait: true}
	}
	a, err := n.stepOnLog(q, f, c)
	if err != nil {
		n.log.Error().Err(err).Str("step", q.Step).Msg("a step towards a forced membership failed")
		return no("%v", err)
	}
	return a
}

// stepCheck changes nothing.
func (n *Node) stepCheck(ctx context.Context, q *forceRequest, look time.Duration) forceReply {
	id, ok, err := loadIdentity(n.cfg.Dir)
	v := n.View()
	switch {
	case err != nil:
		return no("%v", err)
	case !ok || id.Replica == 0 || id.Replica != q.Replica || !v.Founded:
		return no("%s is not in the group", n.cfg.LocalAddress)
	case v.Founding != q.Founding || id.Generation != q.Base:
		return no("%s is of another membership of the group, which was forced before", n.cfg.LocalAddress)
	}
	f := n.fence.Load()
	if f != nil {
		return forceReply{Wrote: f.Wrote}
	}
	h, err := n.raft()
	if err != nil {
		return no("%s: %v", n.cfg.LocalAddress, err)
	}
	// A replica that was just started applies its log again.
	vctx, cancel := context.WithTimeout(ctx, look)
	defer cancel()
	for !h.votes() {
		if pause.For(vctx, forcePause) != nil {
			return no("%s has no vote yet: it has not finished joining", n.cfg.LocalAddress)
		}
	}
	ctx, cancel = context.WithTimeout(ctx, look)
	defer cancel()
	if _, err := n.ReadIndex(ctx); err == nil {
		return no("%s has contact to a majority of the group", n.cfg.LocalAddress)
	}
	return forceReply{}
}

// votes reports whether the log, as applied here, counts this replica's vote.
func (h *host) votes() bool {
	info := h.nh.GetNodeHostInfo(hostInfoOption)
	for i := range info.ShardInfoList {
		if s := &info.ShardInfoList[i]; s.ShardID == shardID && s.ReplicaID == h.replica {
			_, ok := s.Replicas[h.replica]
			return ok && !s.IsNonVoting
		}
	}
	return false
}

// stepClose is the promise: from here on this member takes no part in anything
// else.
func (n *Node) stepClose(ctx context.Context, q *forceRequest) forceReply {
	old := n.fence.Load()
	if old != nil && old.Generation == q.Generation {
		return forceReply{}
	}
	if a := n.stepCheck(ctx, q, majorityGlance); a.No != "" {
		return a
	}
	f := &fence{Generation: q.Generation, Members: q.Members}
	if old != nil {
		f.Wrote = old.Wrote
	}
	if err := n.fenceOff(f); err != nil {
		return no("%s: %v", n.cfg.LocalAddress, err)
	}
	return forceReply{}
}

// stepOnLog is a step of a member whose replica is stopped.
func (n *Node) stepOnLog(q *forceRequest, f *fence, c *closedLog) (forceReply, error) {
	var a forceReply
	var err error
	switch q.Step {
	case stepEnd:
		a.Index, a.LastN, a.Given = n.Applied(), n.LastN(), n.View().LastReplica
		a.End, err = c.end()
	case stepTerm:
		a.Term, err = c.term(q.From)
		if errors.Is(err, errNoEntry) {
			err = nil
		}
	case stepRead:
		var es []raftpb.Entry
		if es, err = c.read(q.From, q.Upto, readBytes); err == nil {
			a.Entries, err = packEntries(es)
		}
	case stepAppend:
		err = n.stepAppend(q, f, c)
	case stepFinish:
		if !f.Ready {
			return no("its log does not hold what the membership begins with"), nil
		}
		err = n.complete(f, c)
	case stepCancel:
		if len(f.Wrote) > 0 {
			return no("its log holds entries of the forced membership"), nil
		}
		if err = removeFence(n.cfg.Dir); err == nil && !n.spawn(n.reopen) {
			err = ErrClosed
		}
	default:
		return no("unknown step"), nil
	}
	return a, err
}

func (n *Node) stepAppend(q *forceRequest, f *fence, c *closedLog) error {
	es, err := unpackEntries(q.Entries)
	if err != nil || len(es) == 0 || len(q.Wrote) == 0 {
		return errors.Join(err, fmt.Errorf("%w: no entries", ErrCorrupt))
	}
	g := *f
	g.Wrote, g.Ready = q.Wrote, false
	if err := storeFence(n.cfg.Dir, &g); err != nil {
		return err
	}
	n.fence.Store(&g)
	if err := c.append(es, q.PrevTerm, q.Term); err != nil || !q.Ready {
		return err
	}
	r := g
	r.Ready, r.Term, r.Last = true, q.Term, es[len(es)-1].Index
	if err := storeFence(n.cfg.Dir, &r); err != nil {
		return err
	}
	n.fence.Store(&r)
	return nil
}

// sameAddress compares host:port as people write them.
func sameAddress(a, b string) bool {
	return strings.EqualFold(strings.TrimSpace(a), strings.TrimSpace(b))
}
