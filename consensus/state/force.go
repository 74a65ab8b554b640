package state

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Force makes the listed members the group. No majority orders it: consensus
// appends it to the log of the listed members, where the others cannot contradict
// it any more (see consensus/force.go).
type Force struct {
	// Lineage is that of the history that begins here; not 0.
	Lineage uint64
	// SureN and SureIndex are up to where a majority of the old members is known
	// to have ordered: up to there every member of the old lineage has the same.
	SureN, SureIndex uint64
	Members          []Place
}

// Place is a member with its replica.
type Place struct{ Member, Replica uint64 }

func (p *Place) layout() layout { return layout{number(&p.Member), number(&p.Replica)} }

// AppendItem appends the item to an entry.
func (x *Force) AppendItem(b []byte) []byte {
	f := appendUint(nil, 1, x.Lineage)
	f = appendUint(f, 2, x.SureN)
	f = appendUint(f, 3, x.SureIndex)
	for _, p := range x.Members {
		f = appendString(f, 4, string(p.layout().append(nil)))
	}
	return appendItem(b, KindForce, f)
}

func (x *Force) decode(b []byte) error {
	var bad error
	err := fields(b, func(tag int, num uint64, raw []byte) {
		switch tag {
		case 1:
			x.Lineage = num
		case 2:
			x.SureN = num
		case 3:
			x.SureIndex = num
		case 4:
			var p Place
			if err := p.layout().decode(raw); err != nil {
				bad = err
			}
			x.Members = append(x.Members, p)
		}
	})
	switch {
	case err != nil:
		return err
	case bad != nil:
		return bad
	case len(x.Members) > MaxMembers:
		return fmt.Errorf("%w: %d members", ErrMalformed, len(x.Members))
	}
	return nil
}

// Fork is where a membership was forced: what it began with.
type Fork struct {
	// Lineage is the one that ended here.
	Lineage uint64
	// SureN and SureIndex are Force's, N is the last number that was given before:
	// of what lies between SureN and N nobody but the listed members need know.
	SureN, SureIndex, N uint64
	// Sums are the chained checksums of the last numbers up to N, the newest last.
	Sums []uint64
}

// maxForks is how many forks are kept. Who is of a lineage that was forgotten is
// not let in again without new data.
const maxForks = 16

// Begins reports whether data of the lineage that ended here, up to n with a
// checksum, are a beginning of what the group has. What cannot be told is not.
func (f *Fork) Begins(n, checksum uint64) bool {
	switch {
	case n <= f.SureN:
		return true
	case n > f.N || f.N-n >= uint64(len(f.Sums)):
		return false
	}
	return f.Sums[len(f.Sums)-1-int(f.N-n)] == checksum
}

// Fork returns where a lineage ended that this one goes on from.
func (v *View) Fork(lineage uint64) (Fork, bool) {
	i := slices.IndexFunc(v.Forks, func(f Fork) bool { return f.Lineage == lineage })
	if i < 0 {
		return Fork{}, false
	}
	return v.Forks[i], true
}

func (f *Fork) encode(b []byte) []byte {
	for _, v := range [...]uint64{f.Lineage, f.SureN, f.SureIndex, f.N, uint64(len(f.Sums))} {
		b = binary.AppendUvarint(b, v)
	}
	for _, v := range f.Sums {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func (f *Fork) decode(r *reader) bool {
	f.Lineage, f.SureN, f.SureIndex, f.N = r.uvarint(), r.uvarint(), r.uvarint(), r.uvarint()
	for n := r.count(8); n > 0; n-- {
		f.Sums = append(f.Sums, r.fixed())
	}
	return !r.bad && f.Lineage != 0 && f.SureN <= f.N && len(f.Sums) <= checksumRing
}

// applyForce makes the listed members the group: the others are OFFLINE and have
// no replica, so what they proposed and nobody listed has is fenced by their next
// Join. It is one change of the view, the election that may follow included.
func (s *State) applyForce(body []byte, sink Sink) (uint64, error) {
	var x Force
	if err := x.decode(body); err != nil {
		return 0, err
	}
	known := x.Lineage == s.lineage || slices.ContainsFunc(s.forks, func(f Fork) bool { return f.Lineage == x.Lineage })
	if !s.founded || x.Lineage == 0 || known {
		return 0, nil
	}
	listed := func(m *Member) bool {
		return m.Replica != 0 && slices.Contains(x.Members, Place{m.ID, m.Replica})
	}
	if !slices.ContainsFunc(s.members, listed) {
		return 0, nil // a group of nobody
	}
	f := Fork{Lineage: s.lineage, SureN: min(x.SureN, s.LastN()), SureIndex: min(x.SureIndex, s.index), N: s.LastN()}
	sums := s.recentSums()
	f.Sums = slices.Clone(sums[len(sums)-min(len(sums), int(min(f.N-f.SureN, checksumRing))):])
	s.forks = append(s.forks, f)
	if len(s.forks) > maxForks {
		s.forks = slices.Delete(s.forks, 0, len(s.forks)-maxForks)
	}
	s.lineage, s.unclaimed = x.Lineage, nil
	seq := s.viewSeq
	for _, m := range s.members {
		if listed(m) {
			m.Voter = true // or it could not have been listed
			continue
		}
		m.Replica, m.Voter = 0, false
		if m.State == StateOffline || m.State == StateError {
			continue
		}
		m.State = StateOffline
		sink.Decided(Decision{Index: s.index, Kind: KindState, Origin: m.ID, Incarnation: m.Incarnation,
			State: m.State, N: s.LastN(), Epoch: s.epoch, Committed: true})
	}
	s.elect(sink)
	s.viewSeq = seq
	s.changeView()
	s.collect()
	sink.Decided(Decision{Index: s.index, Kind: KindForce, N: s.LastN(), Epoch: s.epoch,
		Checksum: s.checksum, Committed: true})
	return 1, nil
}
