package consensus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/certify"
	"cohort/consensus/state"
	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
)

// sourceFunc is a RowSource.
type sourceFunc func(ctx context.Context, want RowRange, take func(Row, io.Reader) error) error

func (f sourceFunc) Fetch(ctx context.Context, want RowRange, take func(Row, io.Reader) error) error {
	return f(ctx, want, take)
}

// history applies a group's first transactions, the bodies of which are made by
// body, and returns the machine.
func history(t *testing.T, startN, last uint64, body func(n uint64) string) *machine {
	m := newMachine(t)
	m.mustApply(t, &state.Bootstrap{GroupName: "g", Lineage: 1, Rules: 1, Replicas: 9, Primary: 1, StartN: startN}, &state.Join{Member: 1, Replica: 1, Nonce: 1})
	for n := startN + 1; n <= last; n++ {
		b := []byte(body(n))
		m.mustApply(t, &state.Txn{Member: 1, Incarnation: 1, Seq: n - startN, Epoch: 1, XID: fmt.Sprint("x", n), Snapshot: certify.Snapshot{Low: n - 1}, Meta: testMeta, Body: b, BodyLen: int64(len(b))})
	}
	if m.st.LastN() != last {
		t.Fatalf("last %d", m.st.LastN())
	}
	return m
}

func good(n uint64) string { return fmt.Sprint("body ", n) }

// feed is a source that makes rows as history does.
func feed(body func(n uint64) string) sourceFunc {
	return func(_ context.Context, want RowRange, take func(Row, io.Reader) error) error {
		for n := want.After + 1; n <= want.Upto; n++ {
			b := []byte(body(n))
			if err := take(Row{N: n, Meta: testMeta, Size: int64(len(b))}, bytes.NewReader(b)); err != nil {
				return err
			}
		}
		return nil
	}
}

func snapshotOf(t *testing.T, m *machine) []byte {
	t.Helper()
	ctx, err := m.PrepareSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := m.SaveSnapshot(ctx, &buf, nil); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// A member of which the group's history is the beginning gets the rest, be it
// everything; nobody reads a row before it is verified.
func TestFetchedRowsAreVerified(t *testing.T) {
	const last = 2*checksumRingOfState + 500
	closed := make(chan struct{})
	close(closed)
	for _, c := range []struct {
		name       string
		start, has uint64 // has 0: not even the founding
		own, sent  func(uint64) string
		want       error
		shown      uint64
	}{
		{name: "behind", has: 10, own: good, sent: good},
		{name: "new", sent: good},
		{name: "new, the group began with data", start: 77, sent: good},
		{name: "another beginning", has: 10, own: func(n uint64) string { return fmt.Sprint("other ", n) }, sent: good, want: ErrDiverged, shown: 10},
		{name: "another end", has: last - 10, own: func(n uint64) string { return fmt.Sprint("other ", n) }, sent: good, want: ErrDiverged},
		{name: "further, another way", has: last + 1, own: func(n uint64) string { return fmt.Sprint("other ", n) }, sent: good, want: ErrDiverged},
		{name: "a wrong row", has: 10, own: good, want: ErrDiverged, shown: 10, sent: func(n uint64) string {
			if n == 20 {
				return "wrong"
			}
			return good(n)
		}},
		{name: "a wrong row at the end", has: 10, own: good, want: ErrDiverged, shown: last - 1, sent: func(n uint64) string {
			if n == last {
				return "wrong"
			}
			return good(n)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			donor := history(t, c.start, last, good)
			m := newMachine(t)
			if c.has > 0 {
				m = history(t, c.start, c.has, c.own)
				if err := m.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			m.cfg.Rows = feed(c.sent)
			store := m.cfg.Store.(*memStore)
			store.limit = 1 << 60
			err := m.RecoverFromSnapshot(bytes.NewReader(snapshotOf(t, donor)), closed)
			if c.want != nil {
				if err == nil || !errors.Is(m.err(), c.want) {
					t.Fatal(err, m.err())
				}
				if c.shown > 0 && store.limit != c.shown {
					t.Errorf("readers saw up to %d, of which %d were verified", store.limit, c.shown)
				}
				if err := m.Sync(); !errors.Is(err, ErrFailed) {
					t.Error("a stopped member wrote a checkpoint")
				}
				// A start finds what there was.
				if err := m.load(); err != nil || m.st.LastN() != c.has || store.LastN() != c.has {
					t.Errorf("%v, %d, %d", err, m.st.LastN(), store.LastN())
				}
				return
			}
			if err != nil || store.limit != groupbinlog.NoLimit {
				t.Fatal(err, m.err(), store.limit)
			}
			if !bytes.Equal(m.encoded(), donor.encoded()) || fmt.Sprint(store.snapshot()) != fmt.Sprint(donor.cfg.Store.(*memStore).snapshot()) {
				t.Error("not what the donor has")
			}
			if err := m.Sync(); err != nil {
				t.Fatal(err)
			}
			if err := m.load(); err != nil || m.st.LastN() != last {
				t.Fatal(err, m.st.LastN())
			}
		})
	}
}

const checksumRingOfState = 4096

// What runs beside a fetch stores no state that lacks rows or has too many.
func TestNoCheckpointWhileRowsAreFetched(t *testing.T) {
	donor, m := history(t, 0, 50, good), history(t, 0, 10, good)
	stored := false
	m.cfg.Rows = sourceFunc(func(ctx context.Context, want RowRange, take func(Row, io.Reader) error) error {
		return feed(good)(ctx, want, func(r Row, b io.Reader) error {
			err := take(r, b)
			if r.N == 30 {
				// m has a state that was never stored.
				stored = m.checkpoint() != nil
				if st, pos, err := loadCheckpoint(m.cfg.Dir); err != nil || st.LastN() != 0 || pos.LastN != 0 {
					t.Errorf("%v, %d, %d", err, st.LastN(), pos.LastN)
				}
			}
			return err
		})
	})
	if err := m.RecoverFromSnapshot(bytes.NewReader(snapshotOf(t, donor)), nil); err != nil || stored {
		t.Fatal(err, stored)
	}
	if err := m.checkpoint(); err != nil {
		t.Fatal(err)
	}
	if st, pos, err := loadCheckpoint(m.cfg.Dir); err != nil || st.LastN() != 50 || pos.LastN != 50 {
		t.Fatal(err, st.LastN(), pos.LastN)
	}
}

// Fragments of another content than the state says are refused.
func TestDamagedFragmentsInASnapshot(t *testing.T) {
	donor, m := history(t, 0, 1, good), history(t, 0, 1, good)
	donor.mustApply(t, &state.Fragment{Member: 1, Incarnation: 1, Seq: 2, Stream: 2, Data: []byte("spooled"), Len: 7})
	b := snapshotOf(t, donor)
	b[len(b)-3] ^= 1
	closed := make(chan struct{})
	close(closed)
	if err := m.RecoverFromSnapshot(bytes.NewReader(b), closed); err == nil || !errors.Is(m.err(), ErrCorrupt) {
		t.Fatal(err, m.err())
	}
}

// donors gives a member the rows of the other members' group binlogs.
type donors struct {
	mu     sync.Mutex
	stores []*groupbinlog.Store
	// step is called, if set, before each row is handed over and may break off: an
	// error ends the present donor in the middle of the row's body.
	step  func(n uint64) error
	calls int
	takes int
}

var errDonor = errors.New("the donor is gone")

func (d *donors) Fetch(ctx context.Context, want RowRange, take func(Row, io.Reader) error) error {
	d.mu.Lock()
	d.calls++
	step := d.step
	d.mu.Unlock()
	next := want.After + 1
	for try := 0; ; try++ {
		err := func() error {
			r, err := d.stores[try%len(d.stores)].NewReader(next - 1)
			if err != nil {
				return err
			}
			defer r.Close()
			for next <= want.Upto {
				x, err := r.Next(ctx)
				if err != nil {
					return err
				}
				body, size := x.Body()
				if step != nil {
					if err := step(next); err != nil {
						body = io.MultiReader(io.LimitReader(body, size/2), broken{err})
					}
				}
				if err := take(Row{N: x.N, Dep: x.Dep, Meta: x.Meta, Size: size}, body); err != nil {
					return err
				}
				next++
				d.mu.Lock()
				d.takes++
				d.mu.Unlock()
			}
			return nil
		}()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, errDonor) {
			return err
		}
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// away is a group with real group binlogs of which the third member was away until
// the log was compacted beyond it.
func away(t *testing.T, d *donors) (c *cluster, absent *testMember) {
	c = newCluster(t, 3, func(cfg *Config) {
		cfg.RetainLogBytes, cfg.CheckpointInterval = 8<<20, 20*time.Millisecond
		cfg.CompressionThreshold = -1
		if cfg.ReplicaID == 3 {
			cfg.Rows = d
		}
	})
	for _, m := range c.members {
		c.close(m)
	}
	for _, m := range c.members {
		openBinlog(t, m)
		c.open(m)
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			c.close(m)
			if err := m.store.(*groupbinlog.Store).Close(); err != nil {
				t.Error(err)
			}
		}
	})
	for _, m := range c.members[:2] {
		d.stores = append(d.stores, m.store.(*groupbinlog.Store))
	}
	c.found()
	absent = c.members[2]
	write(t, c, "a", 10, 1000)
	c.settle()
	c.close(absent)
	reopenBinlog(t, absent)
	write(t, c, "large", 2, 3<<20) // larger than what is held in memory
	write(t, c, "b", 40, 900_000)
	for _, o := range c.members[:2] {
		o.wait(t, "compaction", func() bool {
			r, err := o.node.host.Load().nh.GetLogReader(shardID)
			if err != nil {
				t.Fatal(err)
			}
			first, _ := r.GetRange()
			return first > 20
		})
	}
	return c, absent
}

func openBinlog(t *testing.T, m *testMember) {
	t.Helper()
	s, err := groupbinlog.Open(m.dir+"-binlog", groupbinlog.Options{GroupUUID: testGroup, MaxFileSize: 4 << 20, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	m.store = s
}

// reopenBinlog is what a new process does, of a member whose node is closed.
func reopenBinlog(t *testing.T, m *testMember) {
	t.Helper()
	if err := m.store.(*groupbinlog.Store).Close(); err != nil {
		t.Fatal(err)
	}
	openBinlog(t, m)
}

// write orders count transactions of about size bytes each.
func write(t *testing.T, c *cluster, prefix string, count, size int) {
	t.Helper()
	m := c.members[0]
	for i := range count {
		body, err := binlog.AppendQuery(nil, 1, 0, &binlog.Query{Schema: []byte("s"), SQL: bytes.Repeat([]byte{byte('a' + i%26)}, size)})
		if err != nil {
			t.Fatal(err)
		}
		xid := fmt.Sprint(prefix, i)
		if err := m.node.Submit(c.ctx(), proposal(xid, m.node.LastN(), uint64(i)+1000, body)); err != nil {
			t.Fatal(err)
		}
		if d := m.rec.verdict(t, xid); !d.Committed {
			t.Fatalf("%+v", d)
		}
	}
}

// sameRows compares what the group binlogs of all members hold, their logical
// clocks aside.
func (c *cluster) sameRows() {
	c.t.Helper()
	c.same()
	var first string
	for _, m := range c.members {
		s := m.store.(*groupbinlog.Store)
		r, err := s.NewReader(0)
		if err != nil {
			c.t.Fatal(err)
		}
		h := sha256.New()
		for n := uint64(1); n <= s.LastN(); n++ {
			x, err := r.Next(c.ctx())
			if err != nil {
				c.t.Fatal(err)
			}
			body, _ := x.Body()
			fmt.Fprint(h, x.N, x.Meta)
			if _, err := io.Copy(h, body); err != nil {
				c.t.Fatal(err)
			}
		}
		r.Close()
		if sum := fmt.Sprintf("%d %x", s.LastN(), h.Sum(nil)); first == "" {
			first = sum
		} else if sum != first {
			c.t.Fatalf("member %d holds %s, member 1 %s", m.id, sum, first)
		}
	}
}

// A member that was away for too long is brought its rows, though one donor breaks
// off in a body, and a large transaction that is on its way in fragments arrives.
func TestRowsAreFetched(t *testing.T) {
	failed := false
	d := &donors{step: func(n uint64) error {
		if n == 12 && !failed { // one of the large ones
			failed = true
			return errDonor
		}
		return nil
	}}
	c, absent := away(t, d)
	m := c.members[0]
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	defer open() // the proposer waits for it
	event, err := binlog.AppendQuery(nil, 1, 0, &binlog.Query{Schema: []byte("s"), SQL: bytes.Repeat([]byte("z"), 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat(event, 5)
	p := proposal("open", m.node.LastN(), 5000, nil)
	p.BodyLen = int64(len(body))
	p.Open = func() (io.ReadCloser, error) {
		return &gated{ReadCloser: io.NopCloser(bytes.NewReader(body)), gate: gate, after: len(body) / 2}, nil
	}
	if err := m.node.Submit(c.ctx(), p); err != nil {
		t.Fatal(err)
	}
	m.wait(t, "half of a transaction", func() bool {
		m.node.machine.mu.Lock()
		defer m.node.machine.mu.Unlock()
		for _, n := range m.node.machine.st.Streams() {
			return n >= int64(len(body)/2)-1<<20
		}
		return false
	})
	c.open(absent)
	absent.wait(t, "the rows", func() bool { return absent.node.LastN() >= 52 || absent.node.Err() != nil })
	if err := absent.node.Err(); err != nil {
		t.Fatal(err)
	}
	open()
	if d := m.rec.verdict(t, "open"); !d.Committed {
		t.Fatalf("%+v", d)
	}
	c.sameRows()
	if !failed || d.calls == 0 {
		t.Errorf("%d fetches, failed %t", d.calls, failed)
	}
	// It is a member as any other.
	c.join(absent)
	write(t, c, "c", 5, 1000)
	c.close(absent)
	reopenBinlog(t, absent)
	c.open(absent)
	c.sameRows()
	if _, err := os.Stat(filepath.Join(absent.dir, "fetched")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was left: %v", err)
	}
}

// A member that ends in the middle of a fetch, cleanly or not, begins again from
// what it had.
func TestFetchIsInterrupted(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprintf("crash=%t", crash), func(t *testing.T) {
			reached, stuck := make(chan struct{}), make(chan struct{})
			var once sync.Once
			d := &donors{}
			c, absent := away(t, d)
			d.step = func(n uint64) error {
				if n == 30 {
					once.Do(func() { close(reached) })
					<-stuck
				}
				return nil
			}
			c.open(absent)
			select {
			case <-reached:
			case <-time.After(patience):
				t.Fatal("no rows are fetched")
			}
			if n := absent.store.LastN(); n != 29 {
				t.Fatalf("%d rows", n)
			}
			absent.stop()
			closed := make(chan error, 1)
			go func() { closed <- absent.node.close(!crash) }()
			// The source notices that it is to end when it goes on.
			close(stuck)
			if err := <-closed; err != nil {
				t.Fatal(err)
			}
			absent.node = nil
			d.mu.Lock()
			d.step, d.takes = nil, 0
			d.mu.Unlock()
			reopenBinlog(t, absent)
			c.open(absent)
			if n := absent.node.LastN(); n != 10 && n < 52 {
				t.Fatalf("it began again with %d", n)
			}
			absent.wait(t, "the rows", func() bool { return absent.node.LastN() >= 52 || absent.node.Err() != nil })
			c.sameRows()
			if d.takes < 42 {
				t.Errorf("%d rows were fetched again", d.takes)
			}
		})
	}
}
