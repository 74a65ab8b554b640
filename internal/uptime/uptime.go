// Package uptime reads the clock that nobody can set, as a number that fits into an
// atomic. It owns nothing else. Decisions take it, or a time.Time of time.Now, which
// carries the same reading until it is turned into a number, a zone or a text; which
// places do that is listed in this package's test.
package uptime

import "time"

var began = time.Now()

// Now returns how long this process has known the clock: more than 0, and never less
// than before. It means nothing to another process.
func Now() time.Duration { return time.Since(began) + 1 }

// Of returns what Now returned, or will return, at t, which has to carry a reading.
func Of(t time.Time) time.Duration { return t.Sub(began) + 1 }
