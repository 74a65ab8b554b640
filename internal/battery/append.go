package battery

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Mop is one statement of a list-append transaction: it reads the list of a key,
// or appends a value that nobody else ever appends.
type Mop struct {
	Key    int   `json:"k"`
	Append int   `json:"a,omitempty"` // 0: a read
	List   []int `json:"l,omitempty"` // what was read
	Read   bool  `json:"r,omitempty"` // the answer to the read arrived
}

// Txn is one list-append transaction.
type Txn struct {
	Call
	Mops []Mop `json:"mops"`
}

func (t *Txn) writes() bool {
	return slices.ContainsFunc(t.Mops, func(m Mop) bool { return m.Append != 0 })
}

func (t *Txn) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%s %d/%d via %s %.3fs-%.3fs", t.Outcome, t.Session, t.Conn, t.Through, t.Start.Seconds(), t.End.Seconds())
	for _, m := range t.Mops {
		switch tail := m.List; {
		case m.Append != 0:
			fmt.Fprintf(&b, " append(%d,%d)", m.Key, m.Append)
		case m.Read:
			fmt.Fprintf(&b, " read(%d,#%d…%v)", m.Key, len(tail), tail[max(0, len(tail)-3):])
		}
	}
	return b.String() + "]"
}

// appendKeys are made in advance; a few of them at a time are in use, and the
// window moves on so that lists stay short.
const (
	appendKeys   = 2000
	appendWindow = 5
	appendPerKey = 60 // transactions before the window moves by one
)

type listAppend struct {
	mu   sync.Mutex
	txns []Txn
	next int // last value appended
	last map[int][]int
}

func newListAppend() *listAppend { return &listAppend{last: map[int][]int{}} }

func (*listAppend) name() string { return "append" }

func (*listAppend) setup() []string {
	var rows []string
	for k := range appendKeys {
		rows = append(rows, fmt.Sprintf("(%d,'')", k))
	}
	return []string{
		"CREATE TABLE lists (k INT PRIMARY KEY, v MEDIUMTEXT NOT NULL)",
		"INSERT INTO lists VALUES " + strings.Join(rows, ","),
	}
}

func (*listAppend) clients(members int) int { return members + 1 }

func (l *listAppend) plan(rng *rand.Rand) []Mop {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 1 + rng.IntN(4)
	readOnly := rng.IntN(4) == 0
	first := (len(l.txns) / appendPerKey) % (appendKeys - appendWindow)
	var mops []Mop
	for range n {
		m := Mop{Key: first + rng.IntN(appendWindow)}
		if !readOnly && rng.IntN(2) == 0 {
			l.next++
			m.Append = l.next
		}
		mops = append(mops, m)
	}
	return mops
}

func (l *listAppend) step(s *client, rng *rand.Rand) {
	t := Txn{Mops: l.plan(rng)}
	// One statement by itself is a transaction too, and another way through.
	auto := len(t.Mops) == 1 && rng.IntN(2) == 0
	s.call(&t.Call, t.writes(), func() (Outcome, error) {
		return s.transaction(auto, len(t.Mops), func(i int) error {
			m := &t.Mops[i]
			if m.Append != 0 {
				_, err := s.query(fmt.Sprintf("UPDATE lists SET v = CONCAT(v, '%d,') WHERE k = %d", m.Append, m.Key))
				return err
			}
			text, err := s.queryString(fmt.Sprintf("SELECT v FROM lists WHERE k = %d", m.Key))
			if err != nil {
				return err
			}
			m.Read = true
			m.List, err = parseList(text)
			return err
		})
	})
	l.mu.Lock()
	l.txns = append(l.txns, t)
	l.mu.Unlock()
}

func parseList(text string) ([]int, error) {
	var list []int
	for v := range strings.SplitSeq(strings.TrimSuffix(text, ","), ",") {
		if v == "" {
			continue
		}
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, fmt.Errorf("battery: list %.50q: %w", text, err)
		}
		list = append(list, n)
	}
	return list, nil
}

func (l *listAppend) final(q querier) error {
	text, err := q("SELECT GROUP_CONCAT(k, ':', v SEPARATOR ';') FROM lists WHERE v <> ''")
	if err != nil || text == "" {
		return err
	}
	for item := range strings.SplitSeq(text, ";") {
		k, v, _ := strings.Cut(item, ":")
		key, err := strconv.Atoi(k)
		if err != nil {
			return fmt.Errorf("battery: final lists: %w", err)
		}
		if l.last[key], err = parseList(v); err != nil {
			return err
		}
	}
	return nil
}

func (l *listAppend) history() any { return map[string]any{"txns": l.txns, "final": l.last} }

func (l *listAppend) check() Verdict {
	slices.SortStableFunc(l.txns, func(a, b Txn) int { return cmp.Compare(a.Start, b.Start) })
	return CheckAppend(l.txns, l.last)
}
