package committer

import "sync"

// queue is an unbounded first-in first-out queue of jobs for many takers. Of those
// that wait, the one that came last gets the next job: its connection, and the
// thread of mysqld behind that, are the warmest, and connections that were never
// needed are never opened.
type queue struct {
	mu     sync.Mutex
	jobs   []Job
	head   int
	idle   []taker // nobody waits while there are jobs
	closed bool
}

// taker is where one worker waits; capacity 1. It is closed with the queue.
type taker chan Job

func newTaker() taker { return make(taker, 1) }

func (q *queue) push(jobs []Job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	for len(jobs) > 0 && len(q.idle) > 0 {
		last := len(q.idle) - 1
		q.idle[last] <- jobs[0]
		q.idle, jobs = q.idle[:last], jobs[1:]
	}
	q.jobs = append(q.jobs, jobs...)
}

// pop waits for a job; false means that the queue is closed.
func (q *queue) pop(t taker) (Job, bool) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return Job{}, false
	}
	if q.head == len(q.jobs) {
		q.idle = append(q.idle, t)
		q.mu.Unlock()
		job, ok := <-t
		return job, ok
	}
	defer q.mu.Unlock()
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

// close drops what is queued. A job that was handed over is still done.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed = true
	for _, t := range q.idle {
		close(t)
	}
	q.idle = nil
}
