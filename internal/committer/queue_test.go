package committer

import (
	"sync"
	"testing"
)

// Jobs go out in order, to whoever began to wait last.
func TestQueue(t *testing.T) {
	var q queue
	q.push([]Job{{N: 1}, {N: 2}})
	a, b := newTaker(), newTaker()
	for want := uint64(1); want <= 2; want++ {
		if j, ok := q.pop(a); !ok || j.N != want {
			t.Fatalf("%+v %t, want %d", j, ok, want)
		}
	}
	q.idle = []taker{a, b} // as their pops leave them
	q.push([]Job{{N: 3}, {N: 4}, {N: 5}})
	if j := <-b; j.N != 3 {
		t.Errorf("the last one to wait got %+v", j)
	}
	if j := <-a; j.N != 4 {
		t.Errorf("the first one to wait got %+v", j)
	}
	if j, ok := q.pop(a); !ok || j.N != 5 || q.len() != 0 {
		t.Errorf("%+v %t", j, ok)
	}
	q.idle = []taker{a}
	q.push([]Job{{N: 6}})
	q.push([]Job{{N: 7}})
	q.close()
	q.close()
	q.push([]Job{{N: 8}})
	if j, ok := <-a; !ok || j.N != 6 {
		t.Errorf("a job that was handed over: %+v %t", j, ok)
	}
	if j, ok := q.pop(b); ok {
		t.Errorf("%+v from a closed queue", j)
	}
}

// Every job reaches one of many takers, and a closed queue lets all of them go.
func TestQueueManyTakers(t *testing.T) {
	const jobs = 1000
	var q queue
	var mu sync.Mutex
	seen := make(map[uint64]int)
	var wg, done sync.WaitGroup
	done.Add(jobs)
	for range 16 {
		wg.Go(func() {
			for me := newTaker(); ; {
				j, ok := q.pop(me)
				if !ok {
					return
				}
				mu.Lock()
				seen[j.N]++
				mu.Unlock()
				done.Done()
			}
		})
	}
	for n := uint64(0); n < jobs; n += 4 {
		q.push([]Job{{N: n}, {N: n + 1}, {N: n + 2}, {N: n + 3}})
	}
	done.Wait()
	q.close()
	wg.Wait()
	for n := range uint64(jobs) {
		if seen[n] != 1 {
			t.Errorf("job %d was done %d times", n, seen[n])
		}
	}
}
