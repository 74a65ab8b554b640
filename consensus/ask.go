package consensus

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"cohort/consensus/state"
)

// Who is not in the group asks a member at the address of its log, one question
// a connection: askMagic, then a question, then an answer, each JSON behind its
// length (4 bytes big-endian). It is encrypted, and both sides are verified, as the
// connections of the log are.

const (
	askMagic = "cohort ask 1\n"
	// maxAsk is the largest question or answer, bytes: the founder's GTID set
	// may be in it.
	maxAsk = state.MaxBase + 1<<20
	// askTimeout bounds one question, answerTimeout what a member does for it.
	askTimeout    = 5 * time.Second
	answerTimeout = 4 * time.Second
)

// What may be asked.
const (
	askInfo    = "info"    // what is this group, and may I join it?
	askAdmit   = "admit"   // let me in
	askRemoved = "removed" // does the log still count this replica?
	askPeers   = "peers"   // who is ONLINE, and where is the members' channel?
	askForced  = "forced"  // was a membership forced without this replica?
	askFailed  = "failed"  // say in the log that this member, which is OFFLINE, is in ERROR
)

type question struct {
	Op     string `json:"op"`
	Group  string `json:"group"`
	Member uint64 `json:"member"`
	// Replica is what askRemoved, askForced and askFailed are about, Generation its
	// membership.
	Replica    uint64 `json:"replica,omitempty"`
	Generation uint64 `json:"generation,omitempty"`
	// Lineage, LastN and Checksum are what the member holds, 0 for nothing.
	Lineage  uint64 `json:"lineage,omitempty"`
	LastN    uint64 `json:"last_n,omitempty"`
	Checksum uint64 `json:"checksum,omitempty"`
	// Index is the last entry it applied, Executed the last number that its mysqld
	// has executed.
	Index    uint64 `json:"index,omitempty"`
	Executed uint64 `json:"executed,omitempty"`
	Settings string `json:"settings,omitempty"`
	UUID     string `json:"uuid,omitempty"`
	ServerID uint64 `json:"server_id,omitempty"`
	// Address is where the log of who asks is.
	Address string `json:"address,omitempty"`
	Nonce   uint64 `json:"nonce,omitempty"`
}

type answer struct {
	// Code says why not, "" for yes; Text puts it into words.
	Code    string `json:"code,omitempty"`
	Text    string `json:"text,omitempty"`
	Base    string `json:"base,omitempty"`
	LastN   uint64 `json:"last_n,omitempty"`
	Known   bool   `json:"known,omitempty"`
	Replica uint64 `json:"replica,omitempty"`
	Removed bool   `json:"removed,omitempty"`
	// Peers are addresses of the members' channel, by member; Index says how new.
	Peers map[uint64]string `json:"peers,omitempty"`
	Index uint64            `json:"index,omitempty"`
	// Lineage and Generation are the group's. Keep: what the member has applied is
	// what the group's log would bring it again.
	Lineage    uint64 `json:"lineage,omitempty"`
	Generation uint64 `json:"generation,omitempty"`
	Keep       bool   `json:"keep,omitempty"`
}

// refusals are the codes of what an answer may refuse.
var refusals = map[string]error{
	"group_name":        ErrOtherGroup,
	"settings":          ErrOtherSettings,
	"lineage":           ErrOtherHistory,
	"full":              ErrGroupFull,
	"duplicate_uuid":    ErrDuplicateUUID,
	"duplicate_id":      ErrDuplicateServerID,
	"duplicate_address": ErrDuplicateAddress,
	"present":           ErrPresent,
	"not_founded":       ErrNotFounded,
	"not_member":        errNotMember,
	"no_majority":       ErrNoMajority,
	"failed":            errAsked,
}

func refuse(err error, format string, args ...any) answer {
	for code, e := range refusals {
		if errors.Is(err, e) {
			return answer{Code: code, Text: fmt.Sprintf(format, args...)}
		}
	}
	return answer{Code: "failed", Text: fmt.Sprintf(format, args...)}
}

func (a answer) err() error {
	if a.Code == "" {
		return nil
	}
	e := refusals[a.Code]
	if e == nil {
		e = errAsked
	}
	return fmt.Errorf("%w: %s", e, a.Text)
}

func writeAsk(w io.Writer, magic string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxAsk {
		return fmt.Errorf("%d bytes are too many", len(b))
	}
	buf := binary.BigEndian.AppendUint32([]byte(magic), uint32(len(b)))
	_, err = w.Write(append(buf, b...))
	return err
}

func readAsk(r io.Reader, v any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxAsk {
		return fmt.Errorf("%d bytes are too many", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// ask puts a question to the member at addr.
func (n *Node) ask(ctx context.Context, addr string, q question) (answer, error) {
	q.Group, q.Member, q.Address = n.cfg.GroupName, n.cfg.ReplicaID, n.cfg.LocalAddress
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return answer{}, err
	}
	d := net.Dialer{Timeout: askTimeout / 2}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return answer{}, err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	c := nc
	if n.cfg.TLS != nil {
		c = tls.Client(nc, n.cfg.TLS.Client(host))
	}
	var a answer
	if err = writeAsk(c, askMagic, q); err == nil {
		err = readAsk(c, &a)
	}
	switch {
	case err == nil:
		return a, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		err = fmt.Errorf("no answer (this address is not in its group_replication_ip_allowlist, or it has another group_replication_ssl_mode or authority?): %w", err)
	}
	return answer{}, fmt.Errorf("ask %s: %w", addr, err)
}

// answerTo serves one connection of which the first byte was read.
func (n *Node) answerTo(ctx context.Context, c net.Conn, verify func(address string) error) {
	_ = c.SetDeadline(time.Now().Add(askTimeout))
	magic := make([]byte, len(askMagic)-1)
	var q question
	if _, err := io.ReadFull(c, magic); err != nil || string(magic) != askMagic[1:] || readAsk(c, &q) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var a answer
	if err := verify(q.Address); err != nil {
		n.log.Warn().Err(err).Str("address", q.Address).Msg("a question about the group was refused")
		a = refuse(errAsked, "%v", err)
	} else {
		a = n.answer(ctx, &q)
	}
	if err := writeAsk(c, "", a); err != nil {
		n.log.Debug().Err(err).Msg("a question about the group was not answered")
	}
}

// answer speaks for the group, so it first makes sure that this member is in its
// majority.
func (n *Node) answer(ctx context.Context, q *question) answer {
	if !strings.EqualFold(q.Group, n.cfg.GroupName) {
		return refuse(ErrOtherGroup, "%s belongs to the group %s", n.cfg.LocalAddress, n.cfg.GroupName)
	}
	h, err := n.raft()
	if err != nil {
		return refuse(errNotMember, "%s is not in the group itself", n.cfg.LocalAddress)
	}
	switch q.Op {
	case askRemoved, askForced:
		v := n.View()
		_, ended := v.Fork(q.Lineage)
		m, listed := v.Member(q.Member)
		switch {
		// That needs no majority: it is in the log, which goes on from there.
		case ended && q.Generation != n.generation() && !(listed && m.Replica == q.Replica):
			a := answer{}
			if _, err := n.history(v, q); err != nil && q.Op == askRemoved {
				a = refuse(err, "%v", err)
			}
			a.Removed = true
			return a
		case q.Op == askForced:
			return answer{}
		case !ended && q.Lineage != 0 && q.Lineage != v.Lineage:
			return refuse(ErrOtherHistory, "another group of this name")
		}
	}
	if q.Op == askRemoved {
		m, err := h.members(ctx)
		if err != nil {
			return refuse(ErrNoMajority, "%s has no majority: %v", n.cfg.LocalAddress, err)
		}
		_, removed := m.Removed[q.Replica]
		return answer{Removed: removed}
	}
	if q.Op == askPeers {
		// Nothing is decided on it: who is found there must prove who it is.
		return n.peers(q)
	}
	if _, err := n.ReadIndex(ctx); err != nil {
		return refuse(ErrNoMajority, "%s has no majority: %v", n.cfg.LocalAddress, err)
	}
	v := n.View()
	if !v.Founded {
		return refuse(ErrNotFounded, "%s waits for its group to be founded", n.cfg.LocalAddress)
	}
	if q.Op == askFailed {
		return n.failed(ctx, v, q)
	}
	if err := n.vet(v, q); err != nil {
		return refuse(err, "%v", err)
	}
	m, known := v.Member(q.Member)
	a := answer{Base: v.Base, LastN: n.LastN(), Known: known && m.Incarnation != 0, Lineage: v.Lineage, Generation: n.generation()}
	a.Keep, _ = n.history(v, q)
	if q.Op == askInfo {
		return a
	}
	item := state.Admit{Member: q.Member, Nonce: q.Nonce, UUID: q.UUID, ServerID: q.ServerID, Address: q.Address}
	res, err := n.propose(ctx, state.Entry(item.AppendItem(nil)))
	if err != nil {
		return refuse(ErrNoMajority, "%s: the admission was not ordered: %v", n.cfg.LocalAddress, err)
	}
	switch res {
	case 0:
		return refuse(errAsked, "the request makes no sense")
	case state.RefusedDuplicateUUID:
		return refuse(ErrDuplicateUUID, "server_uuid %s is that of another member; remove auto.cnf from the data directory of a copied server, and start it again", q.UUID)
	case state.RefusedDuplicateServerID:
		return refuse(ErrDuplicateServerID, "server_id %d is that of another member; give this server one of its own", q.ServerID)
	case state.RefusedDuplicateAddress:
		return refuse(ErrDuplicateAddress, "another member is at %s; give this one its own group_replication_local_address, or wait until the group has expelled a lost one", q.Address)
	case state.RefusedFull:
		return refuse(ErrGroupFull, "there are %d members; take one out first", state.MaxMembers)
	case state.RefusedPresent:
		return refuse(ErrPresent, "the group still takes an earlier life of this member for alive")
	}
	n.log.Info().Uint64("member", q.Member).Str("uuid", q.UUID).Str("address", q.Address).Uint64("replica", res).
		Msg("a member was let into the group")
	a.Replica = res
	return a
}

// vet refuses who cannot be a member whatever else is true. What the asker holds
// is compared by lineage and chained checksum: GTID sets of two histories may be
// equal.
func (n *Node) vet(v *state.View, q *question) error {
	if _, err := n.history(v, q); err != nil {
		return err
	}
	if d := differences(v.Settings, q.Settings); d != "" {
		return fmt.Errorf("%w: %s", ErrOtherSettings, d)
	}
	return nil
}

// history refuses whose data are not a beginning of the group's. keep says that
// the state it has is one of the group's log, too.
func (n *Node) history(v *state.View, q *question) (keep bool, err error) {
	switch {
	case q.Lineage == 0:
		return true, nil
	case q.Lineage == v.Lineage:
		if q.LastN > n.LastN() {
			return false, fmt.Errorf("%w: it holds transactions up to %d, the group ordered %d", ErrOtherHistory, q.LastN, n.LastN())
		}
		if sum, ok := n.ChecksumAt(q.LastN); ok && sum != q.Checksum {
			return false, fmt.Errorf("%w: it holds other transactions up to %d than the group", ErrOtherHistory, q.LastN)
		}
		return true, nil
	}
	f, ok := v.Fork(q.Lineage)
	switch {
	case !ok:
		return false, fmt.Errorf("%w: it holds data of another history of a group of this name", ErrOtherHistory)
	case !f.Begins(q.LastN, q.Checksum):
		return false, fmt.Errorf("%w: a membership was forced upon the group after transaction %d, and it holds others up to %d, or cannot show that it does not", ErrOtherHistory, f.N, q.LastN)
	case q.Executed > max(q.LastN, f.SureN):
		return false, fmt.Errorf("%w: a membership was forced upon the group after transaction %d, its mysqld executed transactions up to %d, and its log shows only those up to %d", ErrOtherHistory, f.N, q.Executed, q.LastN)
	}
	return q.LastN <= f.SureN && q.Index <= f.SureIndex, nil
}

// generation is the forced membership that the replica at work lives in.
func (n *Node) generation() uint64 {
	if h := n.host.Load(); h != nil {
		return h.generation
	}
	return 0
}

// differences compares settings that the group was founded with with those of a
// member. What only one of them names is not compared: they may be of two
// releases.
func differences(group, member string) string {
	var out []string
	for line := range strings.Lines(group) {
		name, want, _ := strings.Cut(strings.TrimSpace(line), "=")
		for other := range strings.Lines(member) {
			if k, has, _ := strings.Cut(strings.TrimSpace(other), "="); k == name && has != want {
				out = append(out, fmt.Sprintf("%s is %s here and %s in the group", name, has, want))
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}
