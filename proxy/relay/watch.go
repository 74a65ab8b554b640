package relay

import (
	"context"
	"net"
	"sync"
	"time"
)

// Watch notices, from outside, that a client went away while the backend works
// for it, and that a backend closed while its client was idle. Sessions pay two
// counter increments a command for it; Watch itself makes one cheap system call
// per session and interval, and none for sessions that were active meanwhile.
type Watch struct {
	interval time.Duration
	mu       sync.Mutex
	all      map[*Watched]struct{}
}

// Watched is one relay under watch.
type Watched struct {
	w   *Watch
	r   *Relay
	raw net.Conn
	ev  WatchEvents

	// Owned by Run.
	seen  uint64
	fired uint64 // value of active+1 that an event was reported for
}

// WatchEvents are called on Watch's goroutine and must not block. Each is called
// at most once a command or idle period. A call may be late: the relay may have
// moved on by then.
type WatchEvents struct {
	// ClientGone: the client closed while the backend has been working for at
	// least one interval. Kill what it does.
	ClientGone func()
	// BackendGone: the backend closed while the client was idle.
	BackendGone func()
}

// NewWatch makes a Watch that looks every interval, 0 for one second.
func NewWatch(interval time.Duration) *Watch {
	if interval <= 0 {
		interval = time.Second
	}
	return &Watch{interval: interval, all: make(map[*Watched]struct{})}
}

// Add puts r under watch until Remove.
func (w *Watch) Add(r *Relay, ev WatchEvents) *Watched {
	x := &Watched{w: w, r: r, raw: r.Client.RawConn(), ev: ev, seen: r.active.Load()}
	w.mu.Lock()
	w.all[x] = struct{}{}
	w.mu.Unlock()
	return x
}

// Remove ends the watch. An event may still be under way when it returns.
func (x *Watched) Remove() {
	x.w.mu.Lock()
	delete(x.w.all, x)
	x.w.mu.Unlock()
}

// Run looks until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	t := time.NewTicker(w.interval)
	defer t.Stop()
	var list []*Watched
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		list = list[:0]
		w.mu.Lock()
		for x := range w.all {
			list = append(list, x)
		}
		w.mu.Unlock()
		for _, x := range list {
			x.look()
		}
		clear(list)
	}
}

func (x *Watched) look() {
	now := x.r.active.Load()
	if now != x.seen {
		x.seen = now
		return
	}
	if x.fired == now+1 {
		return
	}
	working := now%2 == 1
	switch {
	case working && x.ev.ClientGone != nil && hungUp(x.raw):
		x.fired = now + 1
		x.ev.ClientGone()
	case !working && x.ev.BackendGone != nil:
		if raw := x.r.rawBack.Load(); raw != nil && hungUp(*raw) {
			x.fired = now + 1
			x.ev.BackendGone()
		}
	}
}
