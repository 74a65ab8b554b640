package consensus

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"cohort/consensus/state"
)

// BenchmarkSubmit measures from Submit to the Observer's call with a number of
// sessions that each wait for their verdict, on the leader and on a follower,
// three nodes in one process with fsync.
func BenchmarkSubmit(b *testing.B) {
	for _, where := range []string{"leader", "follower"} {
		for _, sessions := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("%s/%d", where, sessions), func(b *testing.B) {
				benchSubmit(b, where == "leader", sessions, 500)
			})
		}
	}
}

func benchSubmit(b *testing.B, atLeader bool, sessions, size int) {
	c := newCluster(b, 3, nil)
	c.found()
	m := c.members[0]
	target := uint64(1)
	if !atLeader {
		target = 2
	}
	if err := m.node.TransferLeader(c.ctx(), target); err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex
	waiting := make(map[string]chan struct{})
	hook := func(ds []state.Decision) {
		mu.Lock()
		defer mu.Unlock()
		for _, d := range ds {
			if ch := waiting[d.XID]; ch != nil {
				close(ch)
				delete(waiting, d.XID)
			}
		}
	}
	m.rec.mu.Lock()
	m.rec.hook = hook
	m.rec.mu.Unlock()
	body := make([]byte, size)
	var submit sync.Mutex
	seq := 0
	lat := make([][]time.Duration, sessions)
	b.ResetTimer()
	start := time.Now()
	var wg sync.WaitGroup
	for s := range sessions {
		wg.Go(func() {
			for range (b.N + sessions - 1) / sessions {
				ch := make(chan struct{})
				t0 := time.Now()
				submit.Lock()
				seq++
				xid := fmt.Sprintf("cohort.%d", seq)
				mu.Lock()
				waiting[xid] = ch
				mu.Unlock()
				err := m.node.Submit(c.ctx(), proposal(xid, 0, uint64(seq), body))
				submit.Unlock()
				if err != nil {
					b.Error(err)
					return
				}
				<-ch
				lat[s] = append(lat[s], time.Since(t0))
			}
		})
	}
	wg.Wait()
	el := time.Since(start)
	all := slices.Concat(lat...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/el.Seconds(), "tx/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

func BenchmarkReadIndex(b *testing.B) {
	for _, readers := range []int{1, 64} {
		b.Run(fmt.Sprint(readers), func(b *testing.B) {
			c := newCluster(b, 3, nil)
			c.found()
			m := c.members[0]
			if err := m.node.TransferLeader(c.ctx(), 2); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			var wg sync.WaitGroup
			ctx := c.ctx()
			for range readers {
				wg.Go(func() {
					for range (b.N + readers - 1) / readers {
						if _, err := m.node.ReadIndex(ctx); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
