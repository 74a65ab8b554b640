package battery

import (
	"cmp"
	"slices"
)

// levels are the anomalies of list-append by the edges that a cycle needs, from
// the gravest on: a cycle is named after the first level that has it.
//
// Every transaction is two events: its snapshot, at which all its reads of what
// it did not write before happen, and its commit, at which all its writes do.
// That is what InnoDB gives under REPEATABLE READ: plain reads see the snapshot,
// UPDATE sees and extends the latest committed version. A transaction may
// therefore overwrite what its snapshot did not show (lost update, write skew):
// neither is a cycle here. Everything else is: G0, G1c, a snapshot that shows one
// transaction and misses another that came before it (G-single), two snapshots
// that disagree about the order of two commits (long fork).
var levels = []struct {
	name  string
	kinds edgeKind
}{
	{"G0 (write cycle)", ww},
	{"G1c (circular information flow)", ww | wr | program},
	{"G-single or long fork (no order of snapshots and commits)", ww | wr | rw | program},
	{"session order (a connection's later read misses what it wrote or read)", ww | wr | rw | program | session},
	{"real-time order of writes", ww | wr | rw | program | session | clock},
}

// stale is the level above them: reads that miss what was acknowledged before
// they began.
const stale = ww | wr | rw | program | session | clock | fresh

// CheckAppend holds the transactions against each other and against the final
// lists of all keys. Transactions are in the order of their starts.
func CheckAppend(txns []Txn, last map[int][]int) Verdict {
	c := &appendCheck{txns: txns, last: last, writer: map[int]int{}, place: map[int]int{}}
	c.index()
	c.reads()
	if len(c.v.Findings) > 0 {
		return c.v // an order that is not one has no cycles to look for
	}
	c.build()
	for _, level := range levels {
		cycles := c.g.cycles(level.kinds)
		for _, cycle := range cycles {
			c.v.add("append", level.name, "%s", c.g.describe(cycle, level.kinds))
		}
		if len(cycles) > 0 {
			return c.v
		}
	}
	c.v.Stale = len(c.g.cycles(stale))
	return c.v
}

type appendCheck struct {
	txns   []Txn
	last   map[int][]int
	writer map[int]int // value: index of its transaction
	place  map[int]int // value: its place in the final list
	g      graph
	snap   []int // event of a transaction's snapshot, -1: none
	commit []int // event of its commit, -1: none
	v      Verdict
}

// index says of every appended value whether it is there as it must be.
func (c *appendCheck) index() {
	key := map[int]int{}
	for i, t := range c.txns {
		for _, m := range t.Mops {
			if m.Append != 0 {
				c.writer[m.Append] = i
				key[m.Append] = m.Key
			}
		}
	}
	for k, list := range c.last {
		for i, v := range list {
			if _, twice := c.place[v]; twice {
				c.v.add("append", "doubled write", "%d is more than once in key %d: %s", v, k, c.name(v))
			}
			if where, ok := key[v]; !ok || where != k {
				c.v.add("append", "write from nowhere", "%d in key %d", v, k)
			}
			c.place[v] = i
		}
	}
	for _, t := range c.txns {
		there, missing := 0, 0
		for _, m := range t.Mops {
			if m.Append == 0 {
				continue
			}
			if _, ok := c.place[m.Append]; ok {
				there++
			} else {
				missing++
			}
		}
		switch {
		case t.Outcome == OK && missing > 0:
			c.v.add("append", "lost write", "%v", &t)
		case t.Outcome == Fail && there > 0:
			c.v.add("append", "refused write is there", "%v", &t)
		case there > 0 && missing > 0:
			c.v.add("append", "half a transaction", "%v", &t)
		}
	}
}

func (c *appendCheck) name(value int) string {
	if i, ok := c.writer[value]; ok {
		return c.txns[i].String()
	}
	return "nobody"
}

// reads checks each read by itself. Reads of transactions that were not
// acknowledged count too, as far as they were answered: what was seen was seen.
func (c *appendCheck) reads() {
	for i := range c.txns {
		t := &c.txns[i]
		mine := map[int][]int{} // values by key
		seen := map[int][]int{} // what the snapshot showed
		for _, m := range t.Mops {
			if m.Append != 0 {
				mine[m.Key] = append(mine[m.Key], m.Append)
				continue
			}
			if !m.Read {
				continue
			}
			own := mine[m.Key]
			if len(own) == 0 {
				if before, ok := seen[m.Key]; ok && !slices.Equal(before, m.List) {
					c.v.add("append", "internal (unrepeatable read)", "%v: key %d", t, m.Key)
				}
				seen[m.Key] = m.List
			}
			if !slices.Equal(own, m.List[max(0, len(m.List)-len(own)):]) {
				c.v.add("append", "internal (own write not read)", "%v: key %d", t, m.Key)
				continue
			}
			if place, ok := c.place[first(own)]; ok && place != len(m.List)-len(own) {
				c.v.add("append", "internal (its write was not behind what it read)", "%v: key %d, place %d", t, m.Key, place)
			}
			c.read(t, i, m, len(own))
		}
	}
}

func first(list []int) int {
	if len(list) == 0 {
		return 0 // which is never appended
	}
	return list[0]
}

func (c *appendCheck) read(t *Txn, i int, m Mop, own int) {
	final := c.last[m.Key]
	others := m.List[:len(m.List)-own]
	for _, v := range others {
		j, ok := c.writer[v]
		switch {
		case !ok:
			c.v.add("append", "read of what nobody wrote", "%v: %d", t, v)
			return
		case c.txns[j].Outcome == Fail:
			c.v.add("append", "G1a (aborted read)", "%v read %d of %v", t, v, &c.txns[j])
			return
		case j == i:
			c.v.add("append", "read of its own future", "%v: %d", t, v)
			return
		}
	}
	// What a transaction that did not commit read behind its own writes has a
	// place in no final list; what it read before them has.
	if len(others) > len(final) || !slices.Equal(others, final[:len(others)]) {
		c.v.add("append", "incompatible order (a read is no prefix of the final list)", "%v: key %d, read %v, final %v",
			t, m.Key, tail(others), tail(final[:min(len(final), len(others)+1)]))
		return
	}
	if len(others) == 0 {
		return
	}
	newest := others[len(others)-1]
	j := c.writer[newest]
	for _, w := range slices.Backward(c.txns[j].Mops) {
		if w.Append != 0 && w.Key == m.Key {
			if w.Append != newest {
				c.v.add("append", "G1b (intermediate read)", "%v read %d of %v", t, newest, &c.txns[j])
			}
			return
		}
	}
}

func tail(list []int) []int { return list[max(0, len(list)-5):] }

// build makes the events and edges.
func (c *appendCheck) build() {
	c.snap, c.commit = make([]int, len(c.txns)), make([]int, len(c.txns))
	for i := range c.txns {
		t := &c.txns[i]
		c.snap[i], c.commit[i] = -1, -1
		if c.committed(t) {
			c.commit[i] = c.g.node(t.String())
		}
		if t.Outcome == OK {
			c.snap[i] = c.g.node(t.String())
			if c.commit[i] >= 0 {
				c.g.edge(c.snap[i], c.commit[i], program)
			}
		}
	}
	for _, list := range c.last {
		for i := 1; i < len(list); i++ {
			c.g.edge(c.commit[c.writer[list[i-1]]], c.commit[c.writer[list[i]]], ww)
		}
	}
	for i := range c.txns {
		if c.snap[i] < 0 {
			continue
		}
		written := map[int]bool{}
		for _, m := range c.txns[i].Mops {
			if m.Append != 0 {
				written[m.Key] = true
			}
			if m.Append != 0 || written[m.Key] || !m.Read {
				continue
			}
			if n := len(m.List); n > 0 {
				c.g.edge(c.commit[c.writer[m.List[n-1]]], c.snap[i], wr)
			}
			if final := c.last[m.Key]; len(final) > len(m.List) {
				if next := c.writer[final[len(m.List)]]; next != i {
					c.g.edge(c.snap[i], c.commit[next], rw)
				}
			}
		}
		// A read behind an own write is of the latest version, which the place of
		// that write in the list says already.
	}
	c.sessions()
	c.time()
}

// committed says whether a transaction's writes are in the final lists.
func (c *appendCheck) committed(t *Txn) bool {
	return slices.ContainsFunc(t.Mops, func(m Mop) bool {
		_, ok := c.place[m.Append]
		return m.Append != 0 && ok
	})
}

func (c *appendCheck) sessions() {
	before := map[int]int{} // by connection
	for i := range c.txns {
		if c.snap[i] < 0 {
			continue
		}
		if p, ok := before[c.txns[i].Conn]; ok {
			c.g.edge(c.snap[p], c.snap[i], session)
			if c.commit[p] >= 0 {
				c.g.edge(c.commit[p], c.snap[i], session)
			}
		}
		before[c.txns[i].Conn] = i
	}
}

// time links what ended before something else began through a chain of moments.
// A transaction that writes commits in the epoch of its primary, so its commit
// has its place in time; a snapshot has it too, but only fresh edges say so.
func (c *appendCheck) time() {
	type moment struct {
		at   int64
		txn  int
		ends bool
	}
	var moments []moment
	for i := range c.txns {
		t := &c.txns[i]
		moments = append(moments, moment{int64(t.Start), i, false})
		if t.Outcome == OK {
			moments = append(moments, moment{int64(t.End), i, true})
		}
	}
	slices.SortStableFunc(moments, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	now := -1
	for _, m := range moments {
		if m.ends {
			if c.commit[m.txn] < 0 {
				continue
			}
			n := c.g.node("")
			if now >= 0 {
				c.g.edge(now, n, clock)
			}
			c.g.edge(c.commit[m.txn], n, clock)
			now = n
			continue
		}
		if now < 0 {
			continue
		}
		if c.commit[m.txn] >= 0 {
			c.g.edge(now, c.commit[m.txn], clock)
		}
		if c.snap[m.txn] >= 0 {
			c.g.edge(now, c.snap[m.txn], fresh)
		}
	}
}
