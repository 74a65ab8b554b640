package recovery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/pause"
	"cohort/internal/peer"
)

// Errors that end the search for a donor.
var (
	// ErrAllPurged: nothing but a copy of a member's data helps.
	ErrAllPurged = errors.New("recovery: every donor has purged transactions that this member lacks")
	// ErrNoDonor: donors may come back; START GROUP_REPLICATION tries again.
	ErrNoDonor = errors.New("recovery: no donor could bring what this member lacks")

	// errRows ends a life whose member cannot get what it lacks.
	errRows = errors.New("recovery: distributed recovery has given up")
)

// DonorOptions configure Donors.
type DonorOptions struct {
	// ReplicaID and UUID are this member's.
	ReplicaID uint64
	UUID      string
	// RetryCount is how many attempts are made without a row before this member
	// gives up, ReconnectInterval how long it waits after it has tried every donor.
	RetryCount        uint64
	ReconnectInterval time.Duration
	// RowsTimeout is how long a donor may be silent; 0: peer.DefaultRowsTimeout.
	RowsTimeout time.Duration
	// TLS is that of the members' channel; nil: none.
	TLS    func(host string) *tls.Config
	Logger zerolog.Logger
}

// Donors brings this member, from the group binlogs of others, the transactions
// that the log no longer holds. It is the consensus.RowSource of a member; the rows
// are verified by whoever takes them.
type Donors struct {
	opt      DonorOptions
	retries  atomic.Uint64
	interval atomic.Int64  // a time.Duration
	again    chan struct{} // cap 1: Retry
	locate   atomic.Pointer[Locate]

	mu      sync.Mutex
	status  FetchStatus
	changed chan struct{} // closed and replaced when status changes
}

// FetchStatus is what Donors is about.
type FetchStatus struct {
	// Fetching: rows are on their way, or donors are tried.
	Fetching bool
	// Err is why this member gave up, until a Retry.
	Err error
}

// Locate finds out where the members' channels of the members of a view are now
// that are ONLINE, by member.
type Locate func(ctx context.Context, v *state.View) map[uint64]string

// SetLocate has donors looked for at their present addresses, too.
func (d *Donors) SetLocate(f Locate) { d.locate.Store(&f) }

// NewDonors returns a source that does nothing until it is asked.
func NewDonors(opt DonorOptions) *Donors {
	d := &Donors{opt: opt, again: make(chan struct{}, 1), changed: make(chan struct{})}
	d.SetRetryCount(opt.RetryCount)
	d.SetReconnectInterval(opt.ReconnectInterval)
	return d
}

// SetRetryCount changes group_replication_recovery_retry_count.
func (d *Donors) SetRetryCount(n uint64) { d.retries.Store(n) }

// SetReconnectInterval changes group_replication_recovery_reconnect_interval.
func (d *Donors) SetReconnectInterval(v time.Duration) { d.interval.Store(int64(v)) }

// Status says what is being done, and returns a channel that is closed when that
// changes.
func (d *Donors) Status() (FetchStatus, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status, d.changed
}

func (d *Donors) set(s FetchStatus) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status = s
	close(d.changed)
	d.changed = make(chan struct{})
}

// Diverged says that this member's data are not the group's, which no donor
// changes.
func (d *Donors) Diverged(err error) {
	d.set(FetchStatus{Err: fmt.Errorf("%w: %w", ErrDiverged, err)})
}

// Retry has one that gave up try again.
func (d *Donors) Retry() {
	if s, _ := d.Status(); s.Err == nil || errors.Is(s.Err, ErrDiverged) {
		return
	}
	d.set(FetchStatus{Fetching: true}) // not given up any more, from now on
	select {
	case d.again <- struct{}{}:
	default:
	}
}

// Fetch implements consensus.RowSource. One that gave up waits for a Retry: the
// member cannot go on without the rows, but it can say so.
func (d *Donors) Fetch(ctx context.Context, want consensus.RowRange, take func(consensus.Row, io.Reader) error) error {
	select {
	case <-d.again: // of before
	default:
	}
	f := &rowFetch{d: d, want: want, done: want.After, take: take}
	for {
		d.set(FetchStatus{Fetching: true})
		err := f.run(ctx)
		switch own, isOwn := errors.AsType[*peer.TakeError](err); {
		case err == nil:
			d.set(FetchStatus{})
			d.opt.Logger.Info().Uint64("last", want.Upto).Msg("distributed recovery: all transactions were fetched")
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case isOwn:
			d.set(FetchStatus{Err: own.Err})
			return own.Err
		}
		d.set(FetchStatus{Err: err})
		d.opt.Logger.Error().Err(err).Uint64("have", f.done).Uint64("want", want.Upto).Msg(remedy(err))
		select {
		case <-d.again:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// remedy is what to do about one that gave up.
func remedy(err error) string {
	if errors.Is(err, ErrAllPurged) {
		return "this member is in ERROR: stop it, copy the data set of another member to its mysqld, and let it join anew (later releases do that by themselves); a larger cohort_binlog_space keeps more"
	}
	return "this member is in ERROR: see that other members are ONLINE and that their peer addresses can be reached from here, then run START GROUP_REPLICATION"
}

// rowFetch is one Fetch; done is the last number that was taken.
type rowFetch struct {
	d    *Donors
	want consensus.RowRange
	done uint64
	take func(consensus.Row, io.Reader) error
	// at is where ONLINE members are, as far as they were asked for.
	at map[uint64]string
}

// run tries donors until all rows are here, or gives up. In every round each donor
// that may have what is needed is tried once, in random order.
func (f *rowFetch) run(ctx context.Context) error {
	attempts := uint64(0)
	purged := map[uint64]uint64{} // by member: what it still has begins there
	for {
		list := f.donors(purged)
		if len(list) == 0 && f.relocate(ctx) {
			list = f.donors(purged)
		}
		var last error
		if len(list) == 0 {
			if len(purged) > 0 {
				return fmt.Errorf("%w: it needs %d and later, %s", ErrAllPurged, f.done+1, has(purged))
			}
			last = errors.New("no other member is known to be ONLINE")
			if attempts++; attempts >= max(f.d.retries.Load(), 1) {
				return fmt.Errorf("%w after %d attempts in a row (group_replication_recovery_retry_count): %w", ErrNoDonor, attempts, last)
			}
		}
		for _, m := range list {
			before := f.done
			err := f.from(ctx, m)
			if err == nil || ctx.Err() != nil {
				return err
			}
			if _, own := errors.AsType[*peer.TakeError](err); own {
				return err
			}
			if attempts++; f.done > before {
				attempts = 0
				clear(purged) // less is needed now
			}
			if e, ok := errors.AsType[*peer.RefusedError](err); ok && e.Purged {
				purged[m.ID] = e.First
			} else {
				last = err
			}
			f.d.opt.Logger.Warn().Err(err).Str("donor", m.Info.UUID).Uint64("have", f.done).Uint64("attempts", attempts).
				Msg("distributed recovery: this donor cannot go on; trying another one")
			if last != nil && attempts >= max(f.d.retries.Load(), 1) {
				return fmt.Errorf("%w after %d attempts in a row (group_replication_recovery_retry_count): %w", ErrNoDonor, attempts, last)
			}
		}
		if last == nil {
			continue // all have purged it, or there was progress
		}
		if f.relocate(ctx) {
			continue
		}
		wait := time.Duration(f.d.interval.Load())
		f.d.opt.Logger.Info().Dur("interval", wait).Msg("distributed recovery: every donor was tried; trying again after group_replication_recovery_reconnect_interval")
		if err := pause.For(ctx, wait); err != nil {
			return err
		}
	}
}

// relocate asks where the donors are now, and says whether one is somewhere else than
// where it was tried. The view is that of the snapshot: the process of a donor may
// have begun anew since, most likely when this member's own did in the middle of a
// fetch and was given the same snapshot again.
func (f *rowFetch) relocate(ctx context.Context) bool {
	locate := f.d.locate.Load()
	if locate == nil {
		return false
	}
	before := f.known()
	f.at = (*locate)(ctx, f.want.View)
	for id, addr := range f.known() {
		if before[id] != addr {
			return true
		}
	}
	return false
}

// known are the donors' addresses, by member.
func (f *rowFetch) known() map[uint64]string {
	all := make(map[uint64]string)
	for _, m := range f.donors(nil) {
		all[m.ID] = m.Info.PeerAddress
	}
	return all
}

// donors are the members that may have what is needed, in random order.
func (f *rowFetch) donors(purged map[uint64]uint64) []state.Member {
	var list []state.Member
	for _, m := range f.want.View.Members {
		if addr, ok := f.at[m.ID]; ok {
			m.State, m.Info.PeerAddress = state.StateOnline, addr
		}
		if _, gone := purged[m.ID]; !gone && m.ID != f.d.opt.ReplicaID && m.State == state.StateOnline && m.Info.PeerAddress != "" {
			list = append(list, m)
		}
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// from fetches from one donor what is still missing.
func (f *rowFetch) from(ctx context.Context, m state.Member) error {
	log := f.d.opt.Logger.With().Str("donor", m.Info.UUID).Logger()
	log.Info().Str("addr", m.Info.PeerAddress).Uint64("first", f.done+1).Uint64("last", f.want.Upto).Msg("distributed recovery: fetching transactions")
	said := time.Now()
	return peer.FetchRows(ctx, peer.Fetch{Donor: targetOf(&m), Self: f.d.opt.UUID, After: f.done, To: f.want.Upto,
		SubscriberOptions: peer.SubscriberOptions{RowsTimeout: f.d.opt.RowsTimeout, TLS: f.d.opt.TLS, Logger: log},
		Take: func(r peer.Row, body io.Reader) error {
			if err := f.take(consensus.Row(r), body); err != nil {
				return err
			}
			if f.done = r.N; time.Since(said) > 5*time.Second {
				said = time.Now()
				log.Info().Uint64("have", f.done).Uint64("want", f.want.Upto).Msg("distributed recovery: fetching transactions")
			}
			return nil
		}})
}

func has(purged map[uint64]uint64) string {
	first := uint64(0)
	for _, n := range purged {
		if first == 0 || n < first {
			first = n
		}
	}
	return fmt.Sprintf("the others begin with %d", first)
}

// Fetch says whether this member lacks transactions that the log no longer holds.
func (m *Member) Fetch() FetchStatus {
	if m.opt.Donors == nil {
		return FetchStatus{}
	}
	s, _ := m.opt.Donors.Status()
	return s
}

// watchFetch ends a life, by cancel, when what it waits for will not come.
func (m *Member) watchFetch(ctx context.Context, cancel context.CancelCauseFunc) {
	if m.opt.Donors == nil {
		return
	}
	for {
		s, changed := m.opt.Donors.Status()
		if s.Err != nil {
			cancel(fmt.Errorf("%w: %w", errRows, s.Err))
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// tellFetch answers a Start while the member waits for its rows: it is RECOVERING.
// The function that it returns ends that.
func (m *Member) tellFetch(ctx context.Context) (end func()) {
	if m.opt.Donors == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			s, changed := m.opt.Donors.Status()
			if s.Fetching {
				m.control.tell(nil)
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
