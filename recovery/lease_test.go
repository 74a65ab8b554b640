package recovery

import (
	"testing"
	"time"

	"cohort/consensus/state"
)

func TestLeased(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(ms int) time.Time { return now.Add(-time.Duration(ms) * time.Millisecond) }
	const normal, fast = 900 * time.Millisecond, 400 * time.Millisecond
	v := func(n int) *state.View {
		v := &state.View{Primary: 1, Epoch: 7}
		for id := range uint64(n) {
			v.Members = append(v.Members, state.Member{ID: id + 1, Incarnation: id + 11, Replica: id + 1, Voter: true, State: state.StateOnline})
		}
		return v
	}
	// says is the answer of a member that follows a leader, asked so long ago.
	says := func(id, leader uint64, ms int) grant {
		return grant{primaryAnswer{Primary: 1, Epoch: 7, Leader: leader, Incarnation: id + 10, Silence: normal}, at(ms)}
	}
	type grants = map[uint64]grant
	with := func(g grant, change func(*grant)) grant { change(&g); return g }
	for name, c := range map[string]struct {
		view   *state.View
		leader uint64
		grants grants
		from   int // ms before now; -1: no lease
		rule   time.Duration
	}{
		"alone":                           {v(1), 1, nil, 0, normal},
		"alone and without a leader":      {v(1), 0, nil, -1, 0},
		"two, the other is silent":        {v(2), 1, nil, -1, 0},
		"two":                             {v(2), 1, grants{2: says(2, 1, 50)}, 50, normal},
		"all answer":                      {v(3), 1, grants{2: says(2, 1, 50), 3: says(3, 1, 80)}, 50, normal},
		"one is unknown and may be fast":  {v(3), 1, grants{2: says(2, 1, 50)}, 50, fast},
		"nobody answers":                  {v(3), 1, nil, -1, 0},
		"five need two others":            {v(5), 1, grants{2: says(2, 1, 50), 3: says(3, 1, 80), 4: says(4, 1, 90), 5: says(5, 1, 99)}, 80, normal},
		"another leads":                   {v(3), 2, grants{2: says(2, 2, 70), 3: says(3, 2, 50)}, 70, normal},
		"and does not answer":             {v(3), 2, grants{3: says(3, 2, 50)}, -1, 0},
		"or not any more":                 {v(3), 2, grants{2: says(2, 2, 5000), 3: says(3, 2, 50)}, 5000, normal},
		"they follow another leader":      {v(3), 1, grants{2: says(2, 3, 50), 3: says(3, 3, 50)}, -1, 0},
		"they have another primary":       {v(3), 1, grants{2: with(says(2, 1, 50), func(g *grant) { g.Primary = 2 })}, -1, 0},
		"of another epoch":                {v(3), 1, grants{2: with(says(2, 1, 50), func(g *grant) { g.Epoch = 8 })}, -1, 0},
		"an earlier life answered":        {v(3), 1, grants{2: with(says(2, 1, 50), func(g *grant) { g.Incarnation = 1 })}, -1, 0},
		"a fast one":                      {v(3), 1, grants{2: with(says(2, 1, 50), func(g *grant) { g.Silence = fast }), 3: says(3, 1, 60)}, 50, fast},
		"a fast one with another primary": {v(3), 1, grants{2: with(says(2, 1, 50), func(g *grant) { g.Silence, g.Primary = fast, 2 }), 3: says(3, 1, 60)}, 60, fast},
		"another is the primary":          {&state.View{Primary: 2, Epoch: 7, Members: v(1).Members}, 1, nil, -1, 0},
		"votes that nobody has claimed":   {&state.View{Primary: 1, Epoch: 7, Members: v(1).Members, Unclaimed: []uint64{2, 3}}, 1, nil, -1, 0},
		"one without a replica":           {func() *state.View { v := v(2); v.Members[1].Replica, v.Members[1].Voter = 0, false; return v }(), 1, nil, 0, normal},
	} {
		t.Run(name, func(t *testing.T) {
			got := leased(c.view, 1, c.leader, now, normal, c.grants)
			want := time.Time{}
			if c.from >= 0 {
				want = at(c.from).Add(lease(c.rule))
			}
			if !got.Equal(want) {
				t.Errorf("until %v, want %v", got, want)
			}
		})
	}
	for _, d := range []Detection{DetectDefault, DetectFast} {
		if lease(d.Silence) > d.Silence-2*d.Heartbeat {
			t.Errorf("%+v: another primary could be appointed within the lease %s", d, lease(d.Silence))
		}
	}
}
