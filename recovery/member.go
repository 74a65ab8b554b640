// Package recovery brings a member to ONLINE and keeps it there: it fences
// earlier lives of the member, settles what they left prepared, catches up from
// the group binlog, and then runs the parts that make this mysqld a primary or
// a secondary.
//
// It serves no clients, and it never decides what becomes of a transaction: it
// carries out what the log says.
package recovery

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/binlog/feed"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/peer"
	"cohort/router"
)

// AccountName is the account that a member creates for itself on its mysqld.
const AccountName = "cohort"

// ErrDiverged means that this mysqld holds data that the group did not order:
// it must be provisioned anew and is never ONLINE.
var ErrDiverged = errors.New("recovery: this server's data are not the group's")

// Options configure a Member.
type Options struct {
	// ReplicaID is this member's id in the group.
	ReplicaID uint64
	GroupName string
	// Bootstrap founds the group if nobody has yet.
	Bootstrap bool
	// Settings are those of this program that all members must share, one
	// name=value a line; what mysqld knows is added.
	Settings string
	// Socket is mysqld's unix socket; AdminUser and AdminPassword are used to
	// check and prepare mysqld and for nothing else.
	Socket, AdminUser, AdminPassword string
	// Dir is where the member keeps its own state.
	Dir string
	// Info is what the group shall know of this member; what mysqld knows
	// itself (uuid, versions) is filled in.
	Info state.MemberInfo
	// FeedAddress and PeerAddress are where the feed and the members' own
	// channel listen.
	FeedAddress, PeerAddress string
	// CommitterConns is the number of connections that carry out verdicts.
	CommitterConns int
	// TransactionSizeLimit in bytes, 0 for none.
	TransactionSizeLimit int64
	// BinlogSpace is how large the group binlog may grow, in bytes, before what
	// all members have applied is purged; 0 for any size. Members is how many
	// members a group has at least that is begun by several at once.
	BinlogSpace int64
	Members     int
	// Failed is told when the feed finds the group binlog damaged: this member
	// cannot go on. May be nil.
	Failed func(error)
	Node   *consensus.Node
	Store  *groupbinlog.Store
	// Router is told where verdicts go and what is visible.
	Router *router.Router
	// Policy is the first one; see Member.ChangePolicy.
	Policy Policy
	// Standby: the member joins at the first Start, not when it runs.
	Standby bool
	// UUID is the server_uuid that Router was made for.
	UUID string
	// ServerVersion is mysqld's own, as 9.7.4.
	ServerVersion string
	Logger        zerolog.Logger
}

// Member runs one mysqld as a member of the group.
type Member struct {
	opt      Options
	log      zerolog.Logger
	password string
	peers    *peer.Server
	feed     *feed.Feed

	ready      atomic.Bool // this life is ONLINE
	compliance *Compliance
	// withheld says which numbers the feed leaves out; nil for none.
	withheld atomic.Pointer[func(n uint64) bool]
	subs     subscribers
	// sessions are this member's clients, nil for none; holds is why they wait.
	sessions  Sessions
	holds     holds
	switching atomic.Bool // this member changes the primary
	// hasAccount: this process made the account. Only lives uses it.
	hasAccount bool
	control    control
	gaveUp     atomic.Bool // there will be no other life, see lives
	lastErr    atomic.Pointer[error]
	// suspects are the incarnations of members that are not heard, by id.
	suspects atomic.Pointer[map[uint64]uint64]
	policyMu sync.Mutex
	policy   Policy
}

// New prepares a member: it opens its listeners and reads its password.
func New(opt Options) (*Member, error) {
	pw, err := loadPassword(opt.Dir)
	if err != nil {
		return nil, err
	}
	m := &Member{policy: opt.Policy, holds: holds{new: make(chan struct{}, 1)},
		control: control{wanted: !opt.Standby, changed: make(chan struct{})}, opt: opt, log: opt.Logger, password: pw, compliance: newCompliance(opt.Router.LastDirect)}
	opt.Info.PeerToken = peer.NewToken()
	m.peers, err = peer.NewServer(peer.Options{Addr: opt.PeerAddress, MemberID: opt.UUID, Token: opt.Info.PeerToken,
		Source: opt.Router.Tracker(opt.ReplicaID), OnNotice: opt.Router.Prepared,
		Handlers: map[string]peer.Handler{methodHold: m.onHold}, Logger: m.log.With().Str("component", "peer").Logger()})
	if err != nil {
		return nil, fmt.Errorf("recovery: %w", err)
	}
	opt.Info.PeerAddress = m.peers.Addr().String()
	m.opt.Info = opt.Info
	m.feed, err = feed.New(feed.Options{Store: opt.Store, GroupUUID: opt.GroupName, Listen: opt.FeedAddress,
		ServerUUID: feedUUID(opt.UUID), ServerVersion: opt.ServerVersion,
		User: AccountName, Password: pw, Failed: opt.Failed, Skip: m.skip, Logger: m.log.With().Str("component", "feed").Logger()})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("recovery: %w", err), m.peers.Close())
	}
	return m, nil
}

// skip is the feed's: what the primary commits itself does not come by the feed.
func (m *Member) skip(n uint64) bool {
	f := m.withheld.Load()
	return f != nil && (*f)(n)
}

// Account returns the member's own account on its mysqld.
func (m *Member) Account() (user, password string) { return AccountName, m.password }

// Compliance knows the tables on which DML is refused.
func (m *Member) Compliance() *Compliance { return m.compliance }

// Ready says whether this member is ONLINE: it has everything that was ordered
// before its present life, and its mysqld answers.
func (m *Member) Ready() bool { return m.ready.Load() }

// LastError is why the latest life of mysqld as a member ended, or nil.
func (m *Member) LastError() error {
	if p := m.lastErr.Load(); p != nil {
		return *p
	}
	return nil
}

// Run works until ctx ends. Lives of mysqld come and go meanwhile.
func (m *Member) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.peers.Run(ctx) })
	g.Go(func() error { return m.feed.Run(ctx) })
	g.Go(func() error { return m.followPeers(ctx) })
	g.Go(func() error { return m.detect(ctx) })
	g.Go(func() error { return m.campaigns(ctx) })
	g.Go(func() error { return m.followHolds(ctx) })
	g.Go(func() error { return m.lives(ctx) })
	g.Go(func() error { return m.purge(ctx) })
	return g.Wait()
}

// Close ends the listeners of a member whose Run was not called.
func (m *Member) Close() error { return errors.Join(m.peers.Close(), m.feed.Close()) }

// lives runs one life of mysqld as a member after the other.
func (m *Member) lives(ctx context.Context) error {
	const shortest, longest = 50 * time.Millisecond, 5 * time.Second
	pause := shortest
	diverged := 0 // lives in a row that ended so
	for {
		began := time.Now()
		lifeCtx, wanted := m.control.begin(ctx)
		if !wanted {
			if m.control.leaving() {
				m.leave(ctx)
			}
			// One whose data are not the group's is nothing to read from.
			if !m.gaveUp.Load() {
				m.opt.Router.SetPlace(router.OnLocal)
			}
			m.control.stopped()
			if m.control.await(ctx) != nil {
				return nil
			}
			diverged, pause = 0, shortest
			continue
		}
		m.opt.Router.SetPlace(router.OnPrimary)
		err := m.live(lifeCtx)
		m.control.over()
		m.ready.Store(false)
		if ctx.Err() != nil {
			return nil
		}
		m.lastErr.Store(&err)
		m.control.tell(err)
		if !m.Wanted() {
			if !errors.Is(err, errStopped) {
				m.log.Error().Err(err).Msg("the member could not join the group")
			}
			continue
		}
		if errors.Is(err, ErrDiverged) {
			diverged++
		} else {
			diverged = 0
		}
		// The first such life may have left mysqld open for writes; the second one
		// has closed it and found the same. A third would only kill the sessions
		// of whoever comes to look.
		if diverged == 2 {
			m.log.Error().Err(err).Msg("this server must be provisioned anew; run START GROUP_REPLICATION, or start cohort again, when it is")
			m.gaveUp.Store(true)
			m.control.giveUp()
			continue
		}
		if time.Since(began) > longest {
			pause = shortest
		}
		if errors.Is(err, errReplaced) {
			m.log.Info().Err(err).Msg("this member is not the primary any more; it joins again")
			continue
		}
		m.log.Warn().Err(err).Dur("retry_in", pause).Msg("mysqld is not in the group now; trying again")
		m.control.pause(ctx, pause)
		pause = min(2*pause, longest)
	}
}

// loadPassword returns the random password of the member's own account,
// made at its first start.
func loadPassword(dir string) (string, error) {
	path := filepath.Join(dir, "account")
	b, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(b))) >= 32 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("recovery: read the account's password: %w", err)
	}
	pw := hex.EncodeToString(randomBytes(16)) // CHANGE REPLICATION SOURCE takes 32 characters
	if err := writeFileDurably(path, []byte(pw+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("recovery: write the account's password: %w", err)
	}
	return pw, nil
}

// feedUUID is the server_uuid that the feed shows: one that no mysqld has, since
// a receiver refuses a source with its own.
func feedUUID(member string) string {
	h := sha256.Sum256([]byte("cohort feed of " + member))
	x := hex.EncodeToString(h[:16])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:32]
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand documents it
	return b
}
