package peer

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

func contactOf(t *testing.T, f *follower) Contact {
	t.Helper()
	c, ok := f.Contact()
	if !ok {
		t.Fatal("no contact")
	}
	return c
}

// A process that ends is known by its port; one that comes back by what it says.
func TestContactRefused(t *testing.T) {
	_, target, stop := server(t, nil)
	f := follow(t, target, nil)
	eventually(t, "up", f.Up)
	if c := contactOf(t, f); c.Refused || c.Target != target {
		t.Fatalf("%+v", c)
	}
	stop()
	eventually(t, "refused", func() bool { return contactOf(t, f).Refused })
	heard := contactOf(t, f).Heard
	ln, err := net.Listen("tcp", target.Addr)
	if err != nil {
		t.Fatal(err)
	}
	server(t, func(o *Options) { o.Listener, o.Token = ln, target.Token })
	f.Kick()
	eventually(t, "heard again", func() bool { c := contactOf(t, f); return !c.Refused && c.Heard.After(heard) })
}

// Nobody has ever listened there: that is no evidence that somebody died.
func TestContactNeverUp(t *testing.T) {
	_, target, stop := server(t, nil)
	stop()
	var attempts atomic.Int32
	f := follow(t, target, func(o *SubscriberOptions) {
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			attempts.Add(1)
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	})
	eventually(t, "some attempts", func() bool { return attempts.Load() > 3 })
	if c := contactOf(t, f); c.Refused || c.Heard.IsZero() {
		t.Fatalf("%+v", c)
	}
	// It is elsewhere: everything is measured anew.
	old := contactOf(t, f).Heard
	moved := target
	moved.Token = NewToken()
	f.target.Store(&moved)
	f.Kick()
	eventually(t, "the new target", func() bool { c := contactOf(t, f); return c.Target == moved && c.Heard.After(old) })
}

// A connection that is up and brings nothing does not count as contact.
func TestContactSilence(t *testing.T) {
	_, target, _ := server(t, func(o *Options) { o.Heartbeat = time.Hour })
	f := follow(t, target, func(o *SubscriberOptions) { o.Heartbeat = 10 * time.Millisecond })
	// The greeting, the first applied set and the first heartbeat come at once.
	eventually(t, "silence", func() bool { return f.Up() && time.Since(contactOf(t, f).Heard) > 300*time.Millisecond })
	if c := contactOf(t, f); c.Refused {
		t.Fatalf("%+v", c)
	}
}

// A process that is to give no sign of life gives none, whoever connects again.
func TestContactNotAlive(t *testing.T) {
	var dead atomic.Bool
	_, target, _ := server(t, func(o *Options) { o.Heartbeat, o.Alive = 10*time.Millisecond, func() bool { return !dead.Load() } })
	f := follow(t, target, func(o *SubscriberOptions) { o.Timeout, o.Heartbeat = 200*time.Millisecond, 10*time.Millisecond })
	eventually(t, "up", f.Up)
	dead.Store(true)
	// Longer than a connection lasts in silence.
	eventually(t, "silence", func() bool { return time.Since(contactOf(t, f).Heard) > time.Second })
	if c := contactOf(t, f); c.Refused {
		t.Fatalf("%+v", c)
	}
	dead.Store(false)
	eventually(t, "heard again", func() bool { return f.Up() && time.Since(contactOf(t, f).Heard) < time.Second })
}

// Other errors than a refused connection prove nothing.
func TestContactOtherErrors(t *testing.T) {
	_, target, stop := server(t, nil)
	broken := errors.New("no route")
	var fail atomic.Bool
	var attempts atomic.Int32
	f := follow(t, target, func(o *SubscriberOptions) {
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if fail.Load() {
				attempts.Add(1)
				return nil, broken
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	})
	eventually(t, "up", f.Up)
	fail.Store(true)
	stop()
	eventually(t, "some attempts", func() bool { return attempts.Load() > 3 })
	if c := contactOf(t, f); c.Refused {
		t.Fatalf("%+v", c)
	}
}
