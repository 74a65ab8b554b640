package mysqld

import (
	"runtime"
	"sync"
)

// The kernel sends the parent-death signal when the thread that started the
// child ends, not the process. So such children are started by one goroutine
// that keeps its thread for the life of the process; the process owns it.
var (
	lastingOnce sync.Once
	lastingJobs chan func()
)

func onLastingThread(f func() error) error {
	lastingOnce.Do(func() {
		lastingJobs = make(chan func())
		go func() {
			runtime.LockOSThread()
			for job := range lastingJobs {
				job()
			}
		}()
	})
	errs := make(chan error, 1)
	lastingJobs <- func() { errs <- f() }
	return <-errs
}
