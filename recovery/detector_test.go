package recovery

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/applied"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/peer"
	"cohort/router"
)

func TestSuspects(t *testing.T) {
	const limit = time.Second
	view := func(states ...state.MemberState) *state.View {
		v := &state.View{}
		for i, s := range states {
			v.Members = append(v.Members, state.Member{ID: uint64(i) + 1, Incarnation: uint64(i) + 10, State: s})
		}
		return v
	}
	const on, rec, off, bad = state.StateOnline, state.StateRecovering, state.StateOffline, state.StateError
	dead := evidence{silent: time.Hour, refused: true}
	for name, c := range map[string]struct {
		view   *state.View
		leader uint64
		of     map[uint64]evidence
		want   []uint64
	}{
		"all well":            {view(on, on, on), 1, map[uint64]evidence{2: {silent: limit - 1}, 3: {}}, nil},
		"silent":              {view(on, on, on), 1, map[uint64]evidence{2: {silent: limit}, 3: {}}, []uint64{2}},
		"refused":             {view(on, on, on), 1, map[uint64]evidence{2: {}, 3: {refused: true}}, []uint64{3}},
		"recovering":          {view(on, rec, on), 1, map[uint64]evidence{2: dead, 3: dead}, []uint64{2, 3}},
		"gone already":        {view(on, off, bad), 1, map[uint64]evidence{2: dead, 3: dead}, nil},
		"no evidence":         {view(on, on, on), 1, nil, nil},
		"another one leads":   {view(on, on, on), 2, map[uint64]evidence{2: dead, 3: dead}, nil},
		"nobody leads":        {view(on, on, on), 0, map[uint64]evidence{2: dead, 3: dead}, nil},
		"never itself":        {view(on, on), 1, map[uint64]evidence{1: dead}, nil},
		"a leader that votes": {view(off, on, on), 1, map[uint64]evidence{2: dead}, []uint64{2}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []uint64
			for _, m := range suspects(c.view, c.leader, 1, limit, func(m *state.Member) (evidence, bool) {
				e, ok := c.of[m.ID]
				return e, ok
			}) {
				got = append(got, m.ID)
				if m.Incarnation != m.ID+9 {
					t.Errorf("incarnation %d", m.Incarnation)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestWeigh(t *testing.T) {
	m := &state.Member{Info: state.MemberInfo{UUID: "u", PeerAddress: "a:1", PeerToken: "t"}}
	now := time.Now()
	c := peer.Contact{Target: targetOf(m), Heard: now.Add(-time.Minute)}
	if e, ok := weigh(c, m, now, now.Add(-time.Hour)); !ok || e.silent != time.Minute || e.refused {
		t.Errorf("%+v %t", e, ok)
	}
	// Before then this process could not tell.
	if e, _ := weigh(c, m, now, now.Add(-time.Second)); e.silent != time.Second {
		t.Errorf("%+v", e)
	}
	c.Refused = true
	if e, _ := weigh(c, m, now, now); !e.refused || e.silent != 0 {
		t.Errorf("%+v", e)
	}
	// The member's process is another one by now.
	for _, other := range []peer.Target{{Addr: "a:1", MemberID: "u", Token: "t2"}, {Addr: "a:2", MemberID: "u", Token: "t"}} {
		c.Target = other
		if _, ok := weigh(c, m, now, now); ok {
			t.Errorf("%+v counts", other)
		}
	}
}

// A process that stood still heard nobody, and who joins is alive: neither is
// silence.
func TestAttention(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	a := &attention{awake: at(0), lives: map[uint64]lifeSeen{}}
	m := &state.Member{ID: 2, Incarnation: 5}
	check := func(what string, now, want int) {
		t.Helper()
		if got := a.since(m, at(now)); got != at(want) {
			t.Errorf("%s: since %s, want %s", what, got, at(want))
		}
	}
	check("first seen", 10, 10)
	check("the same life", 20, 10)
	m.Incarnation = 6
	check("another life", 30, 30)
	a.waited(detectEvery, detectEvery, at(40))
	check("a pause as it should be", 41, 30)
	a.waited(detectEvery+stalledAfter+1, detectEvery, at(50))
	check("after standing still", 51, 50)
	m.Incarnation = 7
	check("another life since", 60, 60)
}

// watched is a member as the detector of the others sees it: a log and a peer
// channel. No mysqld is needed to be alive or dead.
type watched struct {
	id     uint64
	node   *consensus.Node
	store  *groupbinlog.Store
	router *router.Router
	ref    *router.NodeRef
	info   state.MemberInfo
	stop   func() // the log, detector and channel
	mute   func() // the channel only
}

// newWatched starts members that watch each other. mute is the member whose
// channel is silent from its second heartbeat on, 0 for none.
func newWatched(t *testing.T, size int, mute uint64) []*watched {
	addrs := map[uint64]string{}
	for id := uint64(1); id <= uint64(size); id++ {
		addrs[id] = ownAddress(t)
	}
	var all []*watched
	for id := uint64(1); id <= uint64(size); id++ {
		w := &watched{id: id, ref: &router.NodeRef{}, info: state.MemberInfo{UUID: fmt.Sprint("uuid-", id), PeerToken: peer.NewToken()}}
		all = append(all, w)
		dir := t.TempDir()
		var err error
		if w.store, err = groupbinlog.Open(filepath.Join(dir, "binlog"), groupbinlog.Options{GroupUUID: groupName, Logger: zerolog.Nop()}); err != nil {
			t.Fatal(err)
		}
		w.router = router.New(router.Options{Self: id, GroupName: groupName, Log: w.ref, Logger: zerolog.Nop()})
		if w.node, err = consensus.New(consensus.Config{Dir: filepath.Join(dir, "log"), GroupName: groupName, ReplicaID: id,
			LocalAddress: addrs[id], InitialMembers: addrs, Store: w.store, Observer: w.router, Logger: zerolog.Nop(),
			ElectionRTT: 50, HeartbeatRTT: 5}); err != nil {
			t.Fatal(err)
		}
		w.ref.Set(w.node)
		opt := peer.Options{Addr: "127.0.0.1:0", MemberID: w.info.UUID, Token: w.info.PeerToken, Source: applied.New(applied.Set{}), Logger: zerolog.Nop()}
		if id == mute {
			opt.Heartbeat = time.Hour
		}
		srv, err := peer.NewServer(opt)
		if err != nil {
			t.Fatal(err)
		}
		w.info.PeerAddress = srv.Addr().String()
		m := &Member{opt: Options{ReplicaID: id, UUID: w.info.UUID, Node: w.node, Router: w.router}, log: zerolog.Nop()}
		ctx, cancel := context.WithCancel(context.Background())
		sctx, scancel := context.WithCancel(ctx)
		var wg, swg sync.WaitGroup
		for _, run := range []func(context.Context) error{w.node.Run, m.followPeers, m.detect} {
			wg.Go(func() { _ = run(ctx) })
		}
		swg.Go(func() { _ = srv.Run(sctx) })
		w.mute = func() { scancel(); swg.Wait() }
		w.stop = sync.OnceFunc(func() {
			w.router.Close()
			cancel()
			wg.Wait()
			swg.Wait()
			if err := errors.Join(w.node.Close(), w.store.Close()); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(w.stop)
	}
	if _, err := all[0].node.Bootstrap(t.Context(), state.Bootstrap{Primary: 1}); err != nil {
		t.Fatal(err)
	}
	for _, w := range all {
		w.join(t)
	}
	return all
}

func (w *watched) join(t *testing.T) {
	t.Helper()
	if _, _, err := w.node.Join(t.Context(), w.info); err != nil {
		t.Fatal(err)
	}
	if err := w.node.SetState(t.Context(), state.StateOnline); err != nil {
		t.Fatal(err)
	}
}

// sees returns the state of a member in w's view.
func (w *watched) sees(id uint64) state.MemberState {
	m, _ := w.node.View().Member(id)
	return m.State
}

// The primary's process dies, and the log's leader with it: the others elect a
// leader, which reports it OFFLINE, which elects another primary.
func TestDetectorNoticesADeadProcess(t *testing.T) {
	all := newWatched(t, 3, 0)
	if err := all[0].node.TransferLeader(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	all[0].stop()
	for _, w := range all[1:] {
		until(t, "failover", func() bool {
			v := w.node.View()
			return v.Primary == 2 && v.Epoch == 2 && w.sees(1) == state.StateOffline
		})
		if w.sees(2) != state.StateOnline || w.sees(3) != state.StateOnline {
			t.Fatalf("%+v", w.node.View())
		}
	}
}

// A member whose channel is closed, while its log is well.
func TestDetectorNoticesARefusedChannel(t *testing.T) {
	all := newWatched(t, 3, 0)
	if err := all[1].node.TransferLeader(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	all[2].mute()
	until(t, "3 OFFLINE", func() bool { return all[0].sees(3) == state.StateOffline })
	if v := all[0].node.View(); v.Primary != 1 || v.Epoch != 1 || all[0].sees(2) != state.StateOnline {
		t.Fatalf("%+v", v)
	}
}

// A member that says nothing while its connections are up, as one that is
// stopped: it is reported, can join anew, and is reported again.
func TestDetectorNoticesSilence(t *testing.T) {
	old := expelSilence
	expelSilence = 4 * time.Second
	t.Cleanup(func() { expelSilence = old }) // when the members have ended
	all := newWatched(t, 3, 1)
	if err := all[1].node.TransferLeader(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		until(t, "failover", func() bool {
			// The silent one reports nobody less than itself.
			if all[1].node.LeaderID() == 1 {
				_ = all[1].node.TransferLeader(t.Context(), 2)
			}
			v := all[2].node.View()
			return v.Primary == 2 && v.Epoch == 2 && all[2].sees(1) == state.StateOffline
		})
		until(t, "the silent one's own view", func() bool { return all[0].sees(1) == state.StateOffline })
		if _, _, err := all[0].node.Join(t.Context(), all[0].info); err != nil {
			t.Fatal(err)
		}
	}
}
