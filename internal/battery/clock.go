package battery

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cohort/internal/mysqld"
)

// clockMysqld finds a mysqld whose clock can be set.
func clockMysqld(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // it may be fetched
	defer cancel()
	in, err := mysqld.Find(ctx, mysqld.FindOptions{With: []string{mysqld.WithClock}})
	if err != nil {
		return "", err
	}
	return in.Program(mysqld.ClockMysqld)
}

// jumps are what clocks are set by.
var jumps = []time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -10 * time.Minute}

// wallClock is that of one mysqld, see mysqld.ClockMysqld. The machine's and cohort's own
// stay as they are; a mysqld that is started again finds its clock as it was set.
type wallClock struct{ dir string }

// set has the clock be off by so much, within a second.
func (c *wallClock) set(by time.Duration) error {
	at := filepath.Join(c.dir, "clock")
	// Replaced and not written: it may be read at any moment, and must not fill up a disk.
	if err := os.WriteFile(at+".new", fmt.Appendf(nil, "%+d\n", int(by.Seconds())), 0o600); err != nil {
		return err
	}
	return os.Rename(at+".new", at)
}
