package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/applied"
	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/peer"
)

// donor is another member as far as fetching from it goes.
type donor struct {
	member state.Member
	store  *groupbinlog.Store
	dir    string
	stop   func()
}

func donorRow(t testing.TB, n uint64) (binlog.Meta, []byte) {
	t.Helper()
	b, err := binlog.AppendQuery(nil, 1, 0, &binlog.Query{Schema: []byte("s"), SQL: fmt.Appendf(nil, "%d %s", n, strings.Repeat("x", 20000))})
	if err != nil {
		t.Fatal(err)
	}
	return binlog.Meta{Kind: binlog.KindTransaction, OriginalCommitTimestamp: 1, OriginalServerVersion: 90704, Timestamp: 1}, b
}

// newDonor has transactions up to last, of which those in files before the one of
// first are purged.
func newDonor(t testing.TB, id, first, last uint64) *donor {
	t.Helper()
	store, err := groupbinlog.Open(t.TempDir(), groupbinlog.Options{GroupUUID: groupName, MaxFileSize: 100_000, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	sync := func() {
		if _, err := store.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	for n := uint64(1); n <= last; n++ {
		meta, b := donorRow(t, n)
		if err := store.Append(n, 0, meta, bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatal(err)
		}
		if n%5 == 0 {
			sync()
		}
	}
	sync()
	sync()
	if _, err := store.Purge(first - 1); err != nil {
		t.Fatal(err)
	}
	d := &donor{store: store, dir: t.TempDir(), member: state.Member{ID: id, State: state.StateOnline, Info: state.MemberInfo{UUID: fmt.Sprint("donor-", id)}}}
	d.start(t)
	t.Cleanup(func() {
		d.stop()
		store.Close()
	})
	return d
}

// start begins a process of the donor, with an address and a token of its own.
func (d *donor) start(t testing.TB) {
	t.Helper()
	token := peer.NewToken()
	earlier, err := keepToken(d.dir, token)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := peer.NewServer(peer.Options{Addr: "127.0.0.1:0", MemberID: d.member.Info.UUID, Token: token, Earlier: earlier,
		Source: applied.New(applied.Set{}), Rows: d.store, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Run(ctx)
	}()
	d.member.Info.PeerAddress, d.member.Info.PeerToken = srv.Addr().String(), token
	d.stop = func() {
		cancel()
		<-done
	}
}

func viewOf(ds ...*donor) *state.View {
	v := &state.View{Founded: true, Members: []state.Member{{ID: 1, State: state.StateOnline, Info: state.MemberInfo{UUID: "self", PeerAddress: "127.0.0.1:1"}}}}
	for _, d := range ds {
		v.Members = append(v.Members, d.member)
	}
	return v
}

// receiver takes rows in order; hook is called with each number first.
type receiver struct {
	t    testing.TB
	last uint64
	hook func(n uint64) error
}

func (r *receiver) take(row consensus.Row, body io.Reader) error {
	if r.hook != nil {
		if err := r.hook(row.N); err != nil {
			return err
		}
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if meta, want := donorRow(r.t, row.N); row.N != r.last+1 || row.Meta != meta || !bytes.Equal(b, want) {
		return fmt.Errorf("transaction %d after %d", row.N, r.last)
	}
	r.last = row.N
	return nil
}

func testDonors(retries uint64, log io.Writer) *Donors {
	return NewDonors(DonorOptions{ReplicaID: 1, UUID: "self", RetryCount: retries, ReconnectInterval: time.Millisecond, Logger: zerolog.New(log)})
}

// A donor that dies in the middle, one that has purged and one that is not there
// do not matter while another one has what is needed.
func TestAnotherDonorGoesOn(t *testing.T) {
	dead, purged := newDonor(t, 4, 1, 60), newDonor(t, 5, 30, 60)
	dead.stop()
	first, second := newDonor(t, 2, 1, 60), newDonor(t, 3, 1, 60)
	stopped := false
	r := &receiver{t: t}
	var log bytes.Buffer
	d := testDonors(100, &log)
	r.hook = func(n uint64) error {
		// Whoever serves this dies; the rest comes from another one.
		if n == 25 && !stopped {
			stopped = true
			for _, x := range []*donor{first, second} {
				if strings.Contains(lastDonor(log.String()), x.member.Info.UUID) {
					x.stop()
				}
			}
		}
		return nil
	}
	off := newDonor(t, 6, 1, 60)
	off.member.State = state.StateRecovering // not asked
	err := d.Fetch(t.Context(), consensus.RowRange{View: viewOf(dead, purged, first, second, off), After: 0, Upto: 60}, r.take)
	if err != nil || r.last != 60 || !stopped {
		t.Fatalf("%v, up to %d, %t\n%s", err, r.last, stopped, &log)
	}
	if strings.Contains(log.String(), off.member.Info.UUID) {
		t.Errorf("a member that is RECOVERING was asked:\n%s", &log)
	}
	if s, _ := d.Status(); s.Fetching || s.Err != nil {
		t.Errorf("%+v", s)
	}
}

func lastDonor(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for _, l := range slices.Backward(lines) {
		if strings.Contains(l, "fetching transactions") {
			return l
		}
	}
	return ""
}

// gaveUp runs a fetch that does and returns why; then it is stopped.
func gaveUp(t *testing.T, d *Donors, want consensus.RowRange) error {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	end := errors.New("end")
	done := make(chan error, 1)
	go func() {
		done <- d.Fetch(ctx, want, (&receiver{t: t, last: want.After}).take)
	}()
	var why error
	until(t, "the member to give up", func() bool {
		s, _ := d.Status()
		why = s.Err
		return why != nil
	})
	cancel(end)
	if err := <-done; !errors.Is(err, end) {
		t.Errorf("Fetch ended with %v", err)
	}
	return why
}

func TestNoDonor(t *testing.T) {
	if err := gaveUp(t, testDonors(3, io.Discard), consensus.RowRange{View: viewOf(), Upto: 5}); !errors.Is(err, ErrNoDonor) {
		t.Error(err)
	}
	dead := newDonor(t, 2, 1, 5)
	dead.stop()
	var log bytes.Buffer
	if err := gaveUp(t, testDonors(3, &log), consensus.RowRange{View: viewOf(dead), Upto: 5}); !errors.Is(err, ErrNoDonor) {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "cannot go on"); n != 3 {
		t.Errorf("%d attempts, not 3", n)
	}
}

func TestAllPurged(t *testing.T) {
	a, b := newDonor(t, 2, 30, 60), newDonor(t, 3, 20, 60)
	var log bytes.Buffer
	err := gaveUp(t, testDonors(3, &log), consensus.RowRange{View: viewOf(a, b), After: 3, Upto: 60})
	if !errors.Is(err, ErrAllPurged) || !strings.Contains(err.Error(), fmt.Sprintf("begin with %d", b.store.FirstN())) {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "copy the data set") {
		t.Errorf("it does not say what to do:\n%s", &log)
	}
}

// Donors that began anew since the snapshot are found where they are now, also those
// that were not ONLINE then; an earlier process's token will do for their rows, and for
// nothing else.
func TestDonorsBeganAnew(t *testing.T) {
	for name, was := range map[string]state.MemberState{"ONLINE": state.StateOnline, "OFFLINE": state.StateOffline} {
		x := newDonor(t, 2, 1, 30)
		x.member.State = was
		view := viewOf(x)
		x.stop()
		x.start(t)
		d := NewDonors(DonorOptions{ReplicaID: 1, UUID: "self", RetryCount: 2, ReconnectInterval: time.Hour, Logger: zerolog.Nop()})
		asked := 0
		d.SetLocate(func(_ context.Context, v *state.View) map[uint64]string {
			asked++
			return map[uint64]string{2: x.member.Info.PeerAddress, 7: "127.0.0.1:1"}
		})
		r := &receiver{t: t}
		if err := d.Fetch(t.Context(), consensus.RowRange{View: view, Upto: 30}, r.take); err != nil || r.last != 30 || asked != 1 {
			t.Errorf("%s: %v, up to %d, asked %d times", name, err, r.last, asked)
		}
	}
}

func TestKeepToken(t *testing.T) {
	dir := t.TempDir()
	var all []string
	for range 2 * tokensKept {
		token := peer.NewToken()
		earlier, err := keepToken(dir, token)
		if err != nil {
			t.Fatal(err)
		}
		if want := all[max(0, len(all)-tokensKept):]; !slices.Equal(earlier, want) {
			t.Fatalf("%d tokens, not %d", len(earlier), len(want))
		}
		all = append(all, token)
	}
}

// One whose data are not the group's has nothing to try again for.
func TestDivergedIsNotRetried(t *testing.T) {
	d := testDonors(1, io.Discard)
	d.Diverged(consensus.ErrDiverged)
	d.Retry()
	if s, _ := d.Status(); !errors.Is(s.Err, ErrDiverged) || !errors.Is(s.Err, consensus.ErrDiverged) {
		t.Errorf("%+v", s)
	}
}

// One that gave up tries again when it is told to.
func TestRetry(t *testing.T) {
	x := newDonor(t, 2, 1, 30)
	x.store.Limit(20) // it does not have everything yet
	d := testDonors(2, io.Discard)
	done := make(chan error, 1)
	r := &receiver{t: t}
	go func() { done <- d.Fetch(t.Context(), consensus.RowRange{View: viewOf(x), Upto: 30}, r.take) }()
	until(t, "the member to give up", func() bool { s, _ := d.Status(); return s.Err != nil })
	x.store.Limit(groupbinlog.NoLimit)
	d.Retry()
	if err := <-done; err != nil || r.last != 30 {
		t.Fatal(err, r.last)
	}
}

// A failure of the member's own is no reason to ask another donor.
func TestOwnFailure(t *testing.T) {
	full := errors.New("disk full")
	r := &receiver{t: t, hook: func(n uint64) error {
		if n == 3 {
			return full
		}
		return nil
	}}
	d := testDonors(5, io.Discard)
	if err := d.Fetch(t.Context(), consensus.RowRange{View: viewOf(newDonor(t, 2, 1, 5), newDonor(t, 3, 1, 5)), Upto: 5}, r.take); !errors.Is(err, full) {
		t.Fatal(err)
	}
}

// While rows are fetched, what they are fetched from stays.
func TestDonorKeepsWhatIsFetched(t *testing.T) {
	x := newDonor(t, 2, 1, 400)
	reached, goOn := make(chan struct{}), make(chan struct{})
	var stuck atomic.Bool
	r := &receiver{t: t, hook: func(n uint64) error {
		if n == 2 && stuck.CompareAndSwap(false, true) {
			close(reached)
			<-goOn
		}
		return nil
	}}
	done := make(chan error, 1)
	go func() {
		done <- testDonors(1, io.Discard).Fetch(t.Context(), consensus.RowRange{View: viewOf(x), Upto: 400}, r.take)
	}()
	<-reached
	if _, err := x.store.Purge(400); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	if err := <-done; err != nil || r.last != 400 {
		t.Fatal(err, r.last)
	}
}
