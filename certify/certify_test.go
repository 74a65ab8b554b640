package certify

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func snap(low uint64, extra ...uint64) Snapshot { return Snapshot{Low: low, Extra: extra} }

func mustCommit(t *testing.T, c *Certifier, x Txn) Verdict {
	t.Helper()
	v := c.Certify(&x)
	if !v.Commit {
		t.Fatalf("%+v: %+v", x, v)
	}
	return v
}

func mustAbort(t *testing.T, c *Certifier, x Txn, why Reason) {
	t.Helper()
	if v := c.Certify(&x); v.Commit || v.Reason != why {
		t.Fatalf("%+v: %+v, want %s", x, v, why)
	}
}

func TestRules(t *testing.T) {
	c := New(0)
	mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Writes: []uint64{10}}) // 1
	mustAbort(t, c, Txn{Origin: 2, Incarnation: 2, Writes: []uint64{10}}, ReasonConflict)
	mustAbort(t, c, Txn{Origin: 2, Incarnation: 2, Refs: []uint64{10}}, ReasonConflict)
	v := mustCommit(t, c, Txn{Origin: 2, Incarnation: 2, Snapshot: snap(1), Writes: []uint64{10}}) // 2
	if v.Dep != 1 {
		t.Fatalf("dep %d", v.Dep)
	}
	// Two references of one parent do not conflict, a write of it does.
	mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Snapshot: snap(2), Refs: []uint64{20}}) // 3
	mustCommit(t, c, Txn{Origin: 2, Incarnation: 2, Snapshot: snap(2), Refs: []uint64{20}}) // 4
	mustAbort(t, c, Txn{Origin: 3, Incarnation: 3, Snapshot: snap(2), Writes: []uint64{20}}, ReasonConflict)
	mustAbort(t, c, Txn{Origin: 3, Incarnation: 3, Snapshot: snap(2, 4), Writes: []uint64{20}}, ReasonConflict)
	v = mustCommit(t, c, Txn{Origin: 3, Incarnation: 3, Snapshot: snap(2, 3, 4), Writes: []uint64{20}}) // 5
	if v.Dep != 4 {
		t.Fatalf("dep %d", v.Dep)
	}
	mustAbort(t, c, Txn{Origin: 1, Snapshot: snap(99)}, ReasonInvalid)
}

func TestOwnIncarnationNeverConflicts(t *testing.T) {
	c := New(0)
	mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Writes: []uint64{1}})
	v := mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Writes: []uint64{1}})
	if v.Dep != 1 {
		t.Fatalf("it must still depend on it: %d", v.Dep)
	}
	mustAbort(t, c, Txn{Origin: 1, Incarnation: 2, Writes: []uint64{1}}, ReasonConflict)
}

// A reference that another member made is not hidden by a later one of the
// writer's own.
func TestOwnReferenceHidesNoOther(t *testing.T) {
	c := New(0)
	mustCommit(t, c, Txn{Origin: 2, Incarnation: 2, Refs: []uint64{5}})
	mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Refs: []uint64{5}})
	mustAbort(t, c, Txn{Origin: 1, Incarnation: 1, Writes: []uint64{5}}, ReasonConflict)
	mustAbort(t, c, Txn{Origin: 1, Incarnation: 1, Snapshot: snap(0, 2), Writes: []uint64{5}}, ReasonConflict)
	mustCommit(t, c, Txn{Origin: 3, Incarnation: 3, Writes: []uint64{99}}) // 3
	// Nothing tells any more whether 1 came before 2, so this aborts without
	// need; a reference with 1 in its snapshot would have said so.
	mustAbort(t, c, Txn{Origin: 1, Incarnation: 1, Snapshot: snap(1), Writes: []uint64{5}}, ReasonConflict)
	mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Snapshot: snap(1), Refs: []uint64{6}})
	mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Snapshot: snap(1), Writes: []uint64{6}})
	mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Snapshot: snap(2), Writes: []uint64{5}})
}

func TestDirect(t *testing.T) {
	c := New(0)
	mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Tables: []uint64{7}, Writes: []uint64{1}}) // 1
	// Another member's statement on the same table, without 1 in its snapshot.
	mustAbort(t, c, Txn{Origin: 2, Incarnation: 2, Direct: true, Tables: []uint64{7}}, ReasonConflict)
	// The origin's own did run after it.
	v := mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Direct: true, Tables: []uint64{7}}) // 2
	if v.Dep != 1 || c.Floor() != 2 {
		t.Fatalf("%+v floor %d", v, c.Floor())
	}
	// What the origin prepared after it counts it as seen, whatever the
	// snapshot says; others must have it.
	v = mustCommit(t, c, Txn{Origin: 1, Incarnation: 9, Snapshot: snap(1), Tables: []uint64{7}, Writes: []uint64{9}})
	if v.Dep != 2 {
		t.Fatalf("dep %d", v.Dep)
	}
	mustAbort(t, c, Txn{Origin: 2, Incarnation: 2, Snapshot: snap(1), Tables: []uint64{7}, Writes: []uint64{8}}, ReasonConflict)
	mustCommit(t, c, Txn{Origin: 2, Incarnation: 2, Snapshot: snap(2), Tables: []uint64{7}, Writes: []uint64{8}})
	// Everything after a direct statement depends on it.
	v = mustCommit(t, c, Txn{Origin: 2, Incarnation: 2, Snapshot: snap(4), Writes: []uint64{1000}})
	if v.Dep != 2 {
		t.Fatalf("dep %d", v.Dep)
	}
}

// A member that runs everything is not refused for a horizon that passed it,
// only for what others ordered since.
func TestAloneBelowTheHorizon(t *testing.T) {
	for _, again := range []bool{false, true} {
		c := New(0)
		restart := func() {
			if !again {
				return
			}
			d, _, err := Decode(c.Encode(nil))
			if err != nil {
				t.Fatal(err)
			}
			c = d
		}
		commit := func(origin, inc, low uint64, direct bool) Verdict {
			t.Helper()
			restart()
			return mustCommit(t, c, Txn{Origin: origin, Incarnation: inc, Snapshot: snap(low), Direct: direct,
				Writes: []uint64{5}, Refs: []uint64{5}, Tables: []uint64{7}})
		}
		refuse := func(origin, inc, low uint64, direct bool) {
			t.Helper()
			restart()
			mustAbort(t, c, Txn{Origin: origin, Incarnation: inc, Snapshot: snap(low), Direct: direct,
				Writes: []uint64{5}, Refs: []uint64{5}, Tables: []uint64{7}}, ReasonHorizon)
		}
		commit(1, 1, 0, false) // 1
		commit(1, 1, 0, false) // 2
		commit(1, 1, 0, false) // 3
		c.GC(3)
		refuse(2, 2, 1, true)
		refuse(2, 1, 1, false)
		// Another life: locks kept nothing apart, but a direct statement was run
		// there in order.
		refuse(1, 2, 1, false)
		if v := commit(1, 2, 1, true); v.N != 4 || v.Dep != 3 {
			t.Fatalf("%+v", v)
		}
		c.GC(4)
		refuse(1, 1, 3, false)
		refuse(1, 2, 2, false)
		if v := commit(1, 2, 3, false); v.N != 5 || v.Dep != 4 {
			t.Fatalf("%+v", v)
		}
		c.GC(5)
		commit(1, 9, 2, true)  // 6: before the present life, but not before its origin
		commit(2, 3, 6, false) // 7
		commit(1, 2, 7, false) // 8
		c.GC(8)
		refuse(1, 2, 6, false)
		refuse(1, 2, 6, true)
		commit(1, 2, 7, false)
	}
	// What the founder brought is nobody's.
	c := New(0)
	c.StartAt(10)
	mustAbort(t, c, Txn{Snapshot: snap(9)}, ReasonHorizon)
	mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Snapshot: snap(10)})
	mustAbort(t, c, Txn{Origin: 1, Incarnation: 1, Snapshot: snap(9), Direct: true}, ReasonHorizon)
}

// The bound on memory raises the horizon above what waits behind bulk loads.
func TestAloneBehindBulkLoads(t *testing.T) {
	for _, x := range []Txn{{Direct: true}, {Wide: true}, {Writes: []uint64{3}}} {
		c := New(1000)
		for i := range uint64(100) {
			w := make([]uint64, 50)
			for j := range w {
				w[j] = i*50 + uint64(j) + 1
			}
			mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Snapshot: snap(i), Writes: w, Tables: []uint64{1}})
		}
		x.Origin, x.Incarnation, x.Snapshot, x.Tables = 1, 1, snap(10), []uint64{1}
		if c.Horizon() <= 10 {
			t.Fatalf("horizon %d", c.Horizon())
		}
		if v := mustCommit(t, c, x); v.Dep < c.Horizon() {
			t.Fatalf("%+v, horizon %d", v, c.Horizon())
		}
	}
}

func TestHorizon(t *testing.T) {
	c := New(0)
	for i := range uint64(10) {
		mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Writes: []uint64{i + 1}})
	}
	c.GC(5)
	mustAbort(t, c, Txn{Origin: 2, Incarnation: 2, Snapshot: snap(4), Writes: []uint64{1000}}, ReasonHorizon)
	mustAbort(t, c, Txn{Origin: 2, Incarnation: 2, Snapshot: snap(3, 5), Writes: []uint64{1000}}, ReasonHorizon)
	v := mustCommit(t, c, Txn{Origin: 2, Incarnation: 2, Snapshot: snap(3, 4, 5), Writes: []uint64{3}})
	if v.Dep != 5 { // 3 was collected, and a laggard may not have it yet
		t.Fatalf("dep %d", v.Dep)
	}
	c.GC(3)
	c.GC(99)
	if c.Horizon() != 11 || c.Touches() != 0 {
		t.Fatalf("horizon %d, touches %d", c.Horizon(), c.Touches())
	}
}

func TestMemoryIsBounded(t *testing.T) {
	c := New(1000)
	for i := range uint64(10000) {
		mustCommit(t, c, Txn{Origin: 1, Incarnation: 1, Snapshot: snap(i), Writes: []uint64{2*i + 1, 2*i + 2}})
		if c.Touches() > 1000 || len(c.keys.slots) > 4096 || len(c.meta) > 4096 {
			t.Fatalf("after %d: %d touches, %d slots, %d records", i, c.Touches(), len(c.keys.slots), len(c.meta))
		}
	}
	if c.Horizon() < 9000 {
		t.Fatalf("horizon %d", c.Horizon())
	}
}

func TestOwnersAreForgotten(t *testing.T) {
	c := New(0)
	for i := range uint64(2000) {
		mustCommit(t, c, Txn{Origin: 1, Incarnation: i + 1, Snapshot: snap(i), Writes: []uint64{1}})
		c.GC(i)
	}
	if len(c.owners) > 300 {
		t.Fatalf("%d owners", len(c.owners))
	}
}

func TestCommitOrder(t *testing.T) {
	c := New(0)
	mustCommit(t, c, Txn{Writes: []uint64{1}})
	mustCommit(t, c, Txn{Writes: []uint64{2}})
	if v := mustCommit(t, c, Txn{Writes: []uint64{3}, CommitOrder: true}); v.Dep != 2 {
		t.Fatalf("%+v", v)
	}
	if v := mustCommit(t, c, Txn{Writes: []uint64{4}}); v.Dep != 0 {
		t.Fatalf("commit order is no floor: %+v", v)
	}
	if v := mustCommit(t, c, Txn{Writes: []uint64{5}, Serial: true}); v.Dep != 4 {
		t.Fatalf("%+v", v)
	}
	if v := mustCommit(t, c, Txn{Writes: []uint64{6}}); v.Dep != 5 {
		t.Fatalf("serial is: %+v", v)
	}
}

func TestStartAt(t *testing.T) {
	c := New(0)
	c.StartAt(100)
	if v := mustCommit(t, c, Txn{Snapshot: snap(100), Writes: []uint64{1}}); v.N != 101 || v.Dep != 100 {
		t.Fatalf("%+v", v)
	}
}

// model is the definition, without any cleverness: every transaction is
// compared with all earlier ones.
type model struct {
	txns    []Txn
	horizon uint64
	floor   uint64
}

func (m *model) exempt(a, b *Txn) bool {
	return a.Origin == b.Origin && (a.Direct || b.Direct || a.Incarnation == b.Incarnation)
}

func intersects(a, b []uint64) bool {
	return slices.ContainsFunc(a, func(k uint64) bool { return slices.Contains(b, k) })
}

// related says whether the later b may not run beside the earlier a.
func related(a, b *Txn) bool {
	aw, bw := a.Direct || a.Wide, b.Direct || b.Wide
	return intersects(a.Writes, b.Writes) || intersects(a.Writes, b.Refs) || intersects(a.Refs, b.Writes) ||
		(aw || bw) && intersects(a.Tables, b.Tables)
}

// judge: what was collected cannot be judged unless all that matters of it is
// who ran it.
func (m *model) judge(t *Txn) Reason {
	low := t.Snapshot.normal().Low
	for n := low + 1; n <= uint64(len(m.txns)) && low < m.horizon; n++ {
		x := &m.txns[n-1]
		if x.Origin != t.Origin || !t.Direct && x.Incarnation != t.Incarnation {
			return ReasonHorizon
		}
	}
	for i := range m.txns {
		n := uint64(i) + 1
		if !t.Snapshot.Contains(n) && !m.exempt(&m.txns[i], t) && related(&m.txns[i], t) {
			return ReasonConflict
		}
	}
	return ReasonNone
}

// deps returns what must be applied before t.
func (m *model) deps(t *Txn) (dep uint64) {
	for i := range m.txns {
		if related(&m.txns[i], t) {
			dep = uint64(i) + 1
		}
	}
	if t.Serial || t.Direct || t.CommitOrder {
		return uint64(len(m.txns))
	}
	return max(dep, m.floor)
}

func (m *model) commit(t Txn) {
	m.txns = append(m.txns, t)
	if t.Serial || t.Direct {
		m.floor = uint64(len(m.txns))
	}
}

// member simulates what a mysqld has: everything up to low plus commits of its
// own ahead of that, so that its snapshots are like real ones.
type member struct {
	id, incarnation uint64
	low             uint64
	own             []uint64 // committed here, above low, sorted
	// held is a direct statement that was run here and is not ordered yet:
	// nothing that is run later passes it, but this life may end.
	held *Txn
}

func (m *member) snapshot() Snapshot {
	return Snapshot{Low: m.low, Extra: slices.Clone(m.own)}.normal()
}

// advance applies the next transaction of others (or passes an own one that is
// committed already). One of its own that it has not committed yet blocks it.
func (m *member) advance(md *model, done func(n uint64) bool) {
	n := m.low + 1
	if n > uint64(len(md.txns)) || md.txns[n-1].Origin == m.id && !done(n) {
		return
	}
	m.low = n
	m.own = slices.DeleteFunc(m.own, func(o uint64) bool { return o <= m.low })
}

func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := make([]member, rapid.IntRange(1, 3).Draw(t, "members"))
		for i := range members {
			members[i] = member{id: uint64(i) + 1, incarnation: uint64(i) + 1}
		}
		c, md := New(0), &model{}
		pending := make(map[uint64]bool) // own transactions ordered and not committed
		keys := rapid.SliceOfN(rapid.Uint64Range(1, 6), 0, 3)
		lives := uint64(len(members))
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			m := &members[rapid.IntRange(0, len(members)-1).Draw(t, "member")]
			switch rapid.IntRange(0, 10).Draw(t, "step") {
			case 0: // commit one of its own out of order
				for n := range pending {
					if md.txns[n-1].Origin == m.id {
						n = minKey(pending, n, func(o uint64) bool {
							return md.txns[o-1].Origin == m.id && rapid.Bool().Draw(t, "other")
						})
						delete(pending, n)
						if n > m.low {
							m.own = append(m.own, n)
							slices.Sort(m.own)
						}
						break
					}
				}
			case 1, 2, 3:
				m.advance(md, func(n uint64) bool { return !pending[n] })
			case 4: // collect what all have
				low := members[0].low
				for _, o := range members {
					low = min(low, o.low)
				}
				if rapid.IntRange(0, 4).Draw(t, "too far") == 0 {
					low = min(low+1, uint64(len(md.txns))) // as the bound on memory does
				}
				c.GC(low)
				md.horizon = max(md.horizon, low)
			case 5: // encode and go on with the copy
				enc := c.Encode(nil)
				d, rest, err := Decode(enc)
				if err != nil || len(rest) != 0 {
					t.Fatalf("decode: %v, %d bytes left", err, len(rest))
				}
				if again := d.Encode(nil); !bytes.Equal(again, enc) {
					t.Fatal("a decoded copy encodes differently")
				}
				if cl := c.Clone().Encode(nil); !bytes.Equal(cl, enc) {
					t.Fatal("a clone encodes differently")
				}
				c = d
			case 6: // begin a new life; what was ordered is settled by it
				for n := range pending {
					if md.txns[n-1].Origin == m.id {
						delete(pending, n)
						if n > m.low {
							m.own = append(m.own, n)
						}
					}
				}
				slices.Sort(m.own)
				lives++
				m.incarnation = lives
			default:
				x := Txn{Origin: m.id, Incarnation: m.incarnation, Snapshot: m.snapshot(),
					Writes: keys.Draw(t, "writes"), Refs: keys.Draw(t, "refs"), Tables: keys.Draw(t, "tables"),
					CommitOrder: rapid.IntRange(0, 9).Draw(t, "order") == 0}
				switch rapid.IntRange(0, 9).Draw(t, "shape") {
				case 0:
					x.Direct = true
				case 1:
					x.Serial = true
				case 2:
					x.Wide = true
				}
				// Locks on one mysqld: what is prepared together is disjoint.
				for n := range pending {
					if md.txns[n-1].Origin == m.id && related(&md.txns[n-1], &x) {
						x.Writes, x.Refs, x.Tables, x.Direct, x.Wide = []uint64{1000 + uint64(len(md.txns))}, nil, nil, false, false
					}
				}
				if m.held != nil {
					x = *m.held
					x.Incarnation = m.incarnation
					m.held = nil
				} else if x.Direct && rapid.Bool().Draw(t, "hold") {
					m.held = &x
					continue
				}
				want := md.judge(&x)
				deps := md.deps(&x)
				got := c.Certify(&x)
				switch {
				case want != ReasonNone && got.Commit:
					t.Fatalf("committed %+v, must abort for %s", x, want)
				case want == ReasonNone && !got.Commit && len(members) == 1:
					t.Fatalf("a lone member's %+v aborted: %+v", x, got)
				case want == ReasonNone && !got.Commit && !refsInvolved(md, &x):
					t.Fatalf("%+v aborted without reason: %+v", x, got)
				}
				if got.Commit {
					if got.N != uint64(len(md.txns))+1 || got.Dep >= got.N {
						t.Fatalf("verdict %+v", got)
					}
					if got.Dep < deps || got.Dep > max(deps, c.Horizon()) {
						t.Fatalf("dep %d, must be %d (horizon %d)", got.Dep, deps, c.Horizon())
					}
					md.commit(x)
					if x.Direct {
						// Committed here already; its empty N follows at once.
						m.own = append(m.own, got.N)
					} else {
						pending[got.N] = true
					}
				}
			}
		}
	})
}

func minKey(set map[uint64]bool, def uint64, ok func(uint64) bool) uint64 {
	keys := make([]uint64, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if ok(k) {
			return k
		}
	}
	for _, k := range keys {
		if k == def {
			return def
		}
	}
	return def
}

// refsInvolved: the map remembers one referrer per key, so with several of them
// a write may abort although the definition would let it pass.
func refsInvolved(m *model, t *Txn) bool {
	for i := range m.txns {
		x := &m.txns[i]
		if intersects(x.Refs, t.Writes) || (t.Direct || t.Wide) && intersects(x.Tables, t.Tables) {
			return true
		}
	}
	return false
}

func FuzzDecode(f *testing.F) {
	c := New(0)
	for i := range uint64(5) {
		c.Certify(&Txn{Origin: i % 2, Snapshot: snap(i), Writes: []uint64{i, i + 1}, Refs: []uint64{9}})
	}
	c.GC(2)
	f.Add(c.Encode(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, _, err := Decode(b)
		if err != nil {
			return
		}
		enc := c.Encode(nil)
		d, rest, err := Decode(enc)
		if err != nil || len(rest) > 0 || !bytes.Equal(d.Encode(nil), enc) {
			t.Fatalf("%v", err)
		}
		d.Certify(&Txn{Snapshot: snap(d.Last()), Writes: []uint64{1, 2}, Refs: []uint64{3}})
		d.GC(d.Last())
	})
}

func BenchmarkCertify(b *testing.B) {
	c := New(0)
	keys := make([]uint64, 4)
	x := Txn{Origin: 1, Incarnation: 1}
	h := uint64(1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for j := range keys {
			h = mix(h + 1)
			keys[j] = h
		}
		x.Writes, x.Tables = keys, []uint64{5}
		x.Snapshot.Low = c.Last() - min(c.Last(), 50)
		if !c.Certify(&x).Commit {
			b.Fatal("abort")
		}
		if i%1000 == 0 {
			c.GC(c.Last() - min(c.Last(), 5000))
		}
	}
}
