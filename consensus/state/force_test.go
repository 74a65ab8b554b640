package state

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
)

// forcedGroup has three members ONLINE, 1 the primary, a fourth that was admitted,
// and seven transactions.
func forcedGroup(t testing.TB) *group {
	g := newTestGroup(t)
	g.apply(&SetState{Member: 1, Incarnation: 1, State: StateOnline})
	for id := uint64(2); id <= 3; id++ {
		g.apply(&Join{Member: id, Replica: id, Nonce: id, Info: MemberInfo{UUID: string(rune('a' + id))}})
		g.apply(&SetState{Member: id, Incarnation: id, State: StateOnline})
	}
	g.apply(&Admit{Member: 40, Nonce: 1, UUID: "x", Address: "x:1"})
	for i := range uint64(7) {
		g.apply(txn(i+1, string(rune('a'+i)), i, nil))
	}
	return g
}

// A forced membership is one change of the view: who is not listed has no replica
// and is OFFLINE, the primary is replaced if it is one of these, and a new lineage
// begins, of which the old one's data are a beginning up to where it ended.
func TestForce(t *testing.T) {
	for _, c := range []struct {
		name    string
		members []Place
		primary uint64
		epoch   uint64
	}{
		{"the primary is listed", []Place{{1, 1}, {3, 3}}, 1, 1},
		{"the primary is lost", []Place{{3, 3}}, 3, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := forcedGroup(t)
			before := g.s.View()
			g.sink.decisions = nil
			if g.apply(&Force{Lineage: 99, SureN: 4, SureIndex: 9, Members: c.members}) != 1 {
				t.Fatal("not taken")
			}
			v := g.s.View()
			if v.Seq != before.Seq+1 || v.Lineage != 99 || v.Founding != 42 || v.Primary != c.primary || v.Epoch != c.epoch || len(v.Unclaimed) != 0 {
				t.Errorf("after view %d: %+v", before.Seq, v)
			}
			for _, m := range v.Members {
				was, _ := before.Member(m.ID)
				in := slices.Contains(c.members, Place{m.ID, m.Replica})
				if in != (m.Replica != 0) || in != m.Voter || in != (m.State == StateOnline) || m.Incarnation != was.Incarnation {
					t.Errorf("%+v", m)
				}
			}
			if v.ViewID()[:3] != before.ViewID()[:3] {
				t.Errorf("%s became %s", before.ViewID(), v.ViewID())
			}
			if d := g.sink.last(); d.Kind != KindForce || d.N != 7 {
				t.Errorf("%+v", d)
			}
			f, ok := v.Fork(42)
			if _, other := v.Fork(99); !ok || other || len(v.Forks) != 1 {
				t.Fatalf("%+v", v.Forks)
			}
			for n := uint64(0); n <= 8; n++ {
				sum, known := g.s.ChecksumAt(n)
				if f.Begins(n, sum) != known || f.Begins(n, sum+1) != (n <= 4) {
					t.Errorf("up to %d: %v with its checksum, %v with another", n, f.Begins(n, sum), f.Begins(n, sum+1))
				}
			}
			// Again it does nothing, and it survives.
			if g.apply(&Force{Lineage: 99, Members: []Place{{1, 1}}}) != 0 || g.s.View().Seq != v.Seq {
				t.Error("taken twice")
			}
			b := g.s.Encode(nil)
			s, err := Decode(b)
			if err != nil || !bytes.Equal(s.Encode(nil), b) || !reflect.DeepEqual(s.View().Forks, v.Forks) {
				t.Errorf("does not survive: %v", err)
			}
			// Who was left out comes back under another replica only.
			if g.apply(&Join{Member: 2, Replica: 2, Nonce: 9, Info: MemberInfo{UUID: "c"}}) != RefusedNotAdmitted {
				t.Error("joined as what it was")
			}
			r := g.apply(&Admit{Member: 2, Nonce: 9, UUID: "c", Address: "b:1"})
			if r <= before.LastReplica || r >= FirstRefusal || g.apply(&Join{Member: 2, Replica: r, Nonce: 10, Info: MemberInfo{UUID: "c"}}) >= FirstRefusal {
				t.Errorf("not let in again: %d", r)
			}
		})
	}
}

// What would leave nobody is not taken; forks are kept up to a number.
func TestForceBounds(t *testing.T) {
	g := forcedGroup(t)
	for _, x := range []*Force{
		{Lineage: 5}, {Lineage: 5, Members: []Place{{1, 7}}}, {Lineage: 5, Members: []Place{{9, 1}}}, {Members: []Place{{1, 1}}},
		{Lineage: 42, Members: []Place{{1, 1}}},
	} {
		if g.apply(x) != 0 {
			t.Errorf("taken: %+v", x)
		}
	}
	for i := range uint64(maxForks + 3) {
		if g.apply(&Force{Lineage: 100 + i, SureN: 1 << 60, SureIndex: 1 << 60, Members: []Place{{1, 1}}}) != 1 {
			t.Fatal(i)
		}
	}
	v := g.s.View()
	if len(v.Forks) != maxForks || v.Forks[0].Lineage != 102 || v.Lineage != 118 || v.Forks[0].SureN != 7 {
		t.Errorf("%+v", v.Forks)
	}
	if g.apply(&Force{Lineage: 110, Members: []Place{{1, 1}}}) != 0 {
		t.Error("a lineage began twice")
	}
}
