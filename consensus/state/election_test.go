package state

import (
	"testing"

	"pgregory.net/rapid"

	"cohort/internal/binlog"
)

func TestElect(t *testing.T) {
	m := func(id uint64, st MemberState, version, weight uint64, uuid string) Member {
		return Member{ID: id, State: st, Info: MemberInfo{ServerVersion: version, Weight: weight, UUID: uuid}}
	}
	const on = StateOnline
	for name, c := range map[string]struct {
		members []Member
		want    uint64 // 0: nobody
	}{
		"nobody there":   {nil, 0},
		"nobody ONLINE":  {[]Member{m(1, StateOffline, 1, 1, "a"), m(2, StateRecovering, 1, 1, "b"), m(3, StateError, 1, 1, "c")}, 0},
		"only ONLINE":    {[]Member{m(1, StateOffline, 1, 9, "a"), m(2, StateRecovering, 1, 9, "b"), m(3, on, 9, 0, "c")}, 3},
		"version first":  {[]Member{m(1, on, 90704, 100, "a"), m(2, on, 80403, 0, "b")}, 2},
		"weight second":  {[]Member{m(1, on, 90704, 50, "a"), m(2, on, 90704, 51, "b")}, 2},
		"uuid third":     {[]Member{m(1, on, 90704, 50, "b"), m(2, on, 90704, 50, "a")}, 2},
		"case of a uuid": {[]Member{m(1, on, 90704, 50, "b"), m(2, on, 90704, 50, "A"), m(3, on, 90704, 50, "C")}, 2},
		"nothing known":  {[]Member{m(1, on, 0, 0, ""), m(2, on, 0, 0, "")}, 1},
	} {
		if id, ok := Elect(c.members); id != c.want || ok != (c.want != 0) {
			t.Errorf("%s: %d, %t, want %d", name, id, ok, c.want)
		}
	}
}

// Whoever is elected is ONLINE and precedes every other ONLINE member, in
// whatever order they stand.
func TestElectIsATotalOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var members []Member
		for i := range rapid.IntRange(0, 9).Draw(t, "members") {
			members = append(members, Member{ID: uint64(i) + 1, State: MemberState(rapid.IntRange(1, 4).Draw(t, "state")),
				Info: MemberInfo{ServerVersion: rapid.Uint64Range(1, 2).Draw(t, "version"), Weight: rapid.Uint64Range(0, 1).Draw(t, "weight"),
					UUID: rapid.SampledFrom([]string{"", "a", "A", "b"}).Draw(t, "uuid")}})
		}
		id, ok := Elect(members)
		for i := range members {
			m := &members[i]
			if m.State != StateOnline || m.ID == id {
				continue
			}
			best := &members[id-min(id, 1)]
			if !ok || best.State != StateOnline || !precedes(best, m) || precedes(m, best) {
				t.Fatalf("%d elected of %+v", id, members)
			}
		}
		if again, _ := Elect(rapid.Permutation(members).Draw(t, "order")); again != id {
			t.Fatalf("%d, in another order %d", id, again)
		}
	})
}

// After every entry the primary is ONLINE if anybody is, or the founding one that
// comes up; the epoch rises with every change of the primary and only then.
func TestPrimaryIsOnlineIfAnybodyIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, sink := New(), newSums()
		for i := range rapid.IntRange(1, 80).Draw(t, "entries") {
			before := s.View()
			told := len(sink.decisions)
			if _, err := s.Apply(uint64(i)+1, randomItem(t, s).AppendItem(AppendHeader(nil)), sink); err != nil {
				t.Fatal(err)
			}
			v := s.View()
			var appointed []Decision
			for _, d := range sink.decisions[told:] {
				if d.Kind == KindPrimary {
					appointed = append(appointed, d)
				}
			}
			if before.Founded {
				changed := v.Primary != before.Primary
				if changed != (v.Epoch == before.Epoch+1) || !changed && v.Epoch != before.Epoch || changed != (len(appointed) == 1) {
					t.Fatalf("primary %d of epoch %d, then %d of %d, told %+v", before.Primary, before.Epoch, v.Primary, v.Epoch, appointed)
				}
				if changed && (v.PrimarySince != v.LastN || appointed[0].Origin != v.Primary || appointed[0].Epoch != v.Epoch) {
					t.Fatalf("since %d of %d, told %+v", v.PrimarySince, v.LastN, appointed)
				}
			}
			p := s.member(v.Primary)
			if p != nil && (p.State == StateOnline || s.founding(p)) {
				continue
			}
			if id, ok := Elect(v.Members); ok && v.Founded {
				t.Fatalf("%d is ONLINE, the primary %d is not", id, v.Primary)
			}
		}
	})
}

// What a former primary ran and did not get ordered is judged by its objects
// alone, in the life it has as a secondary; what it has prepared aborts.
func TestLateDirectOfAFormerPrimary(t *testing.T) {
	for _, c := range []struct {
		name      string
		table     uint64 // that the statement changed
		low       uint64 // of its snapshot
		epoch     uint64
		collected bool // the horizon has passed the snapshot
		want      Reason
	}{
		{name: "nobody touched it", table: 8, low: 1, epoch: 1},
		{name: "the epoch it names does not matter", table: 8, low: 1, epoch: 2},
		{name: "the new primary touched it", table: 7, low: 1, epoch: 1, want: ReasonConflict},
		{name: "it knew", table: 7, low: 2, epoch: 1},
		{name: "nothing is known any more", table: 8, low: 1, epoch: 1, collected: true, want: ReasonHorizon},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newTestGroup(t)
			g.apply(&SetState{Member: 1, Incarnation: 1, State: StateOnline})
			g.apply(&Join{Member: 2, Replica: 2, Nonce: 2, Info: MemberInfo{UUID: "u2"}})
			g.apply(&SetState{Member: 2, Incarnation: 2, State: StateOnline})
			g.apply(txn(1, "a", 1, nil))
			g.apply(&SetState{Member: 1, Incarnation: 1, State: StateOffline})
			g.apply(&Txn{Member: 2, Incarnation: 2, Seq: 1, Epoch: 2, XID: "b", Writes: []uint64{2}, Tables: []uint64{7}, Meta: testMeta})
			if v := g.s.View(); v.Primary != 2 || v.Epoch != 2 || v.LastN != 2 || v.PrimarySince != 1 {
				t.Fatalf("%+v", v)
			}
			g.apply(&Join{Member: 1, Replica: 1, Nonce: 3, Info: MemberInfo{UUID: "u1"}})
			if c.collected {
				g.apply(&Watermark{Member: 1, Incarnation: 3, Applied: 2, Stable: 2, Low: 2})
				g.apply(&Watermark{Member: 2, Incarnation: 2, Applied: 2, Stable: 2, Low: 2})
			}
			x := Txn{Direct: true, Member: 1, Incarnation: 3, Seq: 1, Epoch: c.epoch, LocalGTID: "u1:9", Tables: []uint64{c.table}, Meta: testMeta}
			x.Snapshot.Low = c.low
			g.apply(&x)
			m, _ := g.s.View().Member(1)
			d := g.sink.last()
			if c.want == ReasonNone {
				if !d.Committed || d.N != 3 || m.State != StateRecovering {
					t.Fatalf("%+v, %s", d, m.State)
				}
			} else {
				o, _ := g.s.DirectOutcome("u1:9")
				if o.Committed || o.Reason != c.want || m.State != StateError || g.s.LastN() != 2 {
					t.Fatalf("%+v, %s", o, m.State)
				}
			}
			for i, epoch := range []uint64{1, 2} {
				y := Txn{Member: 1, Incarnation: 3, Seq: uint64(i) + 2, Epoch: epoch, XID: string(rune('x' + i)), Writes: []uint64{99}, Meta: testMeta}
				y.Snapshot.Low = g.s.LastN()
				g.apply(&y)
				if d := g.sink.last(); d.Committed || d.Reason != ReasonEpoch {
					t.Fatalf("a transaction of epoch %d: %+v", epoch, d)
				}
			}
		})
	}
}

// What was elected survives a snapshot.
func TestPrimarySinceIsEncoded(t *testing.T) {
	g := newTestGroup(t)
	g.apply(txn(1, "a", 1, nil))
	g.apply(&Join{Member: 2, Replica: 2, Nonce: 2, Info: MemberInfo{UUID: "u2"}})
	g.apply(&SetState{Member: 2, Incarnation: 2, State: StateOnline})
	g.apply(&Primary{Member: 2, Epoch: 1})
	again, err := Decode(g.s.Encode(nil))
	if err != nil {
		t.Fatal(err)
	}
	if v := again.View(); v.PrimarySince != 1 || v.Primary != 2 || v.Epoch != 2 {
		t.Fatalf("%+v", v)
	}
}

var testMeta = binlog.Meta{Kind: binlog.KindTransaction}

// While a former primary is away the group keeps what its late statements are
// judged by, for MaxLate numbers.
func TestFormerPrimaryIsAwaited(t *testing.T) {
	for _, c := range []struct {
		name  string
		more  uint64 // transactions that the new primary orders
		table uint64
		want  Reason
	}{
		{"soon", 10, 8, ReasonNone},
		{"soon, the same table", 10, 7, ReasonConflict},
		{"as late as may be", MaxLate, 8, ReasonNone},
		{"too late", MaxLate + 1, 8, ReasonHorizon},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newTestGroup(t)
			g.apply(&SetState{Member: 1, Incarnation: 1, State: StateOnline})
			g.apply(&Join{Member: 2, Replica: 2, Nonce: 2, Info: MemberInfo{UUID: "u2"}})
			g.apply(&SetState{Member: 2, Incarnation: 2, State: StateOnline})
			g.apply(txn(1, "a", 1, nil))
			g.apply(&Watermark{Member: 1, Incarnation: 1, Applied: 1, Stable: 1, Low: 1})
			g.apply(&SetState{Member: 1, Incarnation: 1, State: StateOffline})
			for i := range c.more {
				x := Txn{Member: 2, Incarnation: 2, Seq: i + 1, Epoch: 2, Writes: []uint64{i}, Tables: []uint64{7}, Meta: testMeta}
				x.Snapshot.Low = g.s.LastN()
				g.apply(&x)
			}
			last := c.more + 1
			g.apply(&Watermark{Member: 2, Incarnation: 2, Applied: last, Stable: last, Low: last})
			again, err := Decode(g.s.Clone().Encode(nil))
			if err != nil {
				t.Fatal(err)
			}
			g.s = again
			g.apply(&Join{Member: 1, Replica: 1, Nonce: 3, Info: MemberInfo{UUID: "u1"}})
			x := Txn{Direct: true, Member: 1, Incarnation: 3, Seq: 1, Epoch: 1, LocalGTID: "u1:9", Tables: []uint64{c.table}, Meta: testMeta}
			x.Snapshot.Low = 1
			g.apply(&x)
			if o, ok := g.s.DirectOutcome("u1:9"); !ok || o.Reason != c.want || o.Committed != (c.want == ReasonNone) {
				t.Fatalf("%+v", o)
			}
			// ONLINE again it is like any other: when it fails, nobody waits.
			g.apply(&Join{Member: 1, Replica: 1, Nonce: 4, Info: MemberInfo{UUID: "u1"}})
			g.apply(&SetState{Member: 1, Incarnation: 4, State: StateOnline})
			g.apply(&SetState{Member: 1, Incarnation: 4, State: StateOffline})
			if h := g.s.Horizon(); h != last {
				t.Fatalf("horizon %d of %d", h, last)
			}
		})
	}
}
