package battery

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// The operations of a register. A plain read may be stale; a confirmed one also
// writes (another column), so that the group orders it, and one of a session under
// BEFORE sees what was acknowledged before, wherever it is answered.
const (
	regRead    = "read"
	regBefore  = "before"
	regConfirm = "confirm"
	regWrite   = "write"
	regSwap    = "swap" // compare and set
)

// RegisterOp is one operation on one register. A swap that found another value
// wrote nothing; it is then no more than a plain read.
type RegisterOp struct {
	Call
	Key   int    `json:"k"`
	Do    string `json:"do"`
	Value int    `json:"value"`           // written, or read
	Old   int    `json:"old,omitempty"`   // of a swap
	Done  bool   `json:"done,omitempty"`  // of a swap: it matched
	Final bool   `json:"final,omitempty"` // the read at the end
}

// Registers of one kind are used for a while, then others, so that no history is
// long.
const (
	registerKeys   = 3000
	registerPerKey = 120
	registersAtime = 2
)

type register struct {
	mu   sync.Mutex
	ops  []RegisterOp
	next int
	seen map[int]int
}

func newRegister() *register { return &register{seen: map[int]int{}} }

func (*register) name() string { return "register" }

func (*register) setup() []string {
	return []string{
		"CREATE TABLE registers (k INT PRIMARY KEY, v INT NOT NULL, n INT NOT NULL)",
		"SET SESSION cte_max_recursion_depth = 100000",
		fmt.Sprintf("INSERT INTO registers WITH RECURSIVE s AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM s WHERE i < %d) SELECT i, 0, 0 FROM s", registerKeys-1),
	}
}

func (*register) clients(members int) int { return members }

func (r *register) step(c *client, rng *rand.Rand) {
	r.mu.Lock()
	key := (len(r.ops)/registerPerKey*registersAtime + rng.IntN(registersAtime)) % registerKeys
	op := RegisterOp{Key: key, Old: r.seen[key]}
	r.next++
	op.Value = r.next
	r.mu.Unlock()
	switch rng.IntN(5) {
	case 0, 1:
		op.Do, op.Old = regWrite, 0
		c.call(&op.Call, true, func() (Outcome, error) {
			_, err := c.query(fmt.Sprintf("UPDATE registers SET v = %d WHERE k = %d", op.Value, key))
			return outcomeOf(err), err
		})
	case 2:
		op.Do = regSwap
		c.call(&op.Call, true, func() (Outcome, error) {
			reply, err := c.query(fmt.Sprintf("UPDATE registers SET v = %d WHERE k = %d AND v = %d", op.Value, key, op.Old))
			op.Done = reply.Affected == 1
			return outcomeOf(err), err
		})
	case 3:
		op.Do, op.Old, op.Value = regRead, 0, 0
		if c.before {
			op.Do = regBefore
		}
		c.call(&op.Call, false, func() (Outcome, error) {
			text, err := c.queryString(fmt.Sprintf("SELECT v FROM registers WHERE k = %d", key))
			return r.read(&op, text, err)
		})
	case 4:
		op.Do, op.Old, op.Value = regConfirm, 0, 0
		c.call(&op.Call, true, func() (Outcome, error) {
			return c.transaction(false, 2, func(i int) error {
				if i == 1 {
					_, err := c.query(fmt.Sprintf("UPDATE registers SET n = n + 1 WHERE k = %d", key))
					return err
				}
				text, err := c.queryString(fmt.Sprintf("SELECT v FROM registers WHERE k = %d FOR UPDATE", key))
				_, err = r.read(&op, text, err)
				return err
			})
		})
	}
	r.mu.Lock()
	r.ops = append(r.ops, op)
	if op.Outcome == OK && (op.Do != regSwap || op.Done) {
		r.seen[key] = op.Value
	}
	r.mu.Unlock()
}

func (r *register) read(op *RegisterOp, text string, err error) (Outcome, error) {
	if err == nil {
		op.Value, err = strconv.Atoi(text)
	}
	return outcomeOf(err), err
}

func (r *register) final(q querier) error {
	text, err := q("SELECT GROUP_CONCAT(v ORDER BY k) FROM registers")
	if err != nil {
		return err
	}
	list, err := parseList(text)
	for k := range (len(r.ops)/registerPerKey + 1) * registersAtime {
		if k < len(list) {
			r.ops = append(r.ops, RegisterOp{Call: Call{Session: -1, Start: math.MaxInt64 - 2, End: math.MaxInt64 - 1, Outcome: OK}, Key: k, Do: regConfirm, Value: list[k], Final: true})
		}
	}
	return err
}

func (r *register) history() any { return r.ops }

func (r *register) check() Verdict { return CheckRegister(r.ops, 20*time.Second) }

// CheckRegister asks whether the operations on each register happened in some
// order, each between its start and its answer. What only plain reads contradict
// counts as stale. The limit is for each register.
func CheckRegister(ops []RegisterOp, limit time.Duration) Verdict {
	var v Verdict
	keys := map[int][]RegisterOp{}
	for _, op := range ops {
		if op.Outcome != Fail {
			keys[op.Key] = append(keys[op.Key], op)
		}
	}
	for key, ops := range keys {
		switch linearizable(ops, false, limit) {
		case porcupine.Illegal:
			v.add("register", "not linearizable", "register %d, %d operations", key, len(ops))
			continue
		case porcupine.Unknown:
			v.Undecided = append(v.Undecided, fmt.Sprintf("register %d: %d operations not decided within %s", key, len(ops), limit))
			continue
		}
		if linearizable(ops, true, limit) == porcupine.Illegal {
			v.Stale++
		}
	}
	return v
}

var registerModel = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		op := input.(RegisterOp)
		now := state.(int)
		switch {
		case op.Do == regWrite:
			return true, op.Value
		case op.Do == regSwap && op.Outcome == Unknown:
			if now == op.Old {
				return true, op.Value
			}
			return true, now
		case op.Do == regSwap:
			return now == op.Old, op.Value
		default:
			return now == op.Value, now
		}
	},
}

// linearizable leaves out plain reads unless told otherwise, and what says
// nothing: swaps that did not match, reads without an answer, and unknown writes
// whose value nobody saw. Such a write may be where nothing is read before the
// next write, or nowhere: leaving it out hides nothing, and without it the search
// stays short.
func linearizable(ops []RegisterOp, plain bool, limit time.Duration) porcupine.CheckResult {
	seen := map[int]bool{}
	for _, op := range ops {
		switch {
		case op.Outcome == OK && op.Do != regWrite && op.Do != regSwap:
			seen[op.Value] = true
		case op.Do == regSwap:
			seen[op.Old] = true
		}
	}
	var all []porcupine.Operation
	for i, op := range ops {
		writes := op.Do == regWrite || op.Do == regSwap
		switch {
		case op.Outcome == Unknown && (!writes || !seen[op.Value]),
			op.Outcome == OK && op.Do == regSwap && !op.Done,
			op.Do == regRead && !plain:
			continue
		}
		end := int64(op.End)
		if op.Outcome == Unknown {
			end = math.MaxInt64 // it may happen at any later time
		}
		all = append(all, porcupine.Operation{ClientId: i, Input: op, Call: int64(op.Start), Return: end})
	}
	return porcupine.CheckOperationsTimeout(registerModel, all, limit)
}
