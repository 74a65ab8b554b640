package transport

import (
	"context"
	"slices"
	"testing"

	"github.com/lni/dragonboat/v4/raftpb"
)

func replicate(index, commit uint64, entries int) raftpb.MessageBatch {
	b := heartbeat(1, 2)
	m := &b.Requests[0]
	m.Type, m.LogIndex, m.LogTerm, m.Commit = raftpb.Replicate, index, 3, commit
	for i := range entries {
		m.Entries = append(m.Entries, raftpb.Entry{Index: index + 1 + uint64(i), Term: 3})
	}
	return b
}

// What a message says of the commit index waits for the next message and is left out
// where that one says it too; nothing else is left out, and nothing overtakes.
func TestDeferCommitIndex(t *testing.T) {
	t.Parallel()
	later := func(f func(m *raftpb.Message)) raftpb.MessageBatch {
		b := replicate(10, 10, 1)
		f(&b.Requests[0])
		return b
	}
	for _, c := range []struct {
		name string
		next raftpb.MessageBatch
		want []raftpb.MessageType
	}{
		{"the next entry", replicate(10, 10, 1), []raftpb.MessageType{raftpb.Replicate}},
		{"the next entry, more committed", replicate(10, 11, 1), []raftpb.MessageType{raftpb.Replicate}},
		{"less committed", replicate(10, 9, 1), []raftpb.MessageType{raftpb.Replicate, raftpb.Replicate}},
		{"another place", replicate(11, 11, 1), []raftpb.MessageType{raftpb.Replicate, raftpb.Replicate}},
		{"another term", later(func(m *raftpb.Message) { m.Term++ }), []raftpb.MessageType{raftpb.Replicate, raftpb.Replicate}},
		{"another term of the entry", later(func(m *raftpb.Message) { m.LogTerm++ }), []raftpb.MessageType{raftpb.Replicate, raftpb.Replicate}},
		{"another replica's", later(func(m *raftpb.Message) { m.To++ }), []raftpb.MessageType{raftpb.Replicate, raftpb.Replicate}},
		{"another leader's", later(func(m *raftpb.Message) { m.From++ }), []raftpb.MessageType{raftpb.Replicate, raftpb.Replicate}},
		{"a heartbeat", heartbeat(1, 2), []raftpb.MessageType{raftpb.Replicate, raftpb.Heartbeat}},
	} {
		l := newLinkToNowhere(t)
		if b, now := l.deferred.put(replicate(10, 10, 0), true); now {
			t.Fatalf("%s: sent at once: %+v", c.name, b)
		}
		b, now := l.deferred.put(c.next, true)
		var got []raftpb.MessageType
		for _, m := range b.Requests {
			got = append(got, m.Type)
		}
		if !now || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v %v, want %v", c.name, now, got, c.want)
		}
		if l.deferred.held {
			t.Errorf("%s: still held", c.name)
		}
	}

	l := newLinkToNowhere(t)
	l.deferred.put(replicate(10, 10, 0), true)
	if _, now := l.deferred.put(replicate(10, 11, 0), true); now || l.deferred.batch.Requests[0].Commit != 11 {
		t.Errorf("the newer of two is not the one that waits: %+v", l.deferred.batch)
	}
	if b, now := l.deferred.put(replicate(11, 12, 0), false); !now || len(b.Requests) != 2 {
		t.Errorf("somebody waits there now: %v, %+v", now, b.Requests)
	}
}

func newLinkToNowhere(t *testing.T) *link {
	m := newMember(t, 1, nil)
	l, err := newLink(m.Transport, context.Background(), "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// A message that waits is sent when nothing follows, and one to a member that does
// not wait patiently at once.
func TestDeferredIsSent(t *testing.T) {
	t.Parallel()
	b := newMember(t, 2, nil)
	a := newMember(t, 1, func(o *Options) { o.Patient = func(target string) bool { return target == b.addr } })
	c, err := a.GetConnection(context.Background(), b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 20 {
		if err := c.SendMessageBatch(replicate(uint64(i), uint64(i), 0)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the message", func() bool { return b.latest() == uint64(i) && b.received() == i+1 })
	}
}
