package recovery

import (
	"context"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/mysqld"
)

const (
	// lockPatience is how long the applier waits for a lock before its holder is
	// ended. Well within innodb_lock_wait_timeout, after ten of which the applier
	// stops.
	lockPatience = time.Second
	// promotionPatience is the same while the whole group waits for its primary.
	promotionPatience = 300 * time.Millisecond
	// warnAgain is how often it is said who holds up the applier and is let.
	warnAgain = time.Minute
)

// resolver ends sessions that keep mysqld's applier from a lock (DESIGN §9.5): what
// the group has ordered comes before what somebody does on one member. Neither a
// prepared transaction is touched, which its verdict ends, nor a session of this
// member's own.
//
// A global read lock or a backup lock is taken to hold up writes, by a backup for
// instance: it is let, and said, as long as only this member lags by it.
type resolver struct {
	l        *life
	patience time.Duration
	// all: such locks are in the way of the whole group, and ended as well.
	all bool

	progress uint64    // as it was last
	since    time.Time // then it changed
	looked   time.Time
	// seen is since when each blocker was there at every look, told when it was
	// last said, or killed.
	seen, told map[blocking]time.Time
}

// blocking is a session with a lock.
type blocking struct {
	session uint64
	lock    string
}

func (l *life) newResolver(patience time.Duration, all bool) *resolver {
	r := &resolver{l: l, patience: patience, all: all}
	r.caughtUp()
	return r
}

// caughtUp says that the applier has nothing to do.
func (r *resolver) caughtUp() {
	r.since, r.seen, r.told = time.Now(), nil, make(map[blocking]time.Time)
}

// look is called while there is something to apply, as often as one likes, with
// what changes whenever something was applied. mysqld is asked only once that has
// stood still for a moment. Ends that fail are tried again at the next look.
func (r *resolver) look(ctx context.Context, progress uint64) {
	now := time.Now()
	if progress != r.progress {
		r.progress = progress
		r.caughtUp()
		return
	}
	step := max(r.patience/4, mysqld.BlockersSpacing)
	if now.Sub(r.since) < step || now.Sub(r.looked) < step {
		return
	}
	r.looked = now
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	threads, err := mysqld.ApplierThreads(ctx, r.l.pool)
	var found []mysqld.Blocker
	if err == nil {
		found, err = mysqld.Blockers(ctx, r.l.pool, threads)
	}
	if err != nil {
		r.l.log.Debug().Err(err).Msg("could not find out what the applier waits for")
		return
	}
	seen := make(map[blocking]time.Time, len(found))
	for _, b := range found {
		key := blocking{b.Session, b.Lock}
		first, ok := r.seen[key]
		if !ok {
			first = now
		}
		seen[key] = first
		if now.Sub(first) >= r.patience {
			r.end(ctx, b, key)
		}
	}
	r.seen = seen
}

// end ends a session that is in the way, if it may. What is said of it is not said
// at every look.
func (r *resolver) end(ctx context.Context, b mysqld.Blocker, key blocking) {
	last, told := r.told[key]
	say := !told || time.Since(last) >= warnAgain
	if say {
		r.told[key] = time.Now()
	}
	switch {
	case b.Prepared, b.Session == 0, strings.HasPrefix(b.User, AccountName+"@"):
		if say {
			r.l.log.Info().Str("lock", b.Lock).Bool("prepared", b.Prepared).Msg("the applier waits for a lock whose holder ends by itself")
		}
	case b.Backup && !r.all:
		if say {
			r.l.say(b).Msg("a session keeps this member from applying: it holds a global read lock or a backup lock")
		}
	default:
		if say {
			r.l.say(b).Msg("killing a session: the applier waits for its lock")
		}
		r.l.kill(ctx, b)
	}
}

// say begins a line about a session with a lock.
func (l *life) say(b mysqld.Blocker) *zerolog.Event {
	return l.log.Warn().Uint64("thread", b.Session).Str("user", b.User).Str("statement", b.Statement).Str("lock", b.Lock)
}

func (l *life) kill(ctx context.Context, b mysqld.Blocker) {
	if err := mysqld.KillSession(ctx, l.pool, b.Session); err != nil {
		l.say(b).Err(err).Msg("could not kill it")
	}
}

// dropReadLocks ends sessions that took a global read lock while this member was a
// secondary: no transaction of the group would commit here.
func (l *life) dropReadLocks(ctx context.Context) error {
	held, err := mysqld.GlobalReadLocks(ctx, l.pool)
	for _, b := range held {
		l.say(b).Msg("killing a session: this member becomes the primary, and its global read lock would stop all writes")
		l.kill(ctx, b)
	}
	return err
}
