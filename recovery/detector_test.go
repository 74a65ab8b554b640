package recovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

func TestDecide(t *testing.T) {
	bear := patience{silence: time.Second, expel: 5 * time.Second}
	view := func(states ...state.MemberState) *state.View {
		v := &state.View{Primary: 1, Epoch: 7}
		for i, s := range states {
			v.Members = append(v.Members, state.Member{ID: uint64(i) + 1, Incarnation: uint64(i) + 10, State: s})
		}
		return v
	}
	const on, rec, off, bad = state.StateOnline, state.StateRecovering, state.StateOffline, state.StateError
	type seen map[uint64]evidence
	dead := evidence{silent: time.Hour, refused: true}
	ended := evidence{refused: true}
	quiet, silent := evidence{silent: bear.silence}, evidence{silent: bear.silence + bear.expel}
	for name, c := range map[string]struct {
		view         *state.View
		leader, self uint64
		of           seen
		appoint      uint64
		expel        []uint64
		unreachable  []uint64
	}{
		"all well":                        {view: view(on, on, on), self: 1, of: seen{2: {silent: bear.silence - 1}, 3: {}}},
		"a secondary is suspected":        {view: view(on, on, on), self: 1, of: seen{2: quiet, 3: {}}, unreachable: []uint64{2}},
		"it is silent for too long":       {view: view(on, on, on), self: 1, of: seen{2: silent, 3: {}}, unreachable: []uint64{2}, expel: []uint64{2}},
		"it has ended":                    {view: view(on, on, on), self: 1, of: seen{2: {}, 3: ended}, unreachable: []uint64{3}, expel: []uint64{3}},
		"the primary is suspected":        {view: view(on, on, on), self: 2, of: seen{1: quiet, 3: {}}, unreachable: []uint64{1}, appoint: 2},
		"the primary has ended":           {view: view(on, on, on), self: 2, of: seen{1: ended, 3: {}}, unreachable: []uint64{1}, expel: []uint64{1}},
		"and who would be elected":        {view: view(on, on, on), self: 3, of: seen{1: ended, 2: quiet}, unreachable: []uint64{1, 2}, appoint: 3, expel: []uint64{1}},
		"both have ended":                 {view: view(on, on, on), self: 3, of: seen{1: ended, 2: ended}, unreachable: []uint64{1, 2}, expel: []uint64{1, 2}},
		"both are suspected":              {view: view(on, on, on), self: 3, of: seen{1: quiet, 2: quiet}, unreachable: []uint64{1, 2}, appoint: 3},
		"nobody could take over":          {view: view(on, rec, off), self: 2, of: seen{1: quiet}, unreachable: []uint64{1}},
		"the leader cannot, another can":  {view: view(on, off, on), self: 2, of: seen{1: quiet, 3: {}}, unreachable: []uint64{1}, appoint: 3},
		"a founder that never came":       {view: view(rec, on, on), self: 2, of: seen{1: quiet, 3: {}}, unreachable: []uint64{1}, appoint: 2},
		"recovering":                      {view: view(on, rec, on), self: 1, of: seen{2: dead, 3: dead}, unreachable: []uint64{2, 3}, expel: []uint64{2, 3}},
		"gone already":                    {view: view(on, off, bad), self: 1, of: seen{2: dead, 3: dead}},
		"no evidence":                     {view: view(on, on, on), self: 1},
		"another one leads":               {view: view(on, on, on), leader: 2, self: 1, of: seen{2: dead, 3: dead}, unreachable: []uint64{2, 3}},
		"never itself":                    {view: view(on, on), self: 1, of: seen{1: dead}},
		"a leader that is out of it":      {view: view(off, on, on), self: 1, of: seen{2: dead}, unreachable: []uint64{2}, expel: []uint64{2}},
		"the primary leads and suspects":  {view: view(on, on, on), self: 1, of: seen{2: quiet, 3: quiet}, unreachable: []uint64{2, 3}},
		"an OFFLINE primary is no matter": {view: view(off, off, off), self: 2, of: seen{1: dead, 3: dead}},
	} {
		t.Run(name, func(t *testing.T) {
			of := func(m *state.Member) (evidence, bool) {
				e, ok := c.of[m.ID]
				return e, ok
			}
			if c.leader == 0 {
				c.leader = c.self
			}
			p := decide(c.view, c.leader, c.self, bear, of)
			var got []uint64
			for _, m := range p.expel {
				got = append(got, m.ID)
				if m.Incarnation != m.ID+9 {
					t.Errorf("incarnation %d", m.Incarnation)
				}
				// One that has merely ended may be back before its time is over.
				if waited := c.of[m.ID].silent >= bear.silence+bear.expel; p.waited[m.ID] != waited {
					t.Errorf("%d was waited for: %t", m.ID, p.waited[m.ID])
				}
			}
			if !slices.Equal(got, c.expel) {
				t.Errorf("expels %v, want %v", got, c.expel)
			}
			if p.appoint != c.appoint || p.appoint != 0 && p.epoch != 7 {
				t.Errorf("appoints %d in %d, want %d", p.appoint, p.epoch, c.appoint)
			}
			if u := slices.Sorted(maps.Keys(unreachable(c.view, c.self, bear, of))); !slices.Equal(u, c.unreachable) {
				t.Errorf("unreachable %v, want %v", u, c.unreachable)
			}
		})
	}
	if p := decide(view(on, on, on), 0, 1, bear, func(*state.Member) (evidence, bool) { return dead, true }); p.appoint != 0 || len(p.expel) > 0 {
		t.Errorf("nobody leads: %+v", p)
	}
	if p := decide(view(on, on, on), 1, 1, patience{silence: bear.silence}, func(*state.Member) (evidence, bool) { return quiet, true }); len(p.expel) != 2 {
		t.Errorf("without a timeout: %+v", p)
	}
}

func TestWeigh(t *testing.T) {
	m := &state.Member{Info: state.MemberInfo{UUID: "u", PeerAddress: "a:1", PeerToken: "t"}}
	c := peer.Contact{Target: targetOf(m)}
	if e, ok := weigh(c, m, time.Minute); !ok || e.silent != time.Minute || e.refused {
		t.Errorf("%+v %t", e, ok)
	}
	c.Refused = true
	if e, _ := weigh(c, m, 0); !e.refused || e.silent != 0 {
		t.Errorf("%+v", e)
	}
	// The member's process is another one by now.
	for _, other := range []peer.Target{{Addr: "a:1", MemberID: "u", Token: "t2"}, {Addr: "a:2", MemberID: "u", Token: "t"}} {
		c.Target = other
		if _, ok := weigh(c, m, time.Minute); ok {
			t.Errorf("%+v counts", other)
		}
	}
}

// A process that stood still heard nobody, one that is scheduled late hears late, and
// who joins is alive: none of it is silence.
func TestListen(t *testing.T) {
	const ms = time.Millisecond
	type look struct {
		took        time.Duration
		heard       time.Duration // how long before this look; 0: no later word
		incarnation uint64
		want        time.Duration
	}
	in := func(took, heard, want time.Duration) look { return look{took, heard, 1, want} }
	for name, looks := range map[string][]look{
		"words come":         {in(25*ms, 5*ms, 5*ms), in(25*ms, 20*ms, 20*ms), in(25*ms, 1*ms, 1*ms)},
		"silence":            {in(25*ms, 5*ms, 5*ms), in(25*ms, 0, 30*ms), in(30*ms, 0, 60*ms), in(25*ms, 0, 85*ms)},
		"and a word":         {in(25*ms, 5*ms, 5*ms), in(25*ms, 0, 30*ms), in(25*ms, 2*ms, 2*ms)},
		"a late look":        {in(25*ms, 5*ms, 5*ms), in(400*ms, 0, 105*ms), in(500*ms, 0, 205*ms)},
		"a late word":        {in(25*ms, 5*ms, 5*ms), in(400*ms, 390*ms, 100*ms)},
		"stood still":        {in(25*ms, 5*ms, 5*ms), in(100*ms, 0, 105*ms), in(detectEvery+stalledAfter+1, 0, 0), in(25*ms, 0, 25*ms)},
		"never heard":        {in(25*ms, 0, 0), in(25*ms, 0, 25*ms), in(25*ms, 0, 50*ms)},
		"it has joined anew": {in(25*ms, 5*ms, 5*ms), in(25*ms, 0, 30*ms), {25 * ms, 0, 2, 0}, {25 * ms, 0, 2, 25 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			a := make(attention)
			now, heard := time.Unix(1000, 0), time.Time{}
			for i, l := range looks {
				now = now.Add(l.took)
				if l.heard > 0 {
					heard = now.Add(-l.heard)
				}
				if i == 0 { // it is known before
					a[2] = hearing{incarnation: 1}
					if l.heard == 0 {
						delete(a, 2)
					}
				}
				if got := a.listen(&state.Member{ID: 2, Incarnation: l.incarnation}, heard, now, l.took); got != l.want {
					t.Errorf("look %d: silent for %s, want %s", i, got, l.want)
				}
			}
		})
	}
}

// quickly suspects after as short a silence as a busy machine has none of.
func quickly(t *testing.T) {
	old := usual
	usual.Silence = 4 * time.Second
	t.Cleanup(func() { usual = old }) // when the members have ended
}

// watched is a member as the detector of the others sees it: a log and a peer
// channel. No mysqld is needed to be alive or dead.
type watched struct {
	id     uint64
	node   *consensus.Node
	store  *groupbinlog.Store
	router *router.Router
	ref    *router.NodeRef
	member *Member
	info   state.MemberInfo
	stop   func() // the log, detector and channel
	mute   func() // the channel only
}

// newWatched starts members that watch each other. mute is the member whose
// channel is silent from its second heartbeat on, 0 for none; expel is the log's
// own first timeout, 0: nobody loses its vote.
func newWatched(t *testing.T, size int, mute uint64, policy Policy, expel time.Duration) []*watched {
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
			ElectionRTT: 50, HeartbeatRTT: 5, ExpelTimeout: expel}); err != nil {
			t.Fatal(err)
		}
		w.ref.Set(w.node)
		m := &Member{opt: Options{ReplicaID: id, UUID: w.info.UUID, Node: w.node, Router: w.router}, policy: policy, log: zerolog.Nop()}
		w.member = m
		opt := peer.Options{Addr: "127.0.0.1:0", MemberID: w.info.UUID, Token: w.info.PeerToken, Source: applied.New(applied.Set{}), Logger: zerolog.Nop(),
			Handlers: map[string]peer.Handler{methodSilent: m.onSilent}}
		if id == mute {
			opt.Heartbeat = time.Hour
		}
		srv, err := peer.NewServer(opt)
		if err != nil {
			t.Fatal(err)
		}
		w.info.PeerAddress = srv.Addr().String()
		ctx, cancel := context.WithCancel(context.Background())
		sctx, scancel := context.WithCancel(ctx)
		var wg, swg sync.WaitGroup
		for _, run := range []func(context.Context) error{w.node.Run, m.followPeers, m.detect, m.campaigns} {
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
	all := newWatched(t, 3, 0, Policy{}, 0)
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
	all := newWatched(t, 3, 0, Policy{}, 0)
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
	quickly(t)
	all := newWatched(t, 3, 1, Policy{}, 0)
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

// A suspicion costs a secondary nothing but the look of it, and a primary its
// place, until the time to expel it has come: then its vote goes too.
func TestSuspicionBeforeExpulsion(t *testing.T) {
	quickly(t)
	for _, primary := range []bool{false, true} {
		t.Run(fmt.Sprint("primary ", primary), func(t *testing.T) {
			mute := uint64(3)
			if primary {
				mute = 1
			}
			all := newWatched(t, 3, mute, Policy{ExpelTimeout: time.Hour}, time.Hour)
			leader := all[1]
			lead := func() {
				if leader.node.LeaderID() == mute {
					_ = leader.node.TransferLeader(t.Context(), 2)
				}
			}
			is := func(w *watched) bool {
				m, _ := w.node.View().Member(mute)
				return w.member.Unreachable(m)
			}
			until(t, "UNREACHABLE", func() bool {
				lead()
				v := all[1].node.View()
				return is(all[1]) && (!primary || v.Primary == 2 && v.Epoch == 2)
			})
			if s := all[1].sees(mute); s != state.StateOnline {
				t.Fatalf("the log says that it is %s", s)
			}
			if is(all[mute-1]) {
				t.Error("it suspects itself")
			}
			for _, w := range all {
				w.member.ChangePolicy(func(p *Policy) { p.ExpelTimeout = 0 })
			}
			until(t, "expelled", func() bool {
				lead()
				m, _ := all[1].node.View().Member(mute)
				return m.State == state.StateOffline && m.Replica == 0
			})
			until(t, "no member is UNREACHABLE", func() bool { return !is(all[1]) })
		})
	}
}
