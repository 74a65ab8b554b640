package recovery

import (
	"context"
	"errors"
	"fmt"

	"cohort/consensus/state"
)

var (
	// ErrTarget means that a member cannot become the primary now.
	ErrTarget = errors.New("recovery: this member cannot become the primary")
	// ErrOvertaken means that something else decided who is the primary.
	ErrOvertaken = errors.New("recovery: another change of the primary came first")
)

// smallBacklog is how many transactions a member may lack when it is appointed:
// it applies them in a moment, while writes wait.
const smallBacklog = 200

// SwitchPrimary makes the member with the server_uuid given the primary and
// returns when it takes writes. It may be called on any member. The former
// primary goes on taking writes until the other has nearly everything.
func (m *Member) SwitchPrimary(ctx context.Context, target string) error {
	var v *state.View
	for {
		v = m.opt.Node.View()
		t, ok := v.MemberByUUID(target)
		switch {
		case !ok:
			return fmt.Errorf("%w: the group has no member %s", ErrTarget, target)
		case t.State != state.StateOnline:
			return fmt.Errorf("%w: %s is %s", ErrTarget, target, t.State)
		}
		if v.Primary == t.ID {
			return m.waitOpen(ctx, t.ID, v.Epoch)
		}
		if m.opt.Router.Tracker(t.ID).Low()+smallBacklog >= m.opt.Node.LastN() {
			if _, err := m.opt.Node.AppointPrimary(ctx, t.ID, v.Epoch); err != nil {
				return fmt.Errorf("appoint %s: %w", target, err)
			}
			return m.waitOpen(ctx, t.ID, v.Epoch+1)
		}
		if err := pause(ctx, pollBehind); err != nil {
			return fmt.Errorf("%s has not applied enough: %w", target, err)
		}
	}
}

// waitOpen waits until a member is open as the primary of an epoch.
func (m *Member) waitOpen(ctx context.Context, id, epoch uint64) error {
	for {
		changed := m.opt.Router.Changed()
		v := m.opt.Node.View()
		t, _ := v.Member(id)
		switch {
		case v.Primary != id || v.Epoch != epoch:
			return fmt.Errorf("%w: member %d is the primary of epoch %d", ErrOvertaken, v.Primary, v.Epoch)
		case t.OpenEpoch == epoch && t.State == state.StateOnline:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is appointed and not open yet: %w", t.Info.UUID, context.Cause(ctx))
		case <-changed:
		}
	}
}
