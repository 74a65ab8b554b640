package failover

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"cohort/internal/loadgen"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err   error
		want  outcome
		errno uint16
	}{
		{nil, acked, 0},
		{&loadgen.ServerError{Number: 1213}, refused, 1213},
		{&loadgen.ServerError{Number: 3101}, refused, 3101},
		{&loadgen.ServerError{Number: 1290}, refused, 1290},
		{&loadgen.ServerError{Number: 1180}, unknown, 1180},
		{errors.New("connection reset"), unknown, lostConnection},
	} {
		if what, errno := classify(c.err); what != c.want || errno != c.errno {
			t.Errorf("%v: %v, %d", c.err, what, errno)
		}
	}
}

func TestGap(t *testing.T) {
	base := time.Unix(1000, 0)
	at := func(ms int) time.Time { return base.Add(time.Duration(ms) * time.Millisecond) }
	record := func(ms ...int) []write {
		var writes []write
		for _, m := range ms {
			w := write{answered: at(m), outcome: acked}
			if m < 0 { // an error at that time
				w = write{answered: at(-m), outcome: unknown}
			}
			writes = append(writes, w)
		}
		return writes
	}
	for name, c := range map[string]struct {
		writes      []write
		from, until int
		want        int
		ok          bool
	}{
		"from the last one before":           {record(0, 10, 500, 510), 20, 1000, 490, true},
		"the longest of several":             {record(0, 110, 120, 620, 630), 5, 1000, 500, true},
		"errors are no acknowledgements":     {record(0, -100, -200, 300), 50, 1000, 300, true},
		"an earlier gap does not count":      {record(0, 900, 910, 920), 905, 1000, 10, true},
		"a later one does not either":        {record(0, 10, 20, 900), 5, 100, 10, true},
		"none after the fault":               {record(0, 10, -50), 20, 1000, 0, false},
		"none before: from the fault itself": {record(300), 100, 1000, 200, true},
		"nothing at all":                     {nil, 0, 1000, 0, false},
	} {
		got, ok := gap(c.writes, at(c.from), at(c.until))
		if got != time.Duration(c.want)*time.Millisecond || ok != c.ok {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
}

func TestAudit(t *testing.T) {
	writes := []write{{outcome: acked}, {outcome: acked}, {outcome: acked}, {outcome: refused}, {outcome: refused}, {outcome: unknown}, {outcome: unknown}}
	good := map[int64]int{1: 1, 2: 1, 3: 1, 6: 1}
	got := audit(writes, []Contents{{"a", good}, {"b", good}})
	if want := (Audit{Acked: 3, Refused: 2, Unknown: 2, Written: 1}); got != want || got.Wrong() {
		t.Errorf("nothing is wrong: %+v", got)
	}
	for name, c := range map[string]struct {
		b    map[int64]int
		want Audit
	}{
		"lost on one":     {map[int64]int{1: 1, 3: 1, 6: 1}, Audit{Lost: 1, Differ: 1}},
		"doubled on one":  {map[int64]int{1: 1, 2: 2, 3: 1, 6: 1}, Audit{Doubled: 1, Differ: 1}},
		"refused, there":  {map[int64]int{1: 1, 2: 1, 3: 1, 4: 1, 6: 1}, Audit{Ghosts: 1, Differ: 1}},
		"never made":      {map[int64]int{1: 1, 2: 1, 3: 1, 6: 1, 99: 1}, Audit{Ghosts: 1}},
		"unknown differs": {map[int64]int{1: 1, 2: 1, 3: 1}, Audit{Differ: 1}},
	} {
		got := audit(writes, []Contents{{"a", good}, {"b", c.b}})
		c.want.Acked, c.want.Refused, c.want.Unknown, c.want.Written = 3, 2, 2, 1
		if !reflect.DeepEqual(got, c.want) || !got.Wrong() {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
