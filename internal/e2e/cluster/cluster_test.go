package cluster

import "testing"

func TestOnline(t *testing.T) {
	one, two := Member{State: "ONLINE", Role: "PRIMARY"}, Member{State: "ONLINE", Role: "SECONDARY"}
	for name, c := range map[string]struct {
		members []Member
		want    bool
	}{
		"all":                  {[]Member{two, one, two}, true},
		"alone":                {[]Member{one}, true},
		"one recovers":         {[]Member{one, two, {State: "RECOVERING"}}, false},
		"no primary":           {[]Member{two, two}, false},
		"a primary was missed": {[]Member{one, two, one}, false},
		"nobody":               {nil, false},
	} {
		if got := online(c.members); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
