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
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/allowlist"
	"cohort/internal/binlog/capture"
	"cohort/internal/binlog/feed"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/durable"
	"cohort/internal/grouptls"
	"cohort/internal/pause"
	"cohort/internal/peer"
	"cohort/internal/uptime"
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
	// TLS encrypts the members' own channel, and Allowlist says who may connect
	// to it; nil: it is not encrypted, and everybody.
	TLS       *grouptls.Config
	Allowlist *allowlist.List
	// CommitterConns is the number of connections that carry out verdicts.
	CommitterConns int
	// TransactionSizeLimit in bytes, 0 for none.
	TransactionSizeLimit int64
	// BinlogSpace is how large the group binlog may grow, in bytes, before what
	// all members have applied is purged; 0 for any size. Members is how many
	// members a group has at least that is begun by several at once.
	BinlogSpace int64
	Members     int
	// Failed is told when this member cannot go on: the feed has found the group
	// binlog damaged, or it has left the group for good (ErrAborted). May be nil.
	Failed func(error)
	Node   *consensus.Node
	Store  *groupbinlog.Store
	// Donors is Node's RowSource; nil: none.
	Donors *Donors
	// Router is told where verdicts go and what is visible.
	Router *router.Router
	// Policy is the first one; see Member.ChangePolicy.
	Policy Policy
	// Detection is how fast the silence of others is noticed; zero: DetectDefault.
	Detection Detection
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
	// sizeLimit is in bytes, 0 for none; capture reads the binary log of the present
	// or last life as primary.
	sizeLimit atomic.Int64
	capture   atomic.Pointer[capture.Capture]
	// hasAccount: this process made the account. Only lives uses it.
	hasAccount bool
	control    control
	gaveUp     atomic.Bool // there will be no other life, see lives
	lastErr    atomic.Pointer[error]
	// failed: it is out of the group against its will; rejoining: it tries to come
	// back. Only lives sets them and uses exile.
	failed, rejoining atomic.Bool
	exile             exile
	// rejoinTries have failed since rejoinSince, in ns of uptime.
	rejoinTries atomic.Uint64
	rejoinSince atomic.Int64
	timing      timing
	sweepEvery  time.Duration // sweepInterval, but in tests
	// suspects are the incarnations of members that are not heard, by id.
	suspects atomic.Pointer[map[uint64]uint64]
	// known is the evidence about the others, by id.
	known    atomic.Pointer[map[uint64]evidence]
	leases   leases
	policyMu sync.Mutex
	policy   Policy
	// weight is this member's in elections; weighed, of capacity 1, says that it may
	// have changed.
	weight  atomic.Uint64
	weighed chan struct{}
	// secure is mysqld's require_secure_transport, as far as known.
	secure atomic.Bool
}

// RequireTLS says whether mysqld wants its clients to use TLS or a socket. The
// member's own connection to it is a socket, so it cannot tell by itself.
func (m *Member) RequireTLS() bool { return m.secure.Load() }

// New prepares a member: it opens its listeners and reads its password.
func New(opt Options) (*Member, error) {
	pw, err := loadPassword(opt.Dir)
	if err != nil {
		return nil, err
	}
	m := &Member{policy: opt.Policy, timing: defaultTiming, sweepEvery: sweepInterval, holds: holds{new: make(chan struct{}, 1)}, weighed: make(chan struct{}, 1),
		control: control{wanted: !opt.Standby, changed: make(chan struct{})}, opt: opt, log: opt.Logger, password: pw, compliance: newCompliance(opt.Router.LastDirect)}
	m.sizeLimit.Store(opt.TransactionSizeLimit)
	opt.Node.SetDoubt(m.doubts)
	m.weight.Store(min(opt.Info.Weight, state.MaxWeight))
	opt.Info.PeerToken = peer.NewToken()
	earlier, err := keepToken(opt.Dir, opt.Info.PeerToken)
	if err != nil {
		return nil, err
	}
	po := peer.Options{Addr: opt.PeerAddress, MemberID: opt.UUID, Token: opt.Info.PeerToken, Earlier: earlier,
		Source: opt.Router.Tracker(opt.ReplicaID), OnNotice: opt.Router.Prepared, Rows: opt.Store,
		Alive:     func() bool { return m.opt.Node.Stalled() < stalledLog },
		Heartbeat: m.detection().Heartbeat,
		Handlers: map[string]peer.Handler{methodHold: m.onHold, methodSilent: m.onSilent,
			methodPrimary: m.onPrimary, methodLease: m.onLease}, Logger: m.log.With().Str("component", "peer").Logger()}
	if opt.TLS != nil {
		po.TLS = opt.TLS.Server()
	}
	if opt.Allowlist != nil {
		po.Admit = opt.Allowlist.Check
	}
	m.peers, err = peer.NewServer(po)
	if err != nil {
		return nil, fmt.Errorf("recovery: %w", err)
	}
	if opt.Info.PeerAddress, err = peerAddress(opt.PeerAddress, m.peers.Addr()); err != nil {
		return nil, errors.Join(err, m.peers.Close())
	}
	m.opt.Info = opt.Info
	opt.Node.SetPatient(m.patient)
	m.feed, err = feed.New(feed.Options{Store: opt.Store, GroupUUID: opt.GroupName, Listen: opt.FeedAddress,
		ServerUUID: feedUUID(opt.UUID), ServerVersion: opt.ServerVersion,
		User: AccountName, Password: pw, Failed: opt.Failed, Skip: m.skip, Logger: m.log.With().Str("component", "feed").Logger()})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("recovery: %w", err), m.peers.Close())
	}
	return m, nil
}

// peerAddress is what the others are told: the host as it was configured, since
// certificates are for names, and the port that the listener got.
func peerAddress(configured string, real net.Addr) (string, error) {
	host, _, err := net.SplitHostPort(configured)
	if err != nil {
		return "", fmt.Errorf("recovery: %w", err)
	}
	_, port, err := net.SplitHostPort(real.String())
	if err != nil {
		return "", fmt.Errorf("recovery: %w", err)
	}
	return net.JoinHostPort(host, port), nil
}

// skip is the feed's: what the primary commits itself does not come by the feed.
func (m *Member) skip(n uint64) bool {
	f := m.withheld.Load()
	return f != nil && (*f)(n)
}

// SetTransactionSizeLimit changes the largest transaction, in bytes, that this member
// takes as the primary, from the next one on; 0 is no limit.
func (m *Member) SetTransactionSizeLimit(bytes int64) {
	m.sizeLimit.Store(bytes)
	if c := m.capture.Load(); c != nil {
		c.SetTransactionSizeLimit(bytes)
	}
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
	g.Go(func() error { return m.watchAdrift(ctx) })
	g.Go(func() error { return m.campaigns(ctx) })
	g.Go(func() error { return m.keepLease(ctx) })
	g.Go(func() error { return m.followHolds(ctx) })
	g.Go(func() error { return m.lives(ctx) })
	g.Go(func() error { return m.purge(ctx) })
	return g.Wait()
}

// Close ends the listeners of a member whose Run was not called.
func (m *Member) Close() error { return errors.Join(m.peers.Close(), m.feed.Close()) }

// lives runs one life of mysqld as a member after the other.
func (m *Member) lives(ctx context.Context) error {
	// A mysqld that returns is not kept waiting; looking for it costs nothing.
	const shortest, longest, well = 50 * time.Millisecond, time.Second, 5 * time.Second
	pause, last := shortest, ""
	for {
		began := time.Now()
		lifeCtx, wanted := m.control.begin(ctx)
		if !wanted {
			if m.await(ctx) != nil {
				return nil
			}
			pause = shortest
			continue
		}
		err := m.try(lifeCtx)
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
		if time.Since(began) > well {
			pause, last = shortest, ""
		}
		next := m.exile.ended(err, m.Policy().AutorejoinTries)
		switch next {
		case again:
			m.log.Info().Err(err).Msg("this member is not the primary any more; it joins again")
		case againLater:
			level := zerolog.WarnLevel
			if fmt.Sprint(err) == last { // said once
				level = zerolog.DebugLevel
			}
			last = fmt.Sprint(err)
			m.log.WithLevel(level).Err(err).Dur("retry_in", pause).Msg("mysqld is not in the group now; trying again")
			m.control.pause(ctx, pause)
			pause = min(2*pause, longest)
		case rejoin, rejoinLater, rejoinQuietly:
			m.rejoinTries.Store(m.exile.tries)
			if !m.rejoining.Load() {
				m.rejoinSince.Store(int64(uptime.Now()))
			}
			m.rejoining.Store(true)
			m.log.Warn().Err(err).Uint64("failed_tries", m.exile.tries).Msg("this member is out of the group; it tries to rejoin")
			if next != rejoinQuietly {
				m.fail(ctx)
			}
			if next == rejoinLater {
				m.awaitRejoin(ctx)
			}
		case exitNow:
			m.exit(ctx, err)
		case stayOut:
			m.log.Error().Err(err).Msg("this server must be provisioned anew; run START GROUP_REPLICATION, or start cohort again, when it is")
			m.gaveUp.Store(true)
			m.control.giveUp()
		}
	}
}

// try is live. One that was in the group and comes back does so only where there
// is a majority: the life would kill whoever reads here.
func (m *Member) try(ctx context.Context) error {
	fctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { m.watchFetch(fctx, cancel) })
	err := m.tryOnce(fctx)
	if cause := context.Cause(fctx); errors.Is(cause, errRows) && ctx.Err() == nil {
		err = cause
	}
	cancel(nil)
	wg.Wait()
	return err
}

// tryOnce waits for that majority. Without a place in the log a member cannot ask for
// one: it has to be let in first, by who has it, before anything else is done.
func (m *Member) tryOnce(ctx context.Context) error {
	end := time.Now().Add(m.timing.rejoinTry)
	for m.rejoining.Load() && !m.opt.Node.Removed() && !m.quorum(ctx, min(majorityEvery, time.Until(end))) {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Now().After(end):
			return fmt.Errorf("%w: no contact to a majority", errNotLetIn)
		}
		// An answer may be an error at once.
		if err := pause.For(ctx, majorityEvery/10); err != nil {
			return err
		}
	}
	return m.live(ctx)
}

// await returns when the member is wanted in the group.
func (m *Member) await(ctx context.Context) error {
	if m.control.leaving() {
		m.failed.Store(false)
		m.leave(ctx)
	}
	failed := m.failed.Load()
	// One whose data are not the group's is nothing to read from.
	if !m.gaveUp.Load() && !failed {
		m.opt.Router.SetPlace(router.OnLocal)
	}
	m.control.stopped()
	m.exile = exile{}
	m.rejoining.Store(false)
	tctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { m.tellOut(tctx) })
	err := m.control.await(ctx)
	cancel()
	wg.Wait()
	return err
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
	if err := durable.WriteFile(path, []byte(pw+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("recovery: write the account's password: %w", err)
	}
	return pw, nil
}

// stalledLog is how long this member's log may stand still, in an fsync most likely,
// before it gives the others no sign of life any more: they would wait for a primary
// that answers and orders nothing. A busy disk takes a second or two.
const stalledLog = 5 * time.Second

// tokensKept is how many processes of a donor a member may have missed that fetches
// rows.
const tokensKept = 16

// keepToken adds the token of this process to those of earlier ones, which it returns.
func keepToken(dir, token string) ([]string, error) {
	path := filepath.Join(dir, "peer-tokens")
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("recovery: read the members' channel's tokens: %w", err)
	}
	earlier := slices.DeleteFunc(strings.Fields(string(b)), func(s string) bool { return len(s) != len(token) })
	earlier = earlier[max(0, len(earlier)-tokensKept):]
	text := strings.Join(append(slices.Clone(earlier), token), "\n") + "\n"
	if err := durable.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("recovery: write the members' channel's tokens: %w", err)
	}
	return earlier, nil
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
