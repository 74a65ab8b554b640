package battery

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
)

// The bank: money moves between accounts, and no snapshot on any member may ever
// show another total.
const (
	bankAccounts = 8
	bankOpening  = 100
	bankTotal    = bankAccounts * bankOpening
)

// Move is one operation of the bank: a transfer, or a read of all balances.
type Move struct {
	Call
	ID       int   `json:"id,omitempty"` // of a transfer, unique
	From     int   `json:"from"`
	To       int   `json:"to"`
	Amount   int   `json:"amount,omitempty"`
	Balances []int `json:"balances,omitempty"` // of a read
	Direct   bool  `json:"direct,omitempty"`   // read on a member's own mysqld
}

type bank struct {
	mu    sync.Mutex
	moves []Move
	next  int
	ids   map[int]int // final: how often a transfer is recorded
	ends  []int       // final balances
}

func newBank() *bank { return &bank{ids: map[int]int{}} }

func (*bank) name() string { return "bank" }

func (*bank) setup() []string {
	var rows []string
	for i := range bankAccounts {
		rows = append(rows, fmt.Sprintf("(%d,%d)", i, bankOpening))
	}
	return []string{
		"CREATE TABLE accounts (id INT PRIMARY KEY, balance INT NOT NULL)",
		"CREATE TABLE transfers (pk BIGINT AUTO_INCREMENT PRIMARY KEY, id INT NOT NULL)", // no unique id: doubles are to show
		"INSERT INTO accounts VALUES " + strings.Join(rows, ","),
	}
}

func (*bank) clients(members int) int { return members + 1 }

const balances = "SELECT GROUP_CONCAT(balance ORDER BY id) FROM accounts"

func (b *bank) step(c *client, rng *rand.Rand) {
	m := Move{From: rng.IntN(bankAccounts), Direct: c.direct}
	kind := rng.IntN(10)
	if c.direct {
		kind = rng.IntN(4)
	}
	switch {
	case kind < 2:
		b.readOnce(c, &m)
	case kind < 4:
		b.readEach(c, &m)
	default:
		m.To = (m.From + 1 + rng.IntN(bankAccounts-1)) % bankAccounts
		m.Amount = 1 + rng.IntN(10)
		b.mu.Lock()
		b.next++
		m.ID = b.next
		b.mu.Unlock()
		b.transfer(c, &m)
	}
	b.record(m)
}

func (b *bank) record(m Move) {
	b.mu.Lock()
	b.moves = append(b.moves, m)
	b.mu.Unlock()
}

func (b *bank) readOnce(c *client, m *Move) {
	c.call(&m.Call, m.ID != 0, func() (Outcome, error) {
		text, err := c.queryString(balances)
		if err == nil {
			m.Balances, err = parseList(text)
		}
		return outcomeOf(err), err
	})
}

// readEach reads the accounts one by one in one snapshot.
func (b *bank) readEach(c *client, m *Move) {
	c.call(&m.Call, m.ID != 0, func() (Outcome, error) {
		return c.transaction(false, bankAccounts, func(i int) error {
			text, err := c.queryString(fmt.Sprintf("SELECT balance FROM accounts WHERE id = %d", i))
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(text)
			m.Balances = append(m.Balances, n)
			return err
		})
	})
}

func (b *bank) transfer(c *client, m *Move) {
	low, high := min(m.From, m.To), max(m.From, m.To)
	statements := []string{
		fmt.Sprintf("SELECT balance FROM accounts WHERE id IN (%d, %d) FOR UPDATE", low, high),
		fmt.Sprintf("UPDATE accounts SET balance = balance - %d WHERE id = %d", m.Amount, m.From),
		fmt.Sprintf("INSERT INTO transfers (id) VALUES (%d)", m.ID),
		fmt.Sprintf("UPDATE accounts SET balance = balance + %d WHERE id = %d", m.Amount, m.To),
	}
	c.call(&m.Call, m.ID != 0, func() (Outcome, error) {
		return c.transaction(false, len(statements), func(i int) error {
			_, err := c.query(statements[i])
			return err
		})
	})
}

func (b *bank) final(q querier) error {
	text, err := q(balances)
	if err != nil {
		return err
	}
	if b.ends, err = parseList(text); err != nil {
		return err
	}
	text, err = q("SELECT GROUP_CONCAT(id) FROM transfers")
	if err != nil {
		return err
	}
	ids, err := parseList(text)
	for _, id := range ids {
		b.ids[id]++
	}
	return err
}

func (b *bank) history() any {
	return map[string]any{"moves": b.moves, "transfers": b.ids, "balances": b.ends}
}

func (b *bank) check() Verdict { return CheckBank(b.moves, b.ids, b.ends) }

// CheckBank holds every read to the total, every transfer to its answer, and the
// final balances to the transfers that are recorded.
func CheckBank(moves []Move, recorded map[int]int, final []int) Verdict {
	var v Verdict
	sum := func(balances []int) int {
		n := 0
		for _, b := range balances {
			n += b
		}
		return n
	}
	want := make([]int, bankAccounts)
	for i := range want {
		want[i] = bankOpening
	}
	known := map[int]bool{}
	for _, m := range moves {
		if m.ID == 0 {
			if m.Outcome == OK && (len(m.Balances) != bankAccounts || sum(m.Balances) != bankTotal) {
				v.add("bank", "wrong total", "%d in %+v", sum(m.Balances), m)
			}
			continue
		}
		known[m.ID] = true
		switch n := recorded[m.ID]; {
		case n > 1:
			v.add("bank", "doubled write", "%d times: %+v", n, m)
		case m.Outcome == OK && n == 0:
			v.add("bank", "lost write", "%+v", m)
		case m.Outcome == Fail && n > 0:
			v.add("bank", "refused write is there", "%+v", m)
		}
		for range recorded[m.ID] {
			want[m.From] -= m.Amount
			want[m.To] += m.Amount
		}
	}
	for id := range recorded {
		if !known[id] {
			v.add("bank", "write from nowhere", "transfer %d", id)
		}
	}
	if fmt.Sprint(final) != fmt.Sprint(want) {
		v.add("bank", "half a transaction", "the transfers that are there give %v, the accounts hold %v", want, final)
	}
	return v
}
