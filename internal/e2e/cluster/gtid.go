package cluster

import (
	"fmt"
	"strconv"
	"strings"
)

// Interval is a closed range of transaction numbers.
type Interval struct{ From, To uint64 }

// GTIDSet holds intervals by "uuid", or "uuid:tag" for tagged ones.
type GTIDSet map[string][]Interval

// ParseGTIDSet reads the text of gtid_executed:
// uuid[:tag]:n[-m][:n[-m]|:tag:n[-m]]…[,…]
func ParseGTIDSet(text string) (GTIDSet, error) {
	set := GTIDSet{}
	for source := range strings.SplitSeq(text, ",") {
		source = strings.TrimSpace(source)
		if source == "" {
			continue
		}
		parts := strings.Split(source, ":")
		uuid := strings.ToLower(strings.TrimSpace(parts[0]))
		key := uuid
		for _, p := range parts[1:] {
			p = strings.TrimSpace(p)
			if p == "" || p[0] < '0' || p[0] > '9' {
				key = uuid + ":" + p
				continue
			}
			from, to, ranged := strings.Cut(p, "-")
			if !ranged {
				to = from
			}
			a, err := strconv.ParseUint(from, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("cluster: GTID set %q: %w", text, err)
			}
			b, err := strconv.ParseUint(to, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("cluster: GTID set %q: %w", text, err)
			}
			if b < a {
				return nil, fmt.Errorf("cluster: GTID set %q: interval %s", text, p)
			}
			set[key] = append(set[key], Interval{a, b})
		}
	}
	return set, nil
}

// Count is how many transactions the set holds under the key.
func (s GTIDSet) Count(key string) uint64 {
	var n uint64
	for _, i := range s[strings.ToLower(key)] {
		n += i.To - i.From + 1
	}
	return n
}
