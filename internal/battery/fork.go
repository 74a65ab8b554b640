package battery

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Look is one operation of the fork workload: an insert of a writer, or a read of
// how far both writers are.
type Look struct {
	Call
	Writer int    `json:"writer"`      // 0 or 1
	N      int    `json:"n,omitempty"` // what it inserts
	Seen   [2]int `json:"seen"`        // of a read
}

// fork has two writers that know nothing of each other. Two readers, through
// whichever members, must not disagree about which of them was first.
type fork struct {
	mu    sync.Mutex
	looks []Look
	n     [2]int
	rows  [2]map[int]int // final: how often n is there
}

func newFork() *fork { return &fork{rows: [2]map[int]int{{}, {}}} }

func (*fork) name() string { return "fork" }

func (*fork) setup() []string {
	return []string{"CREATE TABLE fork (pk BIGINT AUTO_INCREMENT PRIMARY KEY, w INT NOT NULL, n INT NOT NULL, KEY (w, n))"}
}

// clients: two writers, and a reader through each member.
func (*fork) clients(members int) int { return 2 + members }

func (f *fork) step(c *client, _ *rand.Rand) {
	l := Look{Writer: c.id}
	if c.id > 1 {
		c.call(&l.Call, false, func() (Outcome, error) {
			text, err := c.queryString("SELECT CONCAT((SELECT IFNULL(MAX(n),0) FROM fork WHERE w = 0), ',', (SELECT IFNULL(MAX(n),0) FROM fork WHERE w = 1))")
			if err != nil {
				return outcomeOf(err), err
			}
			seen, err := parseList(text)
			if err != nil || len(seen) != 2 {
				return Unknown, fmt.Errorf("battery: fork read %q: %w", text, err)
			}
			l.Seen = [2]int(seen)
			return OK, nil
		})
	} else {
		f.mu.Lock()
		f.n[c.id]++
		l.N = f.n[c.id]
		f.mu.Unlock()
		c.call(&l.Call, true, func() (Outcome, error) {
			_, err := c.query(fmt.Sprintf("INSERT INTO fork (w, n) VALUES (%d, %d)", c.id, l.N))
			return outcomeOf(err), err
		})
	}
	f.mu.Lock()
	f.looks = append(f.looks, l)
	f.mu.Unlock()
}

func (f *fork) final(q querier) error {
	for w := range f.rows {
		text, err := q(fmt.Sprintf("SELECT GROUP_CONCAT(n) FROM fork WHERE w = %d", w))
		if err != nil {
			return err
		}
		ns, err := parseList(text)
		if err != nil {
			return err
		}
		for _, n := range ns {
			f.rows[w][n]++
		}
	}
	return nil
}

func (f *fork) history() any { return map[string]any{"looks": f.looks, "rows": f.rows} }

func (f *fork) check() Verdict { return CheckFork(f.looks, f.rows) }

// CheckFork holds all reads against each other: of two, one must have seen at
// least as much as the other of both writers.
func CheckFork(looks []Look, rows [2]map[int]int) Verdict {
	var v Verdict
	var reads []Look
	writes := [2]map[int]bool{{}, {}}
	for _, l := range looks {
		if l.N == 0 {
			if l.Outcome == OK {
				reads = append(reads, l)
			}
			continue
		}
		writes[l.Writer][l.N] = true
		switch n := rows[l.Writer][l.N]; {
		case n > 1:
			v.add("fork", "doubled write", "%d times: %+v", n, l)
		case l.Outcome == OK && n == 0:
			v.add("fork", "lost write", "%+v", l)
		case l.Outcome == Fail && n > 0:
			v.add("fork", "refused write is there", "%+v", l)
		}
	}
	for w := range rows {
		for n := range rows[w] {
			if !writes[w][n] {
				v.add("fork", "write from nowhere", "%d of writer %d", n, w)
			}
		}
	}
	for _, l := range reads {
		for w, n := range l.Seen {
			if n > 0 && rows[w][n] == 0 {
				v.add("fork", "read of what is not there", "%+v", l)
			}
		}
	}
	slices.SortFunc(reads, func(a, b Look) int {
		return cmp.Or(cmp.Compare(a.Seen[0], b.Seen[0]), cmp.Compare(a.Seen[1], b.Seen[1]))
	})
	for i := 1; i < len(reads); i++ {
		if a, b := reads[i-1], reads[i]; a.Seen[1] > b.Seen[1] {
			v.add("fork", "long fork", "%+v and %+v", a, b)
		}
	}
	v.Stale = staleLooks(looks)
	for _, l := range sessionsBack(looks) {
		v.add("fork", "session order", "%+v saw less than before on one connection", l)
	}
	return v
}

// sessionsBack are the reads that went back behind an earlier one of their
// connection.
func sessionsBack(looks []Look) []Look {
	var back []Look
	before := map[int][2]int{}
	for _, l := range looks {
		if l.N != 0 || l.Outcome != OK {
			continue
		}
		if b := before[l.Conn]; l.Seen[0] < b[0] || l.Seen[1] < b[1] {
			back = append(back, l)
		}
		before[l.Conn] = l.Seen
	}
	return back
}

// staleLooks counts reads that miss an insert acknowledged before they began.
func staleLooks(looks []Look) int {
	acked := [2][]Look{}
	for _, l := range looks {
		if l.N != 0 && l.Outcome == OK {
			acked[l.Writer] = append(acked[l.Writer], l)
		}
	}
	count := 0
	for _, l := range looks {
		if l.N != 0 || l.Outcome != OK {
			continue
		}
		for w := range acked {
			// A writer's inserts and their answers are in the order of N.
			i, _ := slices.BinarySearchFunc(acked[w], l.Start, func(a Look, at time.Duration) int { return cmp.Compare(a.End, at) })
			if i > 0 && acked[w][i-1].N > l.Seen[w] {
				count++
				break
			}
		}
	}
	return count
}
