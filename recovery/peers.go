package recovery

import (
	"context"
	"sync"

	"cohort/internal/applied"
	"cohort/internal/peer"
)

// subscribers are the channels to the other members, by replica id.
type subscribers struct{ byID sync.Map }

func (s *subscribers) get(id uint64) *peer.Subscriber {
	if v, ok := s.byID.Load(id); ok {
		return v.(*peer.Subscriber)
	}
	return nil
}

// tellPrepared is the router's teller: such words go over the members' channel.
func (m *Member) tellPrepared(primary uint64, xid string) {
	if s := m.subs.get(primary); s != nil {
		s.Notify(xid)
	}
}

// followPeers keeps one subscriber for each other member of the view, so that
// this member knows what is visible on every mysqld.
func (m *Member) followPeers(ctx context.Context) error {
	m.opt.Router.SetTeller(m.tellPrepared)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		changed := m.opt.Router.Changed()
		for _, member := range m.opt.Node.View().Members {
			id := member.ID
			if id == m.opt.ReplicaID {
				continue
			}
			if s := m.subs.get(id); s != nil {
				s.Kick()
				continue
			}
			tracker := m.opt.Router.Tracker(id)
			s := peer.NewSubscriber(peer.SubscriberOptions{
				Self:      m.opt.UUID,
				Target:    func() (peer.Target, bool) { return m.peerTarget(id) },
				OnApplied: func(u applied.Update) { follow(tracker, u) },
				OnDown:    func(error) { m.parted(id) },
				TLS:       m.opt.TLS.Clients(),
				Heartbeat: m.detection().Heartbeat,
				Logger:    m.log.With().Str("component", "peer").Logger(),
			})
			tracker.OnWait(s.Attend)
			m.subs.byID.Store(id, s)
			wg.Go(func() { _ = s.Run(ctx) }) // ends with ctx only
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// patient reports whether nobody at a member waits for what this one orders: the
// primary waits for it itself, and who waits at another one says so to the primary.
func (m *Member) patient(id uint64) bool {
	v := m.opt.Node.View()
	o, ok := v.Member(id)
	return ok && v.Primary == m.opt.ReplicaID && !m.peers.Attended(o.Info.UUID)
}

func (m *Member) peerTarget(id uint64) (peer.Target, bool) {
	v, ok := m.opt.Node.View().Member(id)
	if !ok || v.Replica == 0 || v.Info.PeerAddress == "" {
		return peer.Target{}, false
	}
	return targetOf(&v), true
}

// follow puts a peer's news into the tracker kept for it.
func follow(t *applied.Tracker, u applied.Update) {
	if !u.Reset {
		for _, r := range u.Ranges {
			t.AddRange(r.From, r.To)
		}
		return
	}
	fresh := applied.New(applied.Set{})
	for _, r := range u.Ranges {
		fresh.AddRange(r.From, r.To)
	}
	t.Reset(fresh.Snapshot())
}
