package peer

import (
	"bufio"
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"cohort/internal/applied"
)

func TestAppliedRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		u := applied.Update{Reset: rapid.Bool().Draw(r, "reset")}
		n := rapid.SampledFrom([]int{0, 1, 2, 50, maxBatch, maxBatch + 1, 2*maxBatch + 7}).Draw(r, "n")
		for i := range n {
			from := rapid.Uint64Range(1, math.MaxUint64).Draw(r, "from")
			if i > 20 {
				from = uint64(i)
			}
			u.Ranges = append(u.Ranges, applied.Range{From: from, To: from + min(uint64(i%5), math.MaxUint64-from)})
		}
		in := bufio.NewReader(bytes.NewReader(appendApplied(nil, u)))
		var got applied.Update
		for frames := 0; frames == 0 || len(got.Ranges) < n; frames++ {
			typ, p, err := readFrame(in, nil, MaxFrame)
			if err != nil || typ != frameApplied {
				r.Fatalf("frame %d: type %d, %v", frames, typ, err)
			}
			part, err := parseApplied(p)
			if err != nil {
				r.Fatal(err)
			}
			if part.Reset != (u.Reset && frames == 0) {
				r.Fatalf("frame %d: reset %v", frames, part.Reset)
			}
			got.Ranges = append(got.Ranges, part.Ranges...)
		}
		if !slices.Equal(got.Ranges, u.Ranges) || in.Buffered() != 0 {
			r.Fatalf("%d ranges became %d", n, len(got.Ranges))
		}
	})
}

func TestFrameLimits(t *testing.T) {
	for _, b := range [][]byte{{0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff, 1}, {0, 0, 4, 1, 1}} {
		if _, _, err := readFrame(bufio.NewReader(bytes.NewReader(b)), nil, 1024); !errors.Is(err, ErrFrame) {
			t.Errorf("%x: %v", b, err)
		}
	}
}

// A frame that claims to be large must not make us take memory before its bytes
// are there.
func TestLengthAloneTakesNoMemory(t *testing.T) {
	b := []byte{0, 0x40, 0, 0, byte(frameHeartbeat), 1, 2, 3}
	_, p, err := readFrame(bufio.NewReader(bytes.NewReader(b)), nil, MaxFrame)
	if err == nil || cap(p) > 256<<10 {
		t.Errorf("%d bytes taken, %v", cap(p), err)
	}
}

// Whatever arrives, parsing ends with an error or a value that encodes again.
func FuzzFrames(f *testing.F) {
	f.Add(appendApplied(nil, applied.Update{Reset: true, Ranges: []applied.Range{{From: 1, To: 9}, {From: 12, To: 12}}}))
	f.Add(appendFrame(nil, frameRequest, request{7, "m", []byte("x")}.append))
	f.Add(appendFrame(nil, frameResponse, response{7, true, []byte("x")}.append))
	f.Add(appendFrame(nil, frameNotices, func(b []byte) []byte { return appendNotices(b, []string{"a", "", "xid"}) }))
	h := hello{version: Version, nonce: newNonce(), member: "m", proof: make([]byte, 32)}
	f.Add(appendFrame(nil, frameLogin, h.append))
	h.proof = nil
	f.Add(appendFrame(nil, frameGreeting, h.append))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bufio.NewReader(bytes.NewReader(data))
		var buf []byte
		for {
			typ, p, err := readFrame(in, buf, MaxFrame)
			if err != nil {
				return
			}
			buf = p
			switch typ {
			case frameApplied:
				if u, err := parseApplied(p); err == nil {
					again, err := parseApplied(appendApplied(nil, u)[5:])
					if err != nil || !slices.Equal(again.Ranges, u.Ranges) {
						t.Fatalf("%+v became %+v, %v", u, again, err)
					}
					for _, r := range u.Ranges {
						if r.From == 0 || r.From > r.To {
							t.Fatalf("bad range %+v", r)
						}
					}
				}
			case frameNotices:
				var texts []string
				if parseNotices(p, func(s string) { texts = append(texts, s) }) == nil {
					var again []string
					if err := parseNotices(appendNotices(nil, texts), func(s string) { again = append(again, s) }); err != nil || !slices.Equal(texts, again) {
						t.Fatalf("%q became %q, %v", texts, again, err)
					}
				}
			case frameRequest:
				parseRequest(p)
			case frameResponse:
				parseResponse(p)
			case frameGreeting:
				parseHello(p, 0)
			case frameLogin:
				parseHello(p, 32)
			}
		}
	})
}
