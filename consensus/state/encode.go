package state

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"cohort/certify"
)

const stateVersion = 5

// Encode appends the state to b. Members that applied the same entries get the
// same bytes.
func (s *State) Encode(b []byte) []byte {
	b = append(b, stateVersion)
	b = binary.AppendUvarint(b, s.index)
	b = append(b, boolByte(s.founded))
	b = appendBytes(b, s.boot.GroupName)
	b = appendBytes(b, s.boot.Base)
	b = appendBytes(b, s.boot.Settings)
	for _, v := range [...]uint64{s.boot.Lineage, s.boot.Rules, s.boot.Primary, s.boot.StartN,
		s.rules, s.viewSeq, s.incarnation, s.primary, s.primarySince, s.epoch, s.checksum, s.boot.Replicas, s.replicas,
		uint64(len(s.unclaimed))} {
		b = binary.AppendUvarint(b, v)
	}
	for _, id := range s.unclaimed {
		b = binary.AppendUvarint(b, id)
	}
	b = binary.AppendUvarint(b, s.lineage)
	b = binary.AppendUvarint(b, uint64(len(s.forks)))
	for i := range s.forks {
		b = s.forks[i].encode(b)
	}
	sums := s.recentSums()
	b = binary.AppendUvarint(b, uint64(len(sums)))
	for _, v := range sums {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.AppendUvarint(b, uint64(len(s.marks)))
	for _, v := range s.marks {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.AppendUvarint(b, uint64(len(s.members)))
	for _, m := range s.members {
		b = m.encode(b)
	}
	list := s.outcomes.all()
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		b = list[i].encode(b)
	}
	b = binary.AppendUvarint(b, uint64(len(s.forced.byXID)))
	for _, xid := range s.forced.xids() {
		f := s.forced.byXID[xid]
		b = appendBytes(b, xid)
		for _, v := range [...]uint64{f.life, f.upto, f.lastN} {
			b = binary.AppendUvarint(b, v)
		}
	}
	return s.cert.Encode(b)
}

func (m *Member) encode(b []byte) []byte {
	for _, v := range [...]uint64{m.ID, m.Incarnation, uint64(m.State), m.Applied, m.Stable, m.Low,
		m.Seq, m.Nonce, m.OpenEpoch, m.replaced, m.Replica, m.admitted} {
		b = binary.AppendUvarint(b, v)
	}
	b = append(b, boolByte(m.Voter))
	b = appendBytes(b, m.Address)
	b = appendBytes(b, m.Info.append(nil))
	b = binary.AppendUvarint(b, uint64(len(m.fenced)))
	for _, f := range m.fenced {
		b = binary.AppendUvarint(b, f.incarnation)
		b = binary.AppendUvarint(b, f.seq)
	}
	if m.stream == nil {
		return append(b, 0)
	}
	b = append(b, 1)
	b = binary.AppendUvarint(b, m.stream.id)
	b = binary.AppendUvarint(b, uint64(m.stream.len))
	sum, err := m.stream.digest.MarshalBinary()
	if err != nil {
		panic(fmt.Sprintf("state: xxhash: %v", err)) // it has no way to fail
	}
	return appendBytes(b, sum)
}

func (m *Member) decode(r *reader) error {
	m.ID, m.Incarnation, m.State = r.uvarint(), r.uvarint(), MemberState(r.uvarint())
	m.Applied, m.Stable, m.Low, m.Seq, m.Nonce = r.uvarint(), r.uvarint(), r.uvarint(), r.uvarint(), r.uvarint()
	m.OpenEpoch, m.replaced, m.Replica, m.admitted = r.uvarint(), r.uvarint(), r.uvarint(), r.uvarint()
	m.Voter, m.Address = r.bool(), r.string()
	if err := m.Info.decode(r.bytes()); err != nil {
		return err
	}
	for n := r.count(2); n > 0; n-- {
		m.fenced = append(m.fenced, fencedLife{r.uvarint(), r.uvarint()})
	}
	if !r.bool() {
		return nil
	}
	m.stream = &stream{id: r.uvarint(), len: int64(r.uvarint()), digest: xxhash.New()}
	if err := m.stream.digest.UnmarshalBinary(r.bytes()); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

const (
	outcomeDirect = 1 << iota
	outcomeCommitted
)

func (o *Outcome) encode(b []byte) []byte {
	b = appendBytes(b, o.Key)
	b = append(b, boolByte(o.Direct)*outcomeDirect|boolByte(o.Committed)*outcomeCommitted)
	for _, v := range [...]uint64{o.Origin, o.Incarnation, o.N, uint64(o.Errno), uint64(o.Reason), o.LastN} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func (o *Outcome) decode(r *reader) {
	o.Key = r.string()
	flags := r.byte()
	o.Direct, o.Committed = flags&outcomeDirect != 0, flags&outcomeCommitted != 0
	o.Origin, o.Incarnation, o.N = r.uvarint(), r.uvarint(), r.uvarint()
	o.Errno, o.Reason, o.LastN = uint16(r.uvarint()), Reason(r.uvarint()), r.uvarint()
}

// Decode reads what Encode wrote.
func Decode(b []byte) (*State, error) {
	r := &reader{b: b}
	if v := r.byte(); v != stateVersion {
		return nil, fmt.Errorf("%w: state format %d", ErrUnsupported, v)
	}
	s := &State{zd: newDecoder(), viewDirty: true}
	s.index, s.founded, s.boot.GroupName, s.boot.Base, s.boot.Settings = r.uvarint(), r.bool(), r.string(), r.string(), r.string()
	for _, p := range [...]*uint64{&s.boot.Lineage, &s.boot.Rules, &s.boot.Primary, &s.boot.StartN,
		&s.rules, &s.viewSeq, &s.incarnation, &s.primary, &s.primarySince, &s.epoch, &s.checksum,
		&s.boot.Replicas, &s.replicas} {
		*p = r.uvarint()
	}
	for n := r.count(1); n > 0; n-- {
		s.unclaimed = append(s.unclaimed, r.uvarint())
	}
	s.lineage = r.uvarint()
	for n := r.count(5); n > 0; n-- {
		var f Fork
		if !f.decode(r) {
			return nil, fmt.Errorf("%w: fork", ErrMalformed)
		}
		s.forks = append(s.forks, f)
	}
	if s.rules > RulesVersion {
		return nil, fmt.Errorf("%w: rules %d", ErrUnsupported, s.rules)
	}
	s.sums, s.marks = r.keys(nil), r.keys(nil)
	for n := r.count(8); n > 0; n-- {
		m := &Member{}
		if err := m.decode(r); err != nil {
			return nil, err
		}
		if len(s.members) > 0 && s.members[len(s.members)-1].ID >= m.ID {
			return nil, fmt.Errorf("%w: members", ErrMalformed)
		}
		s.members = append(s.members, m)
	}
	for n := r.count(8); n > 0; n-- {
		var o Outcome
		o.decode(r)
		if _, ok := s.outcomes.find(o.Key, o.Direct); ok {
			return nil, fmt.Errorf("%w: outcome given twice", ErrMalformed)
		}
		s.outcomes.add(o)
	}
	for n := r.count(4); n > 0; n-- {
		xid := r.string()
		if _, ok := s.lookup(xid, false); ok {
			return nil, fmt.Errorf("%w: outcome given twice", ErrMalformed)
		}
		s.forced.add(xid, forcedAbort{life: r.uvarint(), upto: r.uvarint(), lastN: r.uvarint()})
	}
	if r.bad {
		return nil, fmt.Errorf("%w: state", ErrMalformed)
	}
	cert, rest, err := certify.Decode(r.b)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the state", ErrMalformed, len(rest))
	}
	s.cert = cert
	if s.founded && uint64(len(s.marks)) != s.LastN()/checksumMark-min(s.boot.StartN, s.LastN())/checksumMark {
		return nil, fmt.Errorf("%w: %d marks", ErrMalformed, len(s.marks))
	}
	return s, nil
}
