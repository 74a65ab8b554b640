package consensus

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/certify"
	"cohort/consensus/state"
	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/mysqldtest"
)

const testGroup = "11111111-2222-3333-4444-555555555555"

// patience bounds what a test waits for; nothing that works comes near it.
const patience = 3 * time.Minute

// memStore is a GroupBinlog in memory. It survives the node like files do, but
// a crash (see crash) loses what was not synced.
type memStore struct {
	mu     sync.Mutex
	first  uint64
	sums   []uint32 // of body, by n-first-1
	sizes  []int64
	synced int
	limit  uint64
}

func (s *memStore) Append(n, dep uint64, meta binlog.Meta, body io.Reader, size int64) error {
	h := crc32.NewIEEE()
	got, err := io.Copy(h, body)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if got != size || n != s.last()+1 || dep >= n {
		return fmt.Errorf("append %d dep %d size %d: last %d, %d bytes", n, dep, size, s.last(), got)
	}
	s.sums = append(s.sums, h.Sum32())
	s.sizes = append(s.sizes, size)
	return nil
}

func (s *memStore) last() uint64 { return s.first + uint64(len(s.sums)) }

func (s *memStore) pos() groupbinlog.Position {
	return groupbinlog.Position{File: 1, Offset: int64(len(s.sums)), LastN: s.last()}
}

func (s *memStore) Sync() (groupbinlog.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = len(s.sums)
	return s.pos(), nil
}

func (s *memStore) Position() groupbinlog.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pos()
}

func (s *memStore) Truncate(p groupbinlog.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.LastN > s.last() || p.LastN < s.first {
		return fmt.Errorf("truncate to %d: last %d", p.LastN, s.last())
	}
	s.sums, s.sizes = s.sums[:p.LastN-s.first], s.sizes[:p.LastN-s.first]
	return nil
}

func (s *memStore) Reset(n uint64) (groupbinlog.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first, s.sums, s.sizes, s.synced = n, nil, nil, 0
	return s.pos(), nil
}

func (s *memStore) LastN() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last()
}

func (s *memStore) Limit(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = n
}

// crash loses what was not synced.
func (s *memStore) crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums, s.sizes = s.sums[:s.synced], s.sizes[:s.synced]
}

func (s *memStore) snapshot() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]uint32(nil), s.sums...)
}

// recorder is an Observer that remembers.
type recorder struct {
	mu   sync.Mutex
	list []state.Decision
	byX  map[string]state.Decision
	news chan struct{}
	hook func([]state.Decision)
}

func newRecorder() *recorder {
	return &recorder{byX: make(map[string]state.Decision), news: make(chan struct{})}
}

func (r *recorder) Ordered(ds []state.Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hook != nil {
		r.hook(ds)
		return
	}
	r.list = append(r.list, ds...)
	for _, d := range ds {
		if d.XID != "" && !d.Repeated {
			r.byX[d.XID] = d
		}
	}
	close(r.news)
	r.news = make(chan struct{})
}

// wait waits until f, called with the lock held, is true.
func (r *recorder) wait(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		ok, news := f(), r.news
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-news:
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

func (r *recorder) verdict(t testing.TB, xid string) state.Decision {
	t.Helper()
	var d state.Decision
	r.wait(t, "the verdict on "+xid, func() bool {
		var ok bool
		d, ok = r.byX[xid]
		return ok
	})
	return d
}

// testMember is one member with what outlives its node.
type testMember struct {
	id    uint64
	dir   string
	store GroupBinlog
	rec   *recorder
	node  *Node
	stop  func()
}

// testGroup3 is a group of members in one process.
type cluster struct {
	t       testing.TB
	addrs   map[uint64]string
	members []*testMember
	tweak   func(*Config)
	entered bool // founded by one member, which the others ask
	dir     string
	log     *testLog
}

// testLog writes to a test's log while the test lasts: dragonboat's goroutines may
// outlive it by a little.
type testLog struct {
	mu sync.Mutex
	t  testing.TB
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.t != nil {
		l.t.Logf("%s", bytes.TrimSpace(b))
	}
	return len(b), nil
}

func (l *testLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t = nil
}

// freeAddr is an address that stays free while its member is closed.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(mysqldtest.Loopback(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newCluster(t testing.TB, size int, tweak func(*Config)) *cluster {
	c := &cluster{t: t, addrs: make(map[uint64]string), tweak: tweak, log: &testLog{t: t}}
	t.Cleanup(c.log.end)
	for id := uint64(1); id <= uint64(size); id++ {
		c.addrs[id] = freeAddr(t)
		c.members = append(c.members, &testMember{id: id, dir: filepath.Join(t.TempDir(), fmt.Sprint(id)),
			store: &memStore{}})
	}
	for _, m := range c.members {
		c.open(m)
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			c.close(m)
		}
	})
	return c
}

func (c *cluster) open(m *testMember) {
	c.t.Helper()
	m.rec = newRecorder()
	cfg := Config{Dir: m.dir, GroupName: testGroup, ReplicaID: m.id, LocalAddress: c.addrs[m.id],
		Store: m.store, Observer: m.rec,
		Logger: zerolog.New(c.log).Level(zerolog.ErrorLevel), ElectionRTT: 50, HeartbeatRTT: 5}
	if c.entered {
		for _, a := range c.addrs {
			cfg.Seeds = append(cfg.Seeds, a)
		}
	} else {
		cfg.InitialMembers = c.addrs
	}
	if c.tweak != nil {
		c.tweak(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	m.node = n
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Run(ctx)
	}()
	m.stop = func() { cancel(); <-done }
}

func (c *cluster) close(m *testMember) {
	c.t.Helper()
	if m.node == nil {
		return
	}
	m.stop()
	if err := m.node.Close(); err != nil {
		c.t.Error(err)
	}
	m.node = nil
}

// crash ends a member as kill -9 and a power loss would, as far as the state
// machine and a memStore are concerned.
func (c *cluster) crash(m *testMember) {
	c.t.Helper()
	m.stop()
	m.node.close(false)
	m.node = nil
	if s, ok := m.store.(*memStore); ok {
		s.crash()
	}
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c.t.Cleanup(cancel)
	return ctx
}

// found bootstraps the group with member 1 as the primary and joins all.
func (c *cluster) found() {
	c.t.Helper()
	if _, err := c.members[0].node.Bootstrap(c.ctx(), state.Bootstrap{Primary: 1}); err != nil {
		c.t.Fatal(err)
	}
	for _, m := range c.members {
		c.join(m)
	}
	c.settle()
}

func (c *cluster) join(m *testMember) {
	c.t.Helper()
	info := state.MemberInfo{UUID: fmt.Sprintf("uuid-%d", m.id), ServerVersion: 90704}
	if _, _, err := m.node.Join(c.ctx(), info); err != nil {
		c.t.Fatal(err)
	}
	if err := m.node.SetState(c.ctx(), state.StateOnline); err != nil {
		c.t.Fatal(err)
	}
}

var testMeta = binlog.Meta{Kind: binlog.KindTransaction, OriginalCommitTimestamp: 1, OriginalServerVersion: 90704, Timestamp: 1}

// proposal makes a transaction that touches key.
func proposal(xid string, low, key uint64, body []byte) *Proposal {
	return &Proposal{XID: xid, Snapshot: certify.Snapshot{Low: low}, Writes: []uint64{key},
		Tables: []uint64{7}, Meta: testMeta, Body: body, BodyLen: int64(len(body))}
}

// settle waits until all members have applied what the first open one has.
func (c *cluster) settle() {
	c.t.Helper()
	var target uint64
	for _, m := range c.members {
		if m.node != nil && m.node.host.Load() != nil {
			if _, err := m.node.ReadIndex(c.ctx()); err != nil {
				c.t.Fatal(err)
			}
			target = max(target, m.node.Applied())
		}
	}
	for _, m := range c.members {
		if m.node != nil && m.node.host.Load() != nil {
			m.waitApplied(c.t, target)
		}
	}
}

func (m *testMember) waitApplied(t testing.TB, index uint64) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for m.node.Applied() < index {
		<-tick.C
		if time.Now().After(deadline) {
			t.Fatalf("member %d applied %d, not %d", m.id, m.node.Applied(), index)
		}
	}
}

// same fails the test unless all open members hold the same state and rows.
func (c *cluster) same() {
	c.t.Helper()
	c.settle()
	var first *testMember
	for _, m := range c.members {
		if m.node == nil || m.node.host.Load() == nil {
			continue
		}
		if first == nil {
			first = m
			continue
		}
		if a, b := first.node.EncodedState(), m.node.EncodedState(); !bytes.Equal(a, b) {
			c.t.Fatalf("members %d and %d hold different states (%d and %d bytes)", first.id, m.id, len(a), len(b))
		}
		x, ok1 := first.store.(*memStore)
		y, ok2 := m.store.(*memStore)
		if ok1 && ok2 {
			if a, b := x.snapshot(), y.snapshot(); fmt.Sprint(a) != fmt.Sprint(b) {
				c.t.Fatalf("members %d and %d hold different rows (%d and %d transactions)", first.id, m.id, len(a), len(b))
			}
		}
	}
}
