package committer

import "sync"

// queue is an unbounded first-in first-out queue of jobs for many takers.
type queue struct {
	mu     sync.Mutex
	cond   *sync.Cond
	jobs   []Job
	head   int
	closed bool
}

func (q *queue) init() { q.cond = sync.NewCond(&q.mu) }

func (q *queue) push(jobs []Job) {
	if len(jobs) == 0 {
		return
	}
	q.mu.Lock()
	q.jobs = append(q.jobs, jobs...)
	q.mu.Unlock()
	if len(jobs) == 1 {
		q.cond.Signal()
		return
	}
	q.cond.Broadcast()
}

// pop waits for a job; false means that the queue is closed.
func (q *queue) pop() (Job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.head == len(q.jobs) && !q.closed {
		q.cond.Wait()
	}
	if q.closed {
		return Job{}, false
	}
	job := q.jobs[q.head]
	q.jobs[q.head] = Job{}
	q.head++
	if q.head == len(q.jobs) {
		q.jobs, q.head = q.jobs[:0], 0
	}
	return job, true
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.jobs) - q.head
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.cond.Broadcast()
}
