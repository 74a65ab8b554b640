package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"cohort/certify"
	"cohort/consensus/state"
	"cohort/internal/binlog"
)

// Proposal is a prepared transaction or a direct statement to be ordered. It
// must not be changed after Submit, nor may what Body and the slices refer to.
type Proposal struct {
	// Direct marks a statement that this member's mysqld has committed.
	Direct bool
	// XID is that of the prepared transaction.
	XID string
	// LocalGTID is "uuid:n" of the event in this mysqld's binary log. Direct
	// statements need it.
	LocalGTID string
	// Epoch is that in which the transaction ran, 0 for the current one.
	Epoch    uint64
	Snapshot certify.Snapshot
	// Writes, Refs and Tables are the write set, see certify.Txn.
	Writes, Refs, Tables      []uint64
	Serial, CommitOrder, Wide bool
	// Refuse, when not 0, is the MySQL error number to abort it with.
	Refuse uint16
	Meta   binlog.Meta
	// Body is the events. Larger bodies are given by Open instead, which is
	// called exactly once after Submit took the proposal, later and from another
	// goroutine. The reader must yield BodyLen bytes and is always closed, even
	// where nobody reads it.
	Body    []byte
	Open    func() (io.ReadCloser, error)
	BodyLen int64
}

// ErrBody is returned for a proposal whose body is not what it says.
var ErrBody = errors.New("consensus: body and its length differ")

func (p *Proposal) check() error {
	switch {
	case p.Refuse != 0:
		return nil
	case p.Open == nil && int64(len(p.Body)) != p.BodyLen:
		return fmt.Errorf("%w: %d bytes, not %d", ErrBody, len(p.Body), p.BodyLen)
	case p.Direct && p.LocalGTID == "", !p.Direct && p.XID == "":
		return errors.New("consensus: a proposal without a name")
	}
	return p.Meta.Validate()
}

// header returns the transaction without its body, sequence and origin.
func (p *Proposal) header(maxKeys int) state.Txn {
	t := state.Txn{Direct: p.Direct, Epoch: p.Epoch, XID: p.XID, LocalGTID: p.LocalGTID,
		Snapshot: p.Snapshot, Writes: p.Writes, Refs: p.Refs, Tables: p.Tables,
		Serial: p.Serial, CommitOrder: p.CommitOrder, Wide: p.Wide,
		Refuse: p.Refuse, Meta: p.Meta}
	if t.Refuse != 0 {
		// It only has to be told; what it wrote does not matter to anyone.
		t.Writes, t.Refs, t.Tables, t.Meta = nil, nil, nil, binlog.Meta{}
		return t
	}
	t.BodyLen = p.BodyLen
	// Beyond that, remembering every key would cost every member more memory
	// than a coarser conflict costs concurrency.
	if len(t.Writes)+len(t.Refs) > maxKeys {
		t.Wide, t.Writes, t.Refs = true, nil, nil
	}
	return t
}

// packer compresses bodies. It is safe for concurrent use.
type packer struct {
	enc       *zstd.Encoder
	threshold int
}

func newPacker(threshold int) (*packer, error) {
	p := &packer{threshold: threshold}
	if threshold < 0 {
		return p, nil
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(512<<10))
	if err != nil {
		return nil, fmt.Errorf("consensus: zstd: %w", err)
	}
	p.enc = enc
	return p, nil
}

// pack returns data compressed, where total, of which it is a part, is large
// enough and compression gains anything.
func (p *packer) pack(data []byte, total int64) ([]byte, bool) {
	if p.threshold < 0 || total < int64(p.threshold) {
		return data, false
	}
	out := p.enc.EncodeAll(data, make([]byte, 0, len(data)/2+64))
	if len(out) >= len(data) {
		return data, false
	}
	return out, true
}

// large is a proposal whose body goes ahead of it in fragments.
type large struct {
	txn   state.Txn
	low   uint64
	open  func() (io.ReadCloser, error)
	after uint64 // not before this many small ones were sent
	room  int64  // bytes to be given back to Submit
	frags chan *state.Fragment
	err   error // set before frags is closed early
	// stream is the sequence number of the first fragment sent.
	stream uint64
	begun  bool
	drop   context.CancelFunc // ends read
	done   chan struct{}      // closed when read has ended
}

// read cuts the body into fragments, one ahead of the sender, until ctx ends.
func (l *large) read(ctx context.Context, p *Proposer) {
	defer p.signal()
	defer close(l.done)
	defer close(l.frags)
	l.err = l.produce(ctx, p)
}

func (l *large) produce(ctx context.Context, p *Proposer) error {
	r, err := l.open()
	if err != nil {
		return fmt.Errorf("consensus: body: %w", err)
	}
	defer r.Close()
	for off := int64(0); off < l.txn.BodyLen; {
		data := make([]byte, min(int64(p.n.cfg.FragmentSize), l.txn.BodyLen-off))
		if _, err := io.ReadFull(r, data); err != nil {
			return fmt.Errorf("%w: at %d of %d: %w", ErrBody, off, l.txn.BodyLen, err)
		}
		f := &state.Fragment{Offset: off, Len: int64(len(data))}
		f.Data, f.Compressed = p.pack.pack(data, l.txn.BodyLen)
		off += f.Len
		select {
		case l.frags <- f:
			p.signal()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
