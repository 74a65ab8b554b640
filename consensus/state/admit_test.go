package state

import (
	"fmt"
	"testing"
)

// Nine members are a full group; who leaves makes room.
func TestTenthMember(t *testing.T) {
	g := &group{t: t, s: New(), sink: newSums()}
	g.apply(&Bootstrap{GroupName: "g", Lineage: 1, Rules: 1, Primary: 1, Replicas: 1})
	inc := g.apply(&Join{Member: 1, Replica: 1, Nonce: 1, Info: MemberInfo{UUID: "u1"}})
	admit := func(m uint64) uint64 {
		return g.apply(&Admit{Member: m, Nonce: m, UUID: fmt.Sprint("u", m), ServerID: m, Address: fmt.Sprint("a:", m)})
	}
	for m := uint64(2); m <= MaxMembers; m++ {
		if got := admit(m); got != m {
			t.Fatalf("member %d: replica %d", m, got)
		}
	}
	if got := admit(10); got != RefusedFull {
		t.Fatalf("a tenth member: %d", got)
	}
	// A member of the full group that comes back is not a tenth.
	if g.apply(&Evict{Member: 5, Replica: 5}) != 1 || admit(5) != 10 {
		t.Fatal("a member of a full group did not come back")
	}
	if admit(10) != RefusedFull || g.apply(&Evict{Member: 1, Replica: 1, Incarnation: inc}) != 0 {
		t.Fatal("a member that is there was taken out")
	}
	if g.apply(&Evict{Member: 2, Replica: 2}) != 1 || admit(10) != 11 {
		t.Fatal("no room after a member left")
	}
}

// In a group begun with several members those count that have not come yet.
func TestUnclaimedReplicas(t *testing.T) {
	g := newTestGroup(t) // nine replicas, one claimed
	if got := g.apply(&Admit{Member: 20, Nonce: 1, UUID: "x", Address: "x:1"}); got != RefusedFull {
		t.Fatalf("%d", got)
	}
	for m := uint64(2); m <= MaxMembers; m++ {
		g.apply(&Join{Member: m, Replica: m, Nonce: m, Info: MemberInfo{UUID: fmt.Sprint("u", m)}})
	}
	if v := g.s.View(); len(v.Unclaimed) != 0 || len(v.Members) != MaxMembers {
		t.Fatalf("%+v", v)
	}
	if got := g.apply(&Join{Member: 20, Replica: 3, Nonce: 1}); got != RefusedNotAdmitted {
		t.Fatalf("a replica was claimed twice: %d", got)
	}
}
