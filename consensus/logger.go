package consensus

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lni/dragonboat/v4/logger"
	"github.com/rs/zerolog"
)

var (
	logOnce sync.Once
	logTo   atomic.Pointer[zerolog.Logger]
)

// elections are parts of the formats of what dragonboat's raft package warns of
// in every election, also in one that was asked for. A group that does lose its
// quorum or drops proposals is warned of in other words.
var elections = []string{
	"became candidate", "became PreVote candidate",
	"sent RequestVote ", "sent RequestPreVote ",
	"cast vote ", "cast preVote ", "rejected vote ", "rejected preVote ",
	"received %s rejection from %s", "received %s from %s", // answers to these
	" votes and %d rejections", " preVotes and %d rejections",
	"dropped RequestVote at term", "dropped ReadIndex, no leader", "dropped read index, no leader", "with higher term (%d) from", "after receiving higher term from",
}

// ordinary reports whether a warning of dragonboat's is none to us.
func ordinary(pkg, format string) bool {
	switch pkg {
	case "raft":
		return slices.ContainsFunc(elections, func(s string) bool { return strings.Contains(format, s) })
	case "config":
		// Said in our own words when a node starts.
		return strings.HasPrefix(format, "mutual TLS disabled")
	}
	return false
}

// setRaftLogger routes dragonboat's log to l. Dragonboat has one logger factory
// per process, to be set once before anything logs; the destination can follow.
func setRaftLogger(l zerolog.Logger) {
	logTo.Store(&l)
	logOnce.Do(func() {
		logger.SetLoggerFactory(func(pkg string) logger.ILogger { return raftLogger{pkg} })
	})
}

// raftLogger writes warnings and worse. What dragonboat calls information is
// debugging to us, and so are warnings about what is no cause for alarm.
type raftLogger struct{ pkg string }

func (raftLogger) SetLevel(logger.LogLevel) {}

func (raftLogger) Debugf(string, ...any) {}

func (r raftLogger) Infof(format string, args ...any) {
	l := logTo.Load()
	if e := l.Debug(); e.Enabled() {
		e.Str("raft", r.pkg).Msgf(format, args...)
	}
}

func (r raftLogger) Warningf(format string, args ...any) {
	if ordinary(r.pkg, format) {
		r.Infof(format, args...)
		return
	}
	logTo.Load().Warn().Str("raft", r.pkg).Msgf(format, args...)
}

func (r raftLogger) Errorf(format string, args ...any) {
	logTo.Load().Error().Str("raft", r.pkg).Msgf(format, args...)
}

// Panicf panics, as its callers rely on.
func (r raftLogger) Panicf(format string, args ...any) {
	logTo.Load().Panic().Str("raft", r.pkg).Msgf(format, args...)
}
