package state

import (
	"encoding/binary"
	"fmt"
	"slices"

	"cohort/certify"
	"cohort/internal/binlog"
)

// Txn is a transaction or, with Direct, a statement that its origin has
// committed already.
type Txn struct {
	Direct bool
	// Member, Incarnation and Seq say whose proposal it is, and which: the
	// state machine takes Seq only when it is the last one plus 1.
	Member      uint64
	Incarnation uint64
	Seq         uint64
	// Epoch is that in which the transaction ran.
	Epoch uint64
	// XID is that of the prepared transaction (not for Direct).
	XID string
	// LocalGTID is "uuid:n" of the event in the origin's own binary log.
	LocalGTID string
	Snapshot  certify.Snapshot
	// Writes, Refs and Tables are the write set, see certify.Txn.
	Writes, Refs, Tables      []uint64
	Serial, CommitOrder, Wide bool
	// Refuse, when not 0, is the MySQL error that the transaction gets: it is
	// ordered only to be aborted, so that everyone learns of it the same way.
	Refuse uint16
	Meta   binlog.Meta
	// Stream, when not 0, says that the body came in fragments of that stream.
	Stream uint64
	// BodyLen is the size of the body in bytes before compression.
	BodyLen int64
	// Body is absent when Stream is set.
	Body []byte
	// Compressed says that Body is one zstd frame.
	Compressed bool
}

const (
	txnSerial = 1 << iota
	txnCommitOrder
	txnWide
	txnCompressed
	txnKnownFlags = txnSerial | txnCommitOrder | txnWide | txnCompressed
)

// AppendItem appends the item to an entry. Layout of the body, integers as
// varints: version (1 byte), member, incarnation, seq, flags, epoch, xid and
// local GTID behind their lengths, snapshot (low, count, differences), refuse,
// meta, write set (three times count and 8 bytes each, little-endian), stream,
// length of the body before compression, body to the end.
func (x *Txn) AppendItem(b []byte) []byte {
	kind := KindTxn
	if x.Direct {
		kind = KindDirect
	}
	f, start := beginItem(slices.Grow(b, x.SizeHint()), kind)
	f = append(f, txnVersion)
	f = appendOrigin(f, x.Member, x.Incarnation, x.Seq)
	var flags uint64
	for i, set := range [...]bool{x.Serial, x.CommitOrder, x.Wide, x.Compressed} {
		if set {
			flags |= 1 << i
		}
	}
	f = binary.AppendUvarint(f, flags)
	f = binary.AppendUvarint(f, x.Epoch)
	f = appendBytes(f, x.XID)
	f = appendBytes(f, x.LocalGTID)
	f = binary.AppendUvarint(f, x.Snapshot.Low)
	f = binary.AppendUvarint(f, uint64(len(x.Snapshot.Extra)))
	prev := x.Snapshot.Low
	for _, n := range x.Snapshot.Extra {
		f = binary.AppendUvarint(f, n-prev)
		prev = n
	}
	f = binary.AppendUvarint(f, uint64(x.Refuse))
	f = append(f, byte(x.Meta.Kind), x.Meta.GTIDFlags)
	f = binary.AppendUvarint(f, x.Meta.OriginalCommitTimestamp)
	f = binary.AppendUvarint(f, uint64(x.Meta.OriginalServerVersion))
	f = binary.AppendUvarint(f, uint64(x.Meta.Timestamp))
	for _, keys := range [...][]uint64{x.Writes, x.Refs, x.Tables} {
		f = binary.AppendUvarint(f, uint64(len(keys)))
		for _, k := range keys {
			f = binary.LittleEndian.AppendUint64(f, k)
		}
	}
	f = binary.AppendUvarint(f, x.Stream)
	f = binary.AppendUvarint(f, uint64(x.BodyLen))
	f = append(f, x.Body...)
	return endItem(f, start)
}

// SizeHint is about how many bytes the item takes, rather more than less.
func (x *Txn) SizeHint() int {
	return 160 + len(x.XID) + len(x.LocalGTID) + len(x.Body) + 10*len(x.Snapshot.Extra) +
		8*(len(x.Writes)+len(x.Refs)+len(x.Tables))
}

// decode fills x from an item; Body aliases b, the key slices of x are reused.
func (x *Txn) decode(kind Kind, b []byte) error {
	r := reader{b: b}
	if v := r.byte(); v != txnVersion && !r.bad {
		return fmt.Errorf("%w: transaction format %d", ErrUnsupported, v)
	}
	w, rf, tb := x.Writes[:0], x.Refs[:0], x.Tables[:0]
	ex := x.Snapshot.Extra[:0]
	*x = Txn{Direct: kind == KindDirect, Member: r.uvarint(), Incarnation: r.uvarint(), Seq: r.uvarint()}
	flags := r.uvarint()
	if flags&^txnKnownFlags != 0 {
		return fmt.Errorf("%w: transaction flags %#x", ErrUnsupported, flags)
	}
	x.Serial, x.CommitOrder = flags&txnSerial != 0, flags&txnCommitOrder != 0
	x.Wide, x.Compressed = flags&txnWide != 0, flags&txnCompressed != 0
	x.Epoch = r.uvarint()
	x.XID, x.LocalGTID = r.string(), r.string()
	x.Snapshot.Low = r.uvarint()
	prev := x.Snapshot.Low
	for n := r.count(1); n > 0; n-- {
		d := r.uvarint()
		if d == 0 || prev+d < prev {
			return fmt.Errorf("%w: snapshot", ErrMalformed)
		}
		prev += d
		ex = append(ex, prev)
	}
	x.Snapshot.Extra = ex
	refuse := r.uvarint()
	x.Meta.Kind, x.Meta.GTIDFlags = binlog.Kind(r.byte()), r.byte()
	x.Meta.OriginalCommitTimestamp = r.uvarint()
	version, ts := r.uvarint(), r.uvarint()
	x.Writes, x.Refs, x.Tables = r.keys(w), r.keys(rf), r.keys(tb)
	x.Stream = r.uvarint()
	size := r.uvarint()
	if r.bad || refuse > 1<<16-1 || version > 1<<32-1 || ts > 1<<32-1 || size > 1<<40 {
		return fmt.Errorf("%w: transaction", ErrMalformed)
	}
	x.Refuse, x.BodyLen = uint16(refuse), int64(size)
	x.Meta.OriginalServerVersion, x.Meta.Timestamp = uint32(version), uint32(ts)
	x.Body = r.b
	return nil
}

func (r *reader) keys(to []uint64) []uint64 {
	for n := r.count(8); n > 0; n-- {
		to = append(to, r.fixed())
	}
	return to
}

func appendOrigin(f []byte, member, incarnation, seq uint64) []byte {
	f = binary.AppendUvarint(f, member)
	f = binary.AppendUvarint(f, incarnation)
	return binary.AppendUvarint(f, seq)
}

// Fragment carries a part of a body ahead of the transaction that names its
// stream. A member has one stream at a time; a new one drops the old.
type Fragment struct {
	Member      uint64
	Incarnation uint64
	Seq         uint64
	// Stream is the Seq of the stream's first fragment.
	Stream uint64
	// Offset is where Data belongs, in bytes before compression.
	Offset     int64
	Data       []byte
	Compressed bool
	// Len is the size of Data before compression.
	Len int64
}

// AppendItem appends the item to an entry.
func (x *Fragment) AppendItem(b []byte) []byte {
	f, start := beginItem(slices.Grow(b, 80+len(x.Data)), KindFragment)
	f = append(f, txnVersion)
	f = appendOrigin(f, x.Member, x.Incarnation, x.Seq)
	f = binary.AppendUvarint(f, x.Stream)
	f = binary.AppendUvarint(f, uint64(x.Offset))
	f = binary.AppendUvarint(f, uint64(x.Len))
	f = append(f, boolByte(x.Compressed))
	f = append(f, x.Data...)
	return endItem(f, start)
}

func (x *Fragment) decode(b []byte) error {
	r := reader{b: b}
	if v := r.byte(); v != txnVersion && !r.bad {
		return fmt.Errorf("%w: fragment format %d", ErrUnsupported, v)
	}
	*x = Fragment{Member: r.uvarint(), Incarnation: r.uvarint(), Seq: r.uvarint(), Stream: r.uvarint()}
	off, n := r.uvarint(), r.uvarint()
	x.Compressed = r.bool()
	if r.bad || off > 1<<40 || n > MaxFragment {
		return fmt.Errorf("%w: fragment", ErrMalformed)
	}
	x.Offset, x.Len, x.Data = int64(off), int64(n), r.b
	return nil
}

// MaxFragment bounds the size of a body or of a part of one within an entry, in
// bytes before compression: what comes out of a decompressor must be bounded.
const MaxFragment = 64 << 20

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}
