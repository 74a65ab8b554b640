package mysqld

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ErrGTIDSet says that a text is no GTID set that can be used here.
var ErrGTIDSet = errors.New("malformed GTID set")

// maxExtra bounds the numbers above a hole that a set may hold. More means that
// the server's data are not this group's.
const maxExtra = 1 << 20

// GroupSet is which transactions of one group (uuid without a tag) a GTID set
// holds: 1..Low and, above, Extra in rising order. Low+1 is never in it.
type GroupSet struct {
	Low   uint64
	Extra []uint64
}

// Last is the highest number in the set, 0 if it is empty.
func (s GroupSet) Last() uint64 {
	if n := len(s.Extra); n > 0 {
		return s.Extra[n-1]
	}
	return s.Low
}

// Has reports whether number n is in the set.
func (s GroupSet) Has(n uint64) bool {
	if n <= s.Low {
		return n > 0
	}
	_, ok := slices.BinarySearch(s.Extra, n)
	return ok
}

// ParseGroupSet takes the numbers of one uuid out of a GTID set in MySQL's
// text form: uuid[:tag]:first[-last][:...] and commas. Numbers under a tag are
// not the group's. Errors wrap ErrGTIDSet.
func ParseGroupSet(set, uuid string) (GroupSet, error) {
	type interval struct{ first, last uint64 }
	var in []interval
	for sid := range strings.SplitSeq(set, ",") {
		sid = strings.TrimSpace(sid)
		if sid == "" {
			continue
		}
		parts := strings.Split(sid, ":")
		if len(parts) < 2 {
			return GroupSet{}, fmt.Errorf("%w: %q", ErrGTIDSet, sid)
		}
		mine := strings.EqualFold(strings.TrimSpace(parts[0]), uuid)
		tagged := false
		for _, p := range parts[1:] {
			p = strings.TrimSpace(p)
			if p == "" {
				return GroupSet{}, fmt.Errorf("%w: %q", ErrGTIDSet, sid)
			}
			// A tag begins with a letter or underscore and holds for what
			// follows it.
			if c := p[0] | 0x20; c >= 'a' && c <= 'z' || p[0] == '_' {
				tagged = true
				continue
			}
			first, last, ok := strings.Cut(p, "-")
			if !ok {
				last = first
			}
			a, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 63)
			b, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 63)
			if err1 != nil || err2 != nil || a == 0 || b < a || b == math.MaxInt64 {
				return GroupSet{}, fmt.Errorf("%w: interval %q", ErrGTIDSet, p)
			}
			if mine && !tagged {
				in = append(in, interval{a, b})
			}
		}
	}
	slices.SortFunc(in, func(a, b interval) int {
		if a.first < b.first {
			return -1
		}
		if a.first > b.first {
			return 1
		}
		return 0
	})
	var s GroupSet
	high := uint64(0)
	for _, i := range in {
		if i.first <= s.Low+1 && len(s.Extra) == 0 {
			s.Low = max(s.Low, i.last)
			high = s.Low
			continue
		}
		from := max(i.first, high+1)
		if i.last < from {
			continue
		}
		if i.last-from >= maxExtra || len(s.Extra) >= maxExtra {
			return GroupSet{}, fmt.Errorf("%w: more than %d numbers of %s above a hole", ErrGTIDSet, maxExtra, uuid)
		}
		for n := from; n <= i.last; n++ {
			s.Extra = append(s.Extra, n)
		}
		high = i.last
	}
	return s, nil
}

// GTIDExecuted returns @@gtid_executed, in one line.
func GTIDExecuted(ctx context.Context, q Querier) (string, error) {
	var set string
	if err := q.QueryRowContext(ctx, "SELECT @@GLOBAL.gtid_executed").Scan(&set); err != nil {
		return "", fmt.Errorf("read gtid_executed: %w", err)
	}
	return strings.ReplaceAll(set, "\n", ""), nil
}

// GroupExecuted returns which transactions of the group this mysqld has.
func GroupExecuted(ctx context.Context, q Querier, group string) (GroupSet, error) {
	set, err := GTIDExecuted(ctx, q)
	if err != nil {
		return GroupSet{}, err
	}
	return ParseGroupSet(set, group)
}

// LocalExecuted returns what this mysqld has executed beside the group's
// transactions.
func LocalExecuted(ctx context.Context, q Querier, group string) (string, error) {
	var set string
	err := q.QueryRowContext(ctx, "SELECT GTID_SUBTRACT(@@GLOBAL.gtid_executed, ?)", group+":1-9223372036854775806").Scan(&set)
	if err != nil {
		return "", fmt.Errorf("read gtid_executed: %w", err)
	}
	return strings.ReplaceAll(set, "\n", ""), nil
}
