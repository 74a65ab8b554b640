package consensus

import (
	"bytes"
	"errors"
	"testing"

	"cohort/consensus/state"
)

// newMachine is a machine without a node.
func newMachine(t *testing.T) *machine {
	m := &machine{cfg: Config{Dir: t.TempDir(), Store: &memStore{}}, fatal: func(error) {}, applied: func(uint64, int) {}, live: &liveness{}}
	if err := m.load(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.spool.close)
	return m
}

func (m *machine) mustApply(t *testing.T, items ...interface{ AppendItem([]byte) []byte }) {
	t.Helper()
	b := state.AppendHeader(nil)
	for _, it := range items {
		b = it.AppendItem(b)
	}
	if _, err := m.st.Apply(m.st.Index()+1, b, (*effects)(m)); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshot(t *testing.T) {
	boot := &state.Bootstrap{GroupName: "g", Lineage: 1, Rules: 1, Replicas: 9, Primary: 1}
	join := &state.Join{Member: 1, Replica: 1, Nonce: 1}
	txn := func(seq uint64) *state.Txn {
		return &state.Txn{Member: 1, Incarnation: 1, Seq: seq, Epoch: 1, XID: "a", Meta: testMeta, Body: []byte("x"), BodyLen: 1}
	}
	frag := &state.Fragment{Member: 1, Incarnation: 1, Seq: 2, Stream: 2, Data: []byte("spooled"), Len: 7}
	donor := newMachine(t)
	donor.mustApply(t, boot, join, txn(1))
	donor.mustApply(t, frag) // further than who recovers from it

	ctx, err := donor.PrepareSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	// What happens afterwards is not in it.
	donor.mustApply(t, &state.Join{Member: 2, Replica: 2, Nonce: 2}, &state.Join{Member: 1, Replica: 1, Nonce: 3})
	if err := donor.Sync(); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := donor.SaveSnapshot(ctx, &buf, nil); err != nil {
		t.Fatal(err)
	}

	// A member with the same rows, and a stream that the snapshot replaces.
	same := newMachine(t)
	same.mustApply(t, boot, join, txn(1), &state.Fragment{Member: 1, Incarnation: 1, Seq: 2, Stream: 2, Data: []byte("spo"), Len: 3})
	if err := same.RecoverFromSnapshot(bytes.NewReader(buf.Bytes()), nil); err != nil {
		t.Fatal(err)
	}
	if v := same.view.Load(); len(v.Members) != 1 {
		t.Fatalf("%+v", v)
	}
	if err := same.Sync(); err != nil {
		t.Fatal(err)
	}
	big := txn(3)
	big.XID, big.Body, big.Stream, big.BodyLen = "b", nil, 2, 7
	same.mustApply(t, big) // the spooled body is there
	if same.st.LastN() != 2 {
		t.Fatal("the spooled transaction did not commit")
	}

	// One that lacks a row refuses, and so does one whose row differs.
	stop := make(chan struct{})
	close(stop)
	lacking, differing := newMachine(t), newMachine(t)
	lacking.mustApply(t, boot, join)
	other := txn(1)
	other.Body = []byte("y")
	differing.mustApply(t, boot, join, other)
	for m, want := range map[*machine]error{lacking: ErrRowsMissing, differing: ErrDiverged} {
		if err := m.RecoverFromSnapshot(bytes.NewReader(buf.Bytes()), stop); err == nil {
			t.Fatal("recovered")
		}
		if !errors.Is(m.err(), want) {
			t.Fatal(m.err())
		}
		if err := m.Sync(); !errors.Is(err, ErrFailed) {
			t.Fatal("a stopped member wrote a checkpoint")
		}
	}
	// Where the process can say so, data that are not the group's do not end it.
	told := newMachine(t)
	told.mustApply(t, boot, join, other)
	var why error
	told.cfg.OnDiverged = func(err error) { why = err }
	if err := told.RecoverFromSnapshot(bytes.NewReader(buf.Bytes()), stop); err == nil || told.err() != nil || !errors.Is(why, ErrDiverged) {
		t.Fatal(err, told.err(), why)
	}
	// Damage is noticed.
	damaged := newMachine(t)
	b := bytes.Clone(buf.Bytes())
	b[30] ^= 1
	if err := damaged.RecoverFromSnapshot(bytes.NewReader(b), stop); err == nil || !errors.Is(damaged.err(), ErrCorrupt) {
		t.Fatal(err, damaged.err())
	}
}
