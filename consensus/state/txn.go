package state

import (
	"fmt"

	"github.com/cespare/xxhash/v2"

	"cohort/certify"
)

// applyTxn decides a transaction or a direct statement.
func (s *State) applyTxn(kind Kind, body []byte, sink Sink) (uint64, error) {
	t := &s.txn
	if err := t.decode(kind, body); err != nil {
		return 0, err
	}
	d := Decision{Index: s.index, Kind: kind, Origin: t.Member, Incarnation: t.Incarnation,
		Seq: t.Seq, XID: t.XID, LocalGTID: t.LocalGTID, Epoch: s.epoch}
	key := t.XID
	if t.Direct {
		key = t.LocalGTID
	}
	m := s.member(t.Member)
	if m == nil {
		return 0, nil // never joined: nobody waits for it
	}
	if !m.lives(t.Incarnation) {
		return 0, s.applyFencedTxn(m, t, key, d, sink)
	}
	if t.Seq != m.Seq+1 {
		return 0, nil // a repetition, or something before it was lost
	}
	m.Seq = t.Seq

	// The first verdict on a key is final.
	if o, ok := s.lookup(key, t.Direct); ok {
		s.repeat(o, d, sink)
		if !t.Direct {
			s.meetForced(m, key)
		}
		return 1, s.dropStream(m, t, sink)
	}
	reason, errno := s.judge(m, t)
	var rows []byte
	if reason == ReasonNone && t.Stream == 0 {
		var err error
		if rows, err = s.unpack(t.Body, t.Compressed, t.BodyLen); err != nil {
			sink.Ignored(s.index, kind, err)
			reason, errno = ReasonInvalid, ErrnoConflict
		}
	}
	if reason == ReasonNone {
		s.memberWork = certify.Txn{
			Origin: t.Member, Incarnation: t.Incarnation, Snapshot: t.Snapshot,
			Writes: t.Writes, Refs: t.Refs, Tables: t.Tables,
			Direct: t.Direct, Wide: t.Wide, Serial: t.Serial, CommitOrder: t.CommitOrder,
		}
		v := s.cert.Certify(&s.memberWork)
		switch v.Reason {
		case certify.ReasonNone:
			if err := s.append(m, t, v, rows, sink); err != nil {
				return 0, err
			}
			d.Committed, d.N, d.Dep, d.Checksum = true, v.N, v.Dep, s.checksum
		case certify.ReasonConflict:
			reason = ReasonConflict
		case certify.ReasonHorizon:
			reason = ReasonHorizon
		default:
			reason = ReasonInvalid
		}
		errno = ErrnoConflict
	}
	if !d.Committed {
		d.Errno, d.Reason = errno, reason
	}
	s.remember(key, d)
	sink.Decided(d)
	if err := s.dropStream(m, t, sink); err != nil {
		return 0, err
	}
	// The origin of a direct statement has committed it. When the group does
	// not, that member's data are not the group's any more.
	if t.Direct && !d.Committed && reason != ReasonRefused {
		s.setState(m, StateError, sink)
	}
	return 1, nil
}

// judge applies the rules that come before certification.
func (s *State) judge(m *Member, t *Txn) (Reason, uint16) {
	switch {
	case t.Refuse != 0:
		return ReasonRefused, t.Refuse
	case !s.founded:
		return ReasonInvalid, ErrnoConflict
	// At most one epoch's primary can have transactions certified. What a
	// member has committed already is judged by its objects alone.
	case !t.Direct && (t.Epoch != s.epoch || t.Member != s.primary):
		return ReasonEpoch, ErrnoConflict
	case t.Stream != 0 && (m.stream == nil || m.stream.id != t.Stream || m.stream.len != t.BodyLen):
		return ReasonInvalid, ErrnoConflict
	case t.Meta.Validate() != nil:
		return ReasonInvalid, ErrnoConflict
	}
	return ReasonNone, 0
}

// applyFencedTxn answers a proposal of an earlier incarnation: whatever was not
// ordered before the fence is aborted by it.
func (s *State) applyFencedTxn(m *Member, t *Txn, key string, d Decision, sink Sink) error {
	if seq, current := s.LastSeq(m.ID, t.Incarnation); t.Incarnation > m.Incarnation || t.Seq <= seq && !current {
		return nil // from the future (impossible), or a repetition of what was decided
	}
	// A direct statement of an earlier life is proposed again, by the new one;
	// no verdict may stand in its way.
	if t.Direct {
		return nil
	}
	if o, ok := s.lookup(key, false); ok {
		s.repeat(o, d, sink)
		return nil
	}
	d.Errno, d.Reason = ErrnoConflict, ReasonFenced
	s.remember(key, d)
	sink.Decided(d)
	return nil
}

// repeat tells again what was decided about d's key. Whose proposal it was stays
// as d says: a transaction whose abort was forced before it arrived has its first
// and only decision of kind KindTxn here, and its origin must roll it back.
func (s *State) repeat(o Outcome, d Decision, sink Sink) {
	d.Committed, d.N, d.Errno, d.Reason, d.Repeated = o.Committed, o.N, o.Errno, o.Reason, true
	sink.Decided(d)
}

// append hands a transaction that commits to the group binlog.
func (s *State) append(m *Member, t *Txn, v certify.Verdict, rows []byte, sink Sink) error {
	sum := uint64(0)
	if t.Stream != 0 {
		sum = m.stream.digest.Sum64()
		id := m.streamID()
		if err := sink.Append(v.N, v.Dep, t.Meta, nil, &id, t.BodyLen); err != nil {
			return err
		}
	} else {
		sum = xxhash.Sum64(rows)
		if err := sink.Append(v.N, v.Dep, t.Meta, rows, nil, t.BodyLen); err != nil {
			return err
		}
	}
	s.chain(v.N, &t.Meta, t.BodyLen, sum)
	return nil
}

// unpack returns data before compression, valid until the next call.
func (s *State) unpack(data []byte, compressed bool, size int64) ([]byte, error) {
	if compressed {
		if size > MaxFragment {
			return nil, fmt.Errorf("%w: body of %d bytes", ErrMalformed, size)
		}
		// One large body must not keep its buffer for good.
		if cap(s.zbuf) > 4<<20 {
			s.zbuf = nil
		}
		out, err := s.zd.DecodeAll(data, s.zbuf[:0])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		s.zbuf, data = out, out
	}
	if int64(len(data)) != size {
		return nil, fmt.Errorf("%w: body of %d bytes, not %d", ErrMalformed, len(data), size)
	}
	return data, nil
}

// applyFragment spools a part of a body.
func (s *State) applyFragment(body []byte, sink Sink) (uint64, error) {
	f := &s.frag
	if err := f.decode(body); err != nil {
		return 0, err
	}
	m := s.member(f.Member)
	if m == nil || !m.lives(f.Incarnation) || f.Seq != m.Seq+1 {
		return 0, nil
	}
	m.Seq = f.Seq
	if m.stream == nil || m.stream.id != f.Stream {
		if err := s.dropAny(m, sink); err != nil {
			return 0, err
		}
		m.stream = &stream{id: f.Stream, digest: xxhash.New()}
	}
	data, err := s.unpack(f.Data, f.Compressed, f.Len)
	if err == nil && f.Offset != m.stream.len {
		err = fmt.Errorf("%w: fragment at %d, not %d", ErrMalformed, f.Offset, m.stream.len)
	}
	if err != nil {
		// The transaction that names the stream will abort for want of it.
		sink.Ignored(s.index, KindFragment, err)
		return 1, s.dropAny(m, sink)
	}
	if err := sink.Spool(m.streamID(), f.Offset, data); err != nil {
		return 0, err
	}
	m.stream.len += int64(len(data))
	if _, err := m.stream.digest.Write(data); err != nil {
		return 0, err
	}
	return 1, nil
}

// dropStream forgets the stream that t used.
func (s *State) dropStream(m *Member, t *Txn, sink Sink) error {
	if t.Stream == 0 || m.stream == nil || m.stream.id != t.Stream {
		return nil
	}
	return s.dropAny(m, sink)
}

func (s *State) dropAny(m *Member, sink Sink) error {
	if m.stream == nil {
		return nil
	}
	id := m.streamID()
	m.stream = nil
	return sink.DropSpool(id)
}

// remember makes a verdict final.
func (s *State) remember(key string, d Decision) {
	if key == "" {
		return
	}
	s.outcomes.add(Outcome{Key: key, Direct: d.Kind == KindDirect, Origin: d.Origin,
		Incarnation: d.Incarnation, Committed: d.Committed, N: d.N, Errno: d.Errno,
		Reason: d.Reason, LastN: s.cert.Last()})
	s.trim()
}

func (s *State) trim() {
	s.outcomes.trim(func(origin uint64) uint64 {
		if m := s.member(origin); m != nil {
			return m.Stable
		}
		return 0
	})
}
