package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"cohort/certify"
	"cohort/internal/binlog"
)

// RulesVersion is the newest version of the decision rules that this release
// knows. A log that asks for a later one stops the member.
const RulesVersion = 1

// checksumRing is how many of the latest chained checksums are kept, checksumMark
// the distance of those that are kept for ever: whoever fetches rows can verify
// them at the next mark and need not fetch everything first.
const (
	checksumRing = 4096
	checksumMark = 1 << 16
)

// State is the state of the group. Apply is its only writer; it is not safe for
// concurrent use.
type State struct {
	index   uint64
	founded bool
	boot    Bootstrap
	// lineage is the present one, forks are how it came about.
	lineage     uint64
	forks       []Fork
	rules       uint64
	viewSeq     uint64
	incarnation uint64 // last one given
	primary     uint64
	// primarySince is the last number given when it was appointed.
	primarySince uint64
	epoch        uint64
	members      []*Member // by ID
	// replicas is the last replica id given, unclaimed are those that the log was
	// begun with and that no member joined with yet.
	replicas  uint64
	unclaimed []uint64
	cert      *certify.Certifier
	checksum  uint64
	sums      []uint64 // of the last numbers, the newest last
	// marks are the checksums of the multiples of checksumMark above the group's
	// first number.
	marks    []uint64
	outcomes recent
	forced   forced

	txn        Txn // scratch
	frag       Fragment
	zd         *zstd.Decoder
	zbuf       []byte
	viewDirty  bool
	memberWork certify.Txn
}

// New returns the state before the first entry.
func New() *State {
	return &State{cert: certify.New(0), zd: newDecoder()}
}

func newDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxFragment))
	if err != nil {
		panic(fmt.Sprintf("state: zstd decoder: %v", err)) // constant options
	}
	return d
}

// Index returns the index of the last entry applied.
func (s *State) Index() uint64 { return s.index }

// LastN returns the last group transaction number given.
func (s *State) LastN() uint64 { return s.cert.Last() }

// Horizon returns the certification horizon.
func (s *State) Horizon() uint64 { return s.cert.Horizon() }

// Epoch returns the current epoch.
func (s *State) Epoch() uint64 { return s.epoch }

// Checksum returns the chained checksum of everything up to LastN.
func (s *State) Checksum() uint64 { return s.checksum }

// ChecksumAt returns the chained checksum at n, if n is recent enough or one of
// the marks.
func (s *State) ChecksumAt(n uint64) (uint64, bool) {
	last := s.LastN()
	switch {
	case n > last:
		return 0, false
	case last-n < uint64(len(s.sums)):
		return s.sums[len(s.sums)-1-int(last-n)], true
	case n%checksumMark == 0 && n > s.boot.StartN:
		return s.marks[n/checksumMark-s.boot.StartN/checksumMark-1], true
	}
	return 0, false
}

// Beginning returns what the chain of checksums begins with: the number before the
// group's first and its checksum. ok is false before the group was founded.
func (s *State) Beginning() (n, checksum uint64, ok bool) {
	return s.boot.StartN, s.boot.Lineage, s.founded
}

// Outcome returns the verdict on an xid.
func (s *State) Outcome(xid string) (Outcome, bool) { return s.lookup(xid, false) }

// DirectOutcome returns what became of a direct statement, by its local GTID.
func (s *State) DirectOutcome(localGTID string) (Outcome, bool) { return s.lookup(localGTID, true) }

func (s *State) lookup(key string, direct bool) (Outcome, bool) {
	if o, ok := s.outcomes.find(key, direct); ok {
		return *o, true
	}
	if f, ok := s.forced.byXID[key]; ok && !direct {
		return f.outcome(key), true
	}
	return Outcome{}, false
}

// LastSeq returns the last proposal accepted of an incarnation and whether that
// incarnation is its member's current one.
func (s *State) LastSeq(member, incarnation uint64) (seq uint64, current bool) {
	m := s.member(member)
	if m == nil {
		return 0, false
	}
	if m.Incarnation == incarnation {
		return m.Seq, true
	}
	for _, f := range m.fenced {
		if f.incarnation == incarnation {
			return f.seq, false
		}
	}
	return 0, false
}

func (s *State) member(id uint64) *Member {
	for _, m := range s.members {
		if m.ID == id {
			return m
		}
	}
	return nil
}

// Apply applies one entry and returns what its proposer is told: for a Join the
// incarnation, for an Admit the replica, for either a refusal (see
// RefusedDuplicateUUID), for an Abort the number of xids that have a
// verdict now, otherwise the number of items that were accepted. After an error
// the state must not be used any more.
//
// What is malformed is ignored, by all members alike. What a later release
// proposed stops the member, for it cannot know what the others make of it.
func (s *State) Apply(index uint64, entry []byte, sink Sink) (uint64, error) {
	s.index = index
	if len(entry) == 0 {
		sink.Ignored(index, 0, fmt.Errorf("%w: empty entry", ErrMalformed))
		return 0, nil
	}
	if entry[0] != entryVersion {
		return 0, fmt.Errorf("entry %d: %w: entry format %d", index, ErrUnsupported, entry[0])
	}
	r := reader{b: entry[1:]}
	var result uint64
	for len(r.b) > 0 {
		kind := Kind(r.byte())
		body := r.bytes()
		if r.bad {
			sink.Ignored(index, kind, fmt.Errorf("%w: item", ErrMalformed))
			return result, nil
		}
		n, err := s.apply(kind, body, sink)
		switch {
		case errors.Is(err, ErrMalformed):
			// Decoding comes before any change, so nothing was half done.
			sink.Ignored(index, kind, err)
		case err != nil:
			return 0, fmt.Errorf("entry %d, %s: %w", index, kind, err)
		case kind == KindJoin || kind == KindAdmit:
			result = n
		default:
			result += n
		}
	}
	return result, nil
}

func (s *State) apply(kind Kind, body []byte, sink Sink) (uint64, error) {
	switch kind {
	case KindTxn, KindDirect:
		return s.applyTxn(kind, body, sink)
	case KindFragment:
		return s.applyFragment(body, sink)
	case KindWatermark:
		return s.applyWatermark(body, sink)
	case KindBootstrap:
		return s.applyBootstrap(body, sink)
	case KindJoin:
		return s.applyJoin(body, sink)
	case KindState:
		return s.applyState(body, sink)
	case KindPrimary:
		return s.applyPrimary(body, sink)
	case KindAbort:
		return s.applyAbort(body, sink)
	case KindRules:
		return s.applyRules(body, sink)
	case KindAdmit:
		return s.applyAdmit(body, sink)
	case KindEvict:
		return s.applyEvict(body, sink)
	case KindWeight:
		return s.applyWeight(body, sink)
	case KindForce:
		return s.applyForce(body, sink)
	default:
		return 0, ErrUnsupported
	}
}

// Chain folds transaction n into the checksum of everything before it: what each
// member wrote to its group binlog for n. bodySum is the XXH64 of its body.
func Chain(checksum, n uint64, meta *binlog.Meta, bodyLen int64, bodySum uint64) uint64 {
	var b [56]byte
	binary.LittleEndian.PutUint64(b[0:], checksum)
	binary.LittleEndian.PutUint64(b[8:], n)
	b[16], b[17] = byte(meta.Kind), meta.GTIDFlags
	binary.LittleEndian.PutUint64(b[20:], meta.OriginalCommitTimestamp)
	binary.LittleEndian.PutUint32(b[28:], meta.OriginalServerVersion)
	binary.LittleEndian.PutUint32(b[32:], meta.Timestamp)
	binary.LittleEndian.PutUint64(b[40:], uint64(bodyLen))
	binary.LittleEndian.PutUint64(b[48:], bodySum)
	return xxhash.Sum64(b[:])
}

// chain makes n part of the running checksum.
func (s *State) chain(n uint64, meta *binlog.Meta, bodyLen int64, bodySum uint64) {
	s.checksum = Chain(s.checksum, n, meta, bodyLen, bodySum)
	if len(s.sums) >= 2*checksumRing {
		s.sums = append(s.sums[:0], s.sums[len(s.sums)-checksumRing+1:]...)
	}
	s.sums = append(s.sums, s.checksum)
	if n%checksumMark == 0 {
		s.marks = append(s.marks, s.checksum)
	}
}

// recentSums returns the part of sums that counts.
func (s *State) recentSums() []uint64 {
	return s.sums[max(0, len(s.sums)-checksumRing):]
}

// Clone returns a copy that may be encoded while s goes on. It must not be
// applied to.
func (s *State) Clone() *State {
	c := *s
	c.cert = s.cert.Clone()
	c.sums = slices.Clone(s.recentSums())
	c.marks = slices.Clone(s.marks)
	c.unclaimed = slices.Clone(s.unclaimed)
	c.forks = slices.Clone(s.forks)
	c.outcomes = recent{list: slices.Clone(s.outcomes.all())}
	c.forced = forced{byXID: maps.Clone(s.forced.byXID)}
	c.members = make([]*Member, len(s.members))
	for i, m := range s.members {
		d := *m
		d.fenced = slices.Clone(m.fenced)
		if m.stream != nil {
			dig := *m.stream.digest
			d.stream = &stream{id: m.stream.id, len: m.stream.len, digest: &dig}
		}
		c.members[i] = &d
	}
	c.zd, c.zbuf, c.txn, c.frag, c.memberWork = nil, nil, Txn{}, Fragment{}, certify.Txn{}
	return &c
}

// Streams returns the bodies that are being spooled, with their lengths.
func (s *State) Streams() map[StreamID]int64 {
	out := make(map[StreamID]int64)
	for _, m := range s.members {
		if m.stream != nil {
			out[m.streamID()] = m.stream.len
		}
	}
	return out
}

// StreamChecksum returns the XXH64 of what was spooled of a body.
func (s *State) StreamChecksum(id StreamID) (sum uint64, ok bool) {
	if m := s.member(id.Member); m != nil && m.stream != nil && m.streamID() == id {
		return m.stream.digest.Sum64(), true
	}
	return 0, false
}

// StreamIDs returns the bodies that are being spooled, in the order of their
// members.
func (s *State) StreamIDs() []StreamID {
	var out []StreamID
	for _, m := range s.members {
		if m.stream != nil {
			out = append(out, m.streamID())
		}
	}
	return out
}
