package battery

import (
	"math"
	"strings"
	"testing"
	"time"
)

// txn makes a transaction from start to end (ms) of one connection.
func txn(conn int, start, end int, outcome Outcome, mops ...Mop) Txn {
	return Txn{Call: Call{Session: conn, Conn: conn, Start: ms(start), End: ms(end), Outcome: outcome}, Mops: mops}
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func app(key, value int) Mop { return Mop{Key: key, Append: value} }

func read(key int, list ...int) Mop { return Mop{Key: key, List: list, Read: true} }

// expect fails unless the first finding is of the anomaly; "" means none.
func expect(t *testing.T, v Verdict, anomaly string) {
	t.Helper()
	switch {
	case anomaly == "" && len(v.Findings) > 0:
		t.Errorf("found %v", v.Findings)
	case anomaly != "" && len(v.Findings) == 0:
		t.Errorf("not found: %s", anomaly)
	case anomaly != "" && !strings.HasPrefix(v.Findings[0].Anomaly, anomaly):
		t.Errorf("want %s, found %v", anomaly, v.Findings)
	}
}

func TestCheckAppend(t *testing.T) {
	for name, c := range map[string]struct {
		txns  []Txn
		last  map[int][]int
		want  string
		stale int
	}{
		"in order": {
			txns: []Txn{txn(1, 0, 1, OK, app(1, 1)), txn(2, 2, 3, OK, read(1, 1), app(1, 2), read(1, 1, 2)), txn(1, 4, 5, OK, read(1, 1, 2))},
			last: map[int][]int{1: {1, 2}},
		},
		"unknown, there or not": {
			txns: []Txn{txn(1, 0, 1, Unknown, app(1, 1), app(2, 2)), txn(2, 2, 3, Unknown, app(1, 3))},
			last: map[int][]int{1: {1}, 2: {2}},
		},
		"unknown takes effect late": {
			txns: []Txn{txn(1, 0, 1, Unknown, app(1, 1)), txn(2, 2, 3, OK, read(1)), txn(2, 4, 5, OK, read(1, 1))},
			last: map[int][]int{1: {1}},
		},
		"lost": {
			txns: []Txn{txn(1, 0, 1, OK, app(1, 1))},
			last: map[int][]int{},
			want: "lost write",
		},
		"doubled": {
			txns: []Txn{txn(1, 0, 1, OK, app(1, 1))},
			last: map[int][]int{1: {1, 1}},
			want: "doubled write",
		},
		"from nowhere": {
			txns: []Txn{txn(1, 0, 1, OK, app(1, 1))},
			last: map[int][]int{1: {1, 7}},
			want: "write from nowhere",
		},
		"refused and there": {
			txns: []Txn{txn(1, 0, 1, Fail, app(1, 1))},
			last: map[int][]int{1: {1}},
			want: "refused write is there",
		},
		"half": {
			txns: []Txn{txn(1, 0, 1, Unknown, app(1, 1), app(2, 2))},
			last: map[int][]int{1: {1}},
			want: "half a transaction",
		},
		"G1a": {
			txns: []Txn{txn(1, 0, 1, Fail, app(1, 1)), txn(2, 2, 3, OK, read(1, 1))},
			last: map[int][]int{},
			want: "G1a",
		},
		"dirty read of an unknown that is gone": {
			txns: []Txn{txn(1, 0, 1, Unknown, app(1, 1)), txn(2, 2, 3, OK, read(1, 1))},
			last: map[int][]int{},
			want: "incompatible order",
		},
		"G1b": {
			txns: []Txn{txn(1, 0, 3, OK, app(1, 1), app(1, 2)), txn(2, 1, 2, OK, read(1, 1))},
			last: map[int][]int{1: {1, 2}},
			want: "G1b",
		},
		"two orders": {
			txns: []Txn{txn(1, 0, 5, OK, app(1, 1)), txn(2, 0, 5, OK, app(1, 2)), txn(3, 1, 5, OK, read(1, 2, 1))},
			last: map[int][]int{1: {1, 2}},
			want: "incompatible order",
		},
		"unrepeatable": {
			txns: []Txn{txn(1, 0, 5, OK, app(1, 1)), txn(2, 0, 5, OK, read(1), read(1, 1))},
			last: map[int][]int{1: {1}},
			want: "internal",
		},
		"own write not read": {
			txns: []Txn{txn(1, 0, 5, OK, app(1, 1), read(1))},
			last: map[int][]int{1: {1}},
			want: "internal",
		},
		"overtaken while it held the lock": {
			txns: []Txn{txn(1, 0, 5, OK, app(1, 1), read(1, 1)), txn(2, 0, 5, OK, app(1, 2))},
			last: map[int][]int{1: {2, 1}},
			want: "internal",
		},
		"G0": {
			txns: []Txn{txn(1, 0, 5, OK, app(1, 1), app(2, 2)), txn(2, 0, 5, OK, app(1, 3), app(2, 4))},
			last: map[int][]int{1: {1, 3}, 2: {4, 2}},
			want: "G0",
		},
		"G1c": {
			txns: []Txn{txn(1, 0, 5, OK, read(2, 2), app(1, 1)), txn(2, 0, 5, OK, read(1, 1), app(2, 2))},
			last: map[int][]int{1: {1}, 2: {2}},
			want: "G1c",
		},
		"G-single: half of another transaction": {
			txns: []Txn{txn(1, 0, 5, OK, app(1, 1), app(2, 2)), txn(2, 0, 5, OK, read(1, 1), read(2))},
			last: map[int][]int{1: {1}, 2: {2}},
			want: "G-single",
		},
		"G-single: a later one and not the earlier": {
			txns: []Txn{txn(1, 0, 5, OK, app(1, 1)), txn(2, 0, 5, OK, read(1, 1), app(2, 2)), txn(3, 0, 5, OK, read(2, 2), read(1))},
			last: map[int][]int{1: {1}, 2: {2}},
			want: "G-single",
		},
		"long fork": {
			txns: []Txn{
				txn(1, 0, 5, OK, app(1, 1)), txn(2, 0, 5, OK, app(2, 2)),
				txn(3, 0, 5, OK, read(1, 1), read(2)), txn(4, 0, 5, OK, read(2, 2), read(1)),
			},
			last: map[int][]int{1: {1}, 2: {2}},
			want: "G-single or long fork",
		},
		"lost update is InnoDB's": {
			txns: []Txn{txn(1, 0, 5, OK, read(1), app(1, 1)), txn(2, 0, 5, OK, read(1), app(1, 2))},
			last: map[int][]int{1: {1, 2}},
		},
		"write skew is InnoDB's": {
			txns: []Txn{txn(1, 0, 5, OK, read(1), app(2, 2)), txn(2, 0, 5, OK, read(2), app(1, 1))},
			last: map[int][]int{1: {1}, 2: {2}},
		},
		"a connection reads back": {
			txns: []Txn{txn(1, 0, 5, OK, app(1, 1)), txn(2, 0, 1, OK, read(1, 1)), txn(2, 2, 3, OK, read(1))},
			last: map[int][]int{1: {1}},
			want: "session order",
		},
		"a connection misses its own write": {
			txns: []Txn{txn(1, 0, 1, OK, app(1, 1)), txn(1, 2, 3, OK, read(1))},
			last: map[int][]int{1: {1}},
			want: "session order",
		},
		"writes against the clock": {
			txns: []Txn{txn(1, 0, 1, OK, app(1, 1)), txn(2, 2, 3, OK, app(1, 2))},
			last: map[int][]int{1: {2, 1}},
			want: "real-time",
		},
		"a stale read is no finding": {
			txns:  []Txn{txn(1, 0, 1, OK, app(1, 1)), txn(2, 2, 3, OK, read(1))},
			last:  map[int][]int{1: {1}},
			stale: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := CheckAppend(c.txns, c.last)
			expect(t, v, c.want)
			if v.Stale != c.stale {
				t.Errorf("%d stale, want %d", v.Stale, c.stale)
			}
		})
	}
}

func balancesOf(n ...int) []int {
	all := make([]int, bankAccounts)
	for i := range all {
		all[i] = bankOpening
		if i < len(n) {
			all[i] = n[i]
		}
	}
	return all
}

func TestCheckBank(t *testing.T) {
	moved := func(o Outcome) Move { return Move{Call: Call{Outcome: o}, ID: 1, From: 0, To: 1, Amount: 5} }
	looked := func(b []int) Move { return Move{Call: Call{Outcome: OK}, Balances: b} }
	for name, c := range map[string]struct {
		moves []Move
		ids   map[int]int
		final []int
		want  string
	}{
		"well":         {[]Move{moved(OK), looked(balancesOf()), looked(balancesOf(95, 105))}, map[int]int{1: 1}, balancesOf(95, 105), ""},
		"unknown gone": {[]Move{moved(Unknown)}, nil, balancesOf(), ""},
		"torn read":    {[]Move{moved(OK), looked(balancesOf(95))}, map[int]int{1: 1}, balancesOf(95, 105), "wrong total"},
		"missing row":  {[]Move{looked(balancesOf()[1:])}, nil, balancesOf(), "wrong total"},
		"lost":         {[]Move{moved(OK)}, nil, balancesOf(), "lost write"},
		"doubled":      {[]Move{moved(OK)}, map[int]int{1: 2}, balancesOf(90, 110), "doubled write"},
		"refused":      {[]Move{moved(Fail)}, map[int]int{1: 1}, balancesOf(95, 105), "refused write is there"},
		"from nowhere": {nil, map[int]int{9: 1}, balancesOf(), "write from nowhere"},
		"half":         {[]Move{moved(OK)}, map[int]int{1: 1}, balancesOf(95), "half a transaction"},
		"twice in money": {[]Move{moved(OK)}, map[int]int{1: 1}, balancesOf(90, 110),
			"half a transaction"},
	} {
		t.Run(name, func(t *testing.T) { expect(t, CheckBank(c.moves, c.ids, c.final), c.want) })
	}
}

func TestCheckFork(t *testing.T) {
	write := func(w, n, start, end int, o Outcome) Look {
		return Look{Call: Call{Conn: w, Start: ms(start), End: ms(end), Outcome: o}, Writer: w, N: n}
	}
	saw := func(conn, start, a, b int) Look {
		return Look{Call: Call{Conn: conn, Start: ms(start), End: ms(start + 1), Outcome: OK}, Writer: conn, Seen: [2]int{a, b}}
	}
	w0, w1 := write(0, 1, 0, 1, OK), write(1, 1, 0, 1, OK)
	both := [2]map[int]int{{1: 1}, {1: 1}}
	for name, c := range map[string]struct {
		looks []Look
		rows  [2]map[int]int
		want  string
		stale int
	}{
		"well":         {[]Look{w0, w1, saw(2, 0, 1, 0), saw(3, 0, 1, 1)}, both, "", 0},
		"long fork":    {[]Look{w0, w1, saw(2, 0, 1, 0), saw(3, 0, 0, 1)}, both, "long fork", 0},
		"backwards":    {[]Look{w0, w1, saw(2, 0, 1, 1), saw(2, 1, 0, 1)}, both, "session order", 0},
		"lost":         {[]Look{w0}, [2]map[int]int{}, "lost write", 0},
		"doubled":      {[]Look{w0}, [2]map[int]int{{1: 2}}, "doubled write", 0},
		"refused":      {[]Look{write(0, 1, 0, 1, Fail)}, [2]map[int]int{{1: 1}}, "refused write is there", 0},
		"from nowhere": {nil, [2]map[int]int{{3: 1}}, "write from nowhere", 0},
		"vanished":     {[]Look{write(0, 1, 0, 1, Unknown), saw(2, 0, 1, 0)}, [2]map[int]int{}, "read of what is not there", 0},
		"stale":        {[]Look{w0, w1, saw(2, 5, 0, 1)}, both, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			v := CheckFork(c.looks, c.rows)
			expect(t, v, c.want)
			if v.Stale != c.stale {
				t.Errorf("%d stale, want %d", v.Stale, c.stale)
			}
		})
	}
}

func TestCheckNotes(t *testing.T) {
	wrote := func(conn, n int, o Outcome) Note { return Note{Call: Call{Conn: conn, Outcome: o}, Wrote: n} }
	saw := func(conn, n int) Note { return Note{Call: Call{Conn: conn, Outcome: OK}, Read: n} }
	lost := saw(1, 0)
	lost.Want, lost.Mark = "m1", "lost"
	for name, c := range map[string]struct {
		notes []Note
		last  int
		want  string
		stale int
	}{
		"well":                    {[]Note{wrote(1, 1, OK), saw(1, 1), wrote(1, 2, OK), saw(1, 2)}, 2, "", 0},
		"own write missed":        {[]Note{wrote(1, 1, OK), saw(1, 0)}, 1, "read-your-writes", 0},
		"older on another":        {[]Note{wrote(1, 1, OK), saw(2, 0)}, 1, "", 1},
		"then back on the same":   {[]Note{wrote(1, 1, OK), saw(2, 1), saw(2, 0)}, 1, "read-your-writes", 0},
		"unknown late":            {[]Note{wrote(1, 1, Unknown), wrote(2, 2, OK), saw(2, 1)}, 1, "", 0},
		"refused":                 {[]Note{wrote(1, 1, Fail), saw(1, 1)}, 0, "read of a refused write", 0},
		"never written":           {[]Note{saw(1, 4)}, 0, "read of what was not written", 0},
		"lost":                    {[]Note{wrote(1, 1, OK)}, 0, "lost write", 0},
		"session state forgotten": {[]Note{lost}, 0, "lost session state", 0},
	} {
		t.Run(name, func(t *testing.T) {
			v := CheckNotes(c.notes, map[int]int{0: c.last})
			expect(t, v, c.want)
			if v.Stale != c.stale {
				t.Errorf("%d stale, want %d", v.Stale, c.stale)
			}
		})
	}
}

func TestCheckRegister(t *testing.T) {
	op := func(start, end int, o Outcome, do string, value int) RegisterOp {
		return RegisterOp{Call: Call{Start: ms(start), End: ms(end), Outcome: o}, Do: do, Value: value}
	}
	swap := func(start, end int, o Outcome, old, value int, done bool) RegisterOp {
		r := op(start, end, o, regSwap, value)
		r.Old, r.Done = old, done
		return r
	}
	final := func(value int) RegisterOp {
		r := op(0, 0, OK, regConfirm, value)
		r.Start, r.End, r.Final = math.MaxInt64-2, math.MaxInt64-1, true
		return r
	}
	for name, c := range map[string]struct {
		ops   []RegisterOp
		want  string
		stale int
	}{
		"well":              {[]RegisterOp{op(0, 1, OK, regWrite, 1), op(2, 3, OK, regConfirm, 1), swap(4, 5, OK, 1, 2, true), final(2)}, "", 0},
		"lost":              {[]RegisterOp{op(0, 1, OK, regWrite, 1), final(0)}, "not linearizable", 0},
		"refused":           {[]RegisterOp{op(0, 1, Fail, regWrite, 1), final(1)}, "not linearizable", 0},
		"swapped from both": {[]RegisterOp{swap(0, 5, OK, 0, 1, true), swap(0, 5, OK, 0, 2, true)}, "not linearizable", 0},
		"order of writes":   {[]RegisterOp{op(0, 1, OK, regWrite, 1), op(2, 3, OK, regWrite, 2), final(1)}, "not linearizable", 0},
		"old confirmed":     {[]RegisterOp{op(0, 1, OK, regWrite, 1), op(2, 3, OK, regConfirm, 0)}, "not linearizable", 0},
		"old under BEFORE":  {[]RegisterOp{op(0, 1, OK, regWrite, 1), op(2, 3, OK, regBefore, 0), final(1)}, "not linearizable", 0},
		"old plain":         {[]RegisterOp{op(0, 1, OK, regWrite, 1), op(2, 3, OK, regRead, 0), final(1)}, "", 1},
		"unknown late":      {[]RegisterOp{op(0, 1, Unknown, regWrite, 1), op(2, 3, OK, regConfirm, 0), op(4, 5, OK, regConfirm, 1)}, "", 0},
		"unknown never":     {[]RegisterOp{op(0, 1, Unknown, regWrite, 1), final(0)}, "", 0},
		"unknown swap":      {[]RegisterOp{swap(0, 1, Unknown, 0, 1, false), op(2, 3, OK, regConfirm, 1), op(4, 5, OK, regConfirm, 0)}, "not linearizable", 0},
		"swap that did not match": {[]RegisterOp{op(0, 1, OK, regWrite, 1), swap(2, 3, OK, 1, 9, false), final(1)},
			"", 0},
	} {
		t.Run(name, func(t *testing.T) {
			v := CheckRegister(c.ops, time.Minute)
			expect(t, v, c.want)
			if v.Stale != c.stale {
				t.Errorf("%d stale, want %d", v.Stale, c.stale)
			}
		})
	}
}

// Many writes of which nothing is known, at one time, are no burden.
func TestCheckRegisterUnknown(t *testing.T) {
	var ops []RegisterOp
	for i := 1; i <= 60; i++ {
		ops = append(ops, RegisterOp{Call: Call{Start: ms(i), Outcome: Unknown}, Do: regWrite, Value: i})
	}
	ops = append(ops, RegisterOp{Call: Call{Start: ms(100), End: ms(101), Outcome: OK}, Do: regConfirm, Value: 7})
	v := CheckRegister(ops, time.Minute)
	expect(t, v, "")
	if len(v.Undecided) > 0 {
		t.Error(v.Undecided)
	}
	ops = append(ops, RegisterOp{Call: Call{Start: ms(102), End: ms(103), Outcome: OK}, Do: regConfirm, Value: 0})
	expect(t, CheckRegister(ops, time.Minute), "not linearizable")
}
