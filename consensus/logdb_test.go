package consensus

import (
	"math"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/rs/zerolog"
)

func wrapLogDB(db raftio.ILogDB) *logDB {
	l := newLogDB(zerolog.Nop(), &liveness{})
	l.ILogDB = db
	return l
}

// fakeLogDB counts what reaches tan.
type fakeLogDB struct {
	raftio.ILogDB
	saved []raftpb.Update
	then  []int // what else was called, and how much was saved by then
}

func (f *fakeLogDB) SaveRaftState(u []raftpb.Update, _ uint64) error {
	f.saved = append(f.saved, u...)
	return nil
}

func TestLogDBRepeatsTheState(t *testing.T) {
	f := &fakeLogDB{}
	l := wrapLogDB(f)
	st := raftpb.State{Term: 2, Vote: 1, Commit: 5}
	save := func(u raftpb.Update) {
		u.ShardID, u.ReplicaID = 1, 1
		if err := l.SaveRaftState([]raftpb.Update{u}, 1); err != nil {
			t.Fatal(err)
		}
	}
	save(raftpb.Update{EntriesToSave: []raftpb.Entry{{Index: 1}}}) // nothing known yet
	save(raftpb.Update{State: st})
	save(raftpb.Update{State: st}) // says nothing
	save(raftpb.Update{})          // nor this
	save(raftpb.Update{EntriesToSave: []raftpb.Entry{{Index: 2}}})
	if len(f.saved) != 3 {
		t.Fatalf("%d updates: %+v", len(f.saved), f.saved)
	}
	if f.saved[0].State != (raftpb.State{}) || f.saved[2].State != st {
		t.Fatalf("%+v", f.saved)
	}
}

// A mere commit index waits for what else is to be written, but not for long, and is
// not forgotten. A new term or vote waits for nothing.
func TestLogDBOwesTheCommitIndex(t *testing.T) {
	f := &fakeLogDB{}
	l := wrapLogDB(f)
	st := raftpb.State{Term: 2, Vote: 1, Commit: 5}
	owes := func() bool { return l.last[raftio.GetNodeInfo(1, 1)].owed > 0 }
	save := func(u raftpb.Update, want int) {
		t.Helper()
		u.ShardID, u.ReplicaID = 1, 1
		if err := l.SaveRaftState([]raftpb.Update{u}, 1); err != nil {
			t.Fatal(err)
		}
		if len(f.saved) != want {
			t.Fatalf("%d updates: %+v", len(f.saved), f.saved)
		}
		if want > 0 && !owes() && f.saved[want-1].State != st {
			t.Fatalf("%+v instead of %+v", f.saved[want-1].State, st)
		}
	}
	// Where a pause comes between, what is owed is written sooner: begin again.
	for deadline := time.Now().Add(time.Minute); ; {
		*f, l = fakeLogDB{}, wrapLogDB(f)
		begun := time.Now()
		save(raftpb.Update{State: st}, 1)
		st.Commit++
		err := l.SaveRaftState([]raftpb.Update{{ShardID: 1, ReplicaID: 1, State: st}}, 1)
		if err == nil && time.Since(begun) < owedFor {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if len(f.saved) != 1 || !owes() {
		t.Fatalf("%+v, last %+v", f.saved, l.last)
	}
	save(raftpb.Update{EntriesToSave: []raftpb.Entry{{Index: 7}}}, 2)
	st.Vote++
	save(raftpb.Update{State: st}, 3)
	st.Commit++
	if err := l.SaveRaftState([]raftpb.Update{{ShardID: 1, ReplicaID: 1, State: st}}, 1); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); len(f.saved) < 4; { // ticks
		if err := l.SaveRaftState([]raftpb.Update{{ShardID: 1, ReplicaID: 1}}, 1); err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", f.saved, err)
		}
	}
	save(raftpb.Update{}, 4)
	// What a start compares it with comes after it, and so does the end.
	for what, run := range map[string]func() error{
		"a snapshot":     func() error { return l.SaveSnapshots(nil) },
		"an entry's end": func() error { return l.RemoveEntriesTo(1, 1, st.Commit) },
		"a reader":       func() error { _, err := l.ReadRaftState(1, 1, 0); return err },
		"Close":          func() error { return l.Close() },
	} {
		st.Commit++
		if err := l.SaveRaftState([]raftpb.Update{{ShardID: 1, ReplicaID: 1, State: st}}, 1); err != nil {
			t.Fatal(err)
		}
		f.then = nil
		if err := run(); err != nil || f.saved[len(f.saved)-1].State != st {
			t.Fatalf("%s: %+v, %v", what, f.saved, err)
		}
		if len(f.then) != 1 || f.then[0] != len(f.saved) {
			t.Fatalf("%s came before the commit index", what)
		}
	}
}

// SaveSnapshots, and what follows it here, notes how much was saved before.
func (f *fakeLogDB) SaveSnapshots([]raftpb.Update) error { return f.note() }

func (f *fakeLogDB) RemoveEntriesTo(uint64, uint64, uint64) error { return f.note() }

func (f *fakeLogDB) ReadRaftState(uint64, uint64, uint64) (raftio.RaftState, error) {
	return raftio.RaftState{}, f.note()
}

func (f *fakeLogDB) Close() error { return f.note() }

func (f *fakeLogDB) note() error {
	f.then = append(f.then, len(f.saved))
	return nil
}

// IterateEntries returns one entry of 1 MiB after the other until they are more
// than maxSize, as tan does.
func (f *fakeLogDB) IterateEntries(ents []raftpb.Entry, size, _, _, low, high, maxSize uint64) ([]raftpb.Entry, uint64, error) {
	for i := low; i < high && size <= maxSize; i++ {
		ents, size = append(ents, raftpb.Entry{Index: i}), size+1<<20
	}
	return ents, size, nil
}

// Dragonboat gets a part of what it asks for, and takes it for what is more than it
// asked for; where it wants all, it gets all.
func TestLogDBReadsLittleAtOnce(t *testing.T) {
	l := wrapLogDB(&fakeLogDB{})
	for _, c := range []struct {
		n, maxSize uint64
		want       int
		more       bool
	}{
		{n: 100, maxSize: 64 << 20, want: 5, more: true},
		{n: 5, maxSize: 64 << 20, want: 5},
		{n: 4, maxSize: 64 << 20, want: 4},
		{n: 100, maxSize: 2 << 20, want: 3, more: true},
		{n: 100, maxSize: 0, want: 1, more: true},
		{n: 100, maxSize: math.MaxUint64, want: 100},
	} {
		es, size, err := l.IterateEntries(nil, 0, 1, 1, 10, 10+c.n, c.maxSize)
		if err != nil || len(es) != c.want || size > c.maxSize != c.more {
			t.Errorf("%d of at most %d bytes: %d entries, %d bytes, %v", c.n, c.maxSize, len(es), size, err)
		}
	}
}
