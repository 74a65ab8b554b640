package router

import (
	"math"
	"testing"
)

func TestXIDRoundTrip(t *testing.T) {
	// More lives than anybody will start, every transaction that can be counted.
	id := NewXID("0123456789ab-cdef", 1<<33, math.MaxUint64)
	if len(id) > 64 {
		t.Fatalf("gtrid has %d bytes, MySQL takes 64", len(id))
	}
	x, err := ParseXID(id)
	if err != nil || x.Member != "01234567" || x.Incarnation != 1<<33 || x.Counter != math.MaxUint64 || len(x.Random) != 16 {
		t.Fatalf("%q parsed as %+v, %v", id, x, err)
	}
	for _, bad := range []string{"", "x", "cohort.a.b.c.d", "cohort.a.1.2", "cohort.a.1.c.d", "other.a.1.2.3"} {
		if _, err := ParseXID(bad); err == nil {
			t.Errorf("ParseXID(%q) did not fail", bad)
		}
	}
	if one, other := NewXID("a", 1, 1), NewXID("a", 1, 1); one == other {
		t.Error("two xids are equal")
	}
}
