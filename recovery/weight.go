package recovery

import (
	"context"
	"errors"
	"time"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/pause"
)

// ErrActing means that the primary is being changed as planned, which what was asked
// for would interfere with.
var ErrActing = errors.New("recovery: the primary is being changed")

// Acting says that a planned change of the primary is carried out, by this member or
// by another one that has told it.
func (m *Member) Acting() bool {
	m.holds.mu.Lock()
	defer m.holds.mu.Unlock()
	return m.switching.Load() || m.holds.by != "" || m.holds.progress.live(time.Now())
}

// Weight is this member's weight in elections as it was last set.
func (m *Member) Weight() uint64 { return m.weight.Load() }

// SetWeight changes this member's weight in elections. All members elect by what the
// log says, so it returns when that has it; a member without a majority, or out of the
// group, has it ordered later. It fails with ErrActing.
func (m *Member) SetWeight(ctx context.Context, weight uint64) error {
	if m.Acting() {
		return ErrActing
	}
	m.weight.Store(min(weight, state.MaxWeight))
	select {
	case m.weighed <- struct{}{}:
	default:
	}
	for {
		changed := m.opt.Router.Changed()
		me, ok := m.opt.Node.View().Member(m.opt.ReplicaID)
		if !ok || !inGroup(&me) || me.Info.Weight == m.weight.Load() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			m.log.Warn().Uint64("weight", weight).Msg("the group has not ordered this member's new weight yet")
			return nil
		}
	}
}

// followWeight has the log know the weight that was set while this life was joining,
// or since.
func (l *life) followWeight(ctx context.Context) error {
	m := l.m
	for {
		me, _ := m.opt.Node.View().Member(m.opt.ReplicaID)
		if w := m.weight.Load(); me.Incarnation == l.incarnation && me.Info.Weight != w {
			if err := m.opt.Node.SetWeight(ctx, w); err != nil {
				l.log.Debug().Err(err).Msg("this member's weight is not ordered")
				// Without a majority there is none before ctx ends.
				if errors.Is(err, consensus.ErrFenced) || pause.For(ctx, time.Second) != nil {
					return nil
				}
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.weighed:
		}
	}
}
