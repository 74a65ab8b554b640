package state

import (
	"bytes"
	"testing"
)

// The checksums of the marks are known for ever, those of the latest numbers too,
// also after the state was stored, and whatever number the group began with.
func TestChecksumMarks(t *testing.T) {
	meta := testMeta
	for _, start := range []uint64{0, 7, checksumMark - 1, checksumMark, 3*checksumMark + 5} {
		s := New()
		s.founded, s.boot = true, Bootstrap{Lineage: 9, StartN: start, Rules: 1}
		s.checksum = 9
		s.sums = append(s.sums, 9)
		last := start + 2*checksumMark + checksumRing + 10
		all := map[uint64]uint64{start: 9}
		sum := uint64(9)
		for n := start + 1; n <= last; n++ {
			s.chain(n, &meta, int64(n), n)
			sum = Chain(sum, n, &meta, int64(n), n)
			all[n] = sum
		}
		s.cert.StartAt(last)
		check := func(s *State) {
			t.Helper()
			known := 0
			for n := start; n <= last+1; n++ {
				got, ok := s.ChecksumAt(n)
				if ok {
					known++
				}
				if want := n <= last && (last-n < checksumRing || n%checksumMark == 0 && n > start); want && !ok || ok && got != all[n] {
					t.Fatalf("start %d, at %d: %x %t, want %x", start, n, got, ok, all[n])
				}
			}
			if known > 2*checksumRing+3 {
				t.Errorf("start %d: %d checksums are kept", start, known)
			}
			if n, sum, ok := s.Beginning(); n != start || sum != 9 || !ok {
				t.Errorf("%d %x %t", n, sum, ok)
			}
		}
		check(s)
		b := s.Clone().Encode(nil)
		d, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		check(d)
		if !bytes.Equal(d.Encode(nil), b) {
			t.Error("encoded anew it is another state")
		}
		d.marks = d.marks[1:]
		if _, err := Decode(d.Encode(nil)); err == nil {
			t.Error("a mark is missing and nobody notices")
		}
	}
}
