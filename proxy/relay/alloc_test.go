package relay

import (
	"io"
	"testing"

	"cohort/internal/wire"
)

// loop says the same again and again, one answer per write of the other side.
type loop struct {
	said
	answer []byte
	n      int
}

func (l *loop) Write(b []byte) (int, error) { l.n++; return len(b), nil }

func (l *loop) Read(b []byte) (int, error) {
	if l.n == 0 {
		return 0, io.EOF
	}
	l.n--
	return copy(b, l.answer), nil
}

func loopRelay(caps wire.Capability, answer []byte) *Relay {
	back := &loop{answer: answer}
	client := &loop{answer: packets(0, []byte{wire.ComQuery, 'x'}), n: 1 << 60}
	r := &Relay{Client: wire.NewConn(client), ClientCaps: caps, acc: fuzzAcceptor(), cmdLen: -1}
	r.SetBackend(wire.NewClient(wire.NewConn(back), caps|forcedCaps, &wire.Greeting{}))
	return r
}

func (r *Relay) pass(t testing.TB, o *ResponseOptions) {
	cmd, err := r.ReadCommand()
	if err == nil {
		err = r.Forward()
	}
	if err == nil {
		_, err = r.Response(cmd.Code, o)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var (
	okAnswer  = packets(1, []byte{0, 1, 2, 3, 0x40, 0, 0, 0, 10, 3, 8, 0, 6, 'u', 'u', 'i', 'd', ':', '1'})
	rowAnswer = packets(1, []byte{1}, []byte("\x03def\x00\x00\x00\x011\x00\f?\x00\x02\x00\x00\x00\b\x81\x00\x00\x00\x00"),
		[]byte("\x0212"), []byte("\x0234"), []byte{0xFE, 0, 0, 3, 0, 0, 0})
)

// TestAllocations: a command that passes through costs no memory, whether its
// closing packet is raw or rewritten.
func TestAllocations(t *testing.T) {
	o := &ResponseOptions{ClearStatus: wire.StatusInTrans, DropTrackers: wire.TrackGTIDs.Set()}
	for name, answer := range map[string][]byte{"OK": okAnswer, "rows": rowAnswer} {
		for kind, caps := range clientKinds {
			r := loopRelay(caps, answer)
			r.pass(t, o)
			if n := testing.AllocsPerRun(1000, func() { r.pass(t, o) }); n > 0.5 {
				t.Errorf("%s, %s client: %v allocations", name, kind, n)
			}
		}
	}
}

func BenchmarkRelay(b *testing.B) {
	for name, answer := range map[string][]byte{"OK": okAnswer, "rows": rowAnswer} {
		for kind, caps := range clientKinds {
			b.Run(name+"/"+kind, func(b *testing.B) {
				r := loopRelay(caps, answer)
				b.ReportAllocs()
				for b.Loop() {
					r.pass(b, nil)
				}
			})
		}
	}
}
