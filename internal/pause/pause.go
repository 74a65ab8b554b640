// Package pause waits for a while, unless that is cancelled. It owns nothing.
package pause

import (
	"context"
	"time"
)

// For waits for d, or returns why ctx is done before.
func For(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
