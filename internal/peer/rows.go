package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"cohort/internal/binlog"
)

// A donor connection carries rows and nothing else, so that they hold up neither
// heartbeats nor applied numbers. It begins like any other; frameRowsLogin in place
// of frameLogin, with another role in its proof, says what it is. Each of its
// frames ends with a CRC-32C of its type and payload:
//
//	client: rowsRequest (after, to)
//	server: per transaction rowsTxn (n, dep, meta, size of the body), rowsData until
//	        the body is complete; rowsEnd after transaction to. Instead of anything
//	        rowsRefused (reason, first, last, text), which ends the connection.
const (
	frameRowsLogin   frameType = 9
	frameRowsRequest frameType = 10
	frameRowsTxn     frameType = 11
	frameRowsData    frameType = 12
	frameRowsEnd     frameType = 13
	frameRowsRefused frameType = 14
)

const (
	// rowsChunk is how much of a body one frame carries, rowsWrite how much is
	// gathered for one write: what either side holds of a large one.
	rowsChunk = 32 << 10
	rowsWrite = 256 << 10
	// maxRowsFrame bounds the frames of a donor connection.
	maxRowsFrame = rowsChunk + 1<<10
	// maxRowsText bounds the text of a refusal, bytes.
	maxRowsText = 512
	// maxBody bounds a body; the group's own limit on transactions is lower.
	maxBody = 1 << 32
	// DefaultRowsTimeout is how long either side of a donor connection waits for
	// the other: rows are written to a disk as they come.
	DefaultRowsTimeout = 30 * time.Second
	// maxDonations is how many members one donor serves at once.
	maxDonations = 4
)

// Row is a transaction without its body.
type Row struct {
	N, Dep uint64
	Meta   binlog.Meta
	// Size is that of the body, bytes.
	Size int64
}

// RefusedError says why a donor does not serve what it was asked for.
type RefusedError struct {
	// Purged: it no longer has the first transaction asked for.
	Purged bool
	// First and Last are what it has.
	First, Last uint64
	Text        string
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("peer: the donor refuses: %s (it has transactions %d-%d)", e.Text, e.First, e.Last)
}

// TakeError is a failure of the receiver's own, not of the donor.
type TakeError struct{ Err error }

// Error implements error.
func (e *TakeError) Error() string { return e.Err.Error() }

// Unwrap returns the failure.
func (e *TakeError) Unwrap() error { return e.Err }

// ErrChecksum says that a frame is not what was sent.
var ErrChecksum = fmt.Errorf("%w: checksum", ErrFrame)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendSummed appends a frame with a checksum.
func appendSummed(b []byte, typ frameType, fill func([]byte) []byte) []byte {
	start := len(b)
	return appendFrame(b, typ, func(b []byte) []byte {
		if fill != nil {
			b = fill(b)
		}
		return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start+4:], castagnoli))
	})
}

// summed takes the checksum off a frame's payload.
func summed(typ frameType, p []byte) ([]byte, error) {
	if len(p) < 4 {
		return nil, fmt.Errorf("%w: no checksum", ErrFrame)
	}
	body, sum := p[:len(p)-4], binary.BigEndian.Uint32(p[len(p)-4:])
	if crc32.Update(crc32.Checksum([]byte{byte(typ)}, castagnoli), castagnoli, body) != sum {
		return nil, ErrChecksum
	}
	return body, nil
}

type rowsRequest struct{ after, to uint64 }

func (q rowsRequest) append(b []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, q.after), q.to)
}

func parseRowsRequest(p []byte) (rowsRequest, error) {
	d := decoder{p: p}
	q := rowsRequest{after: d.uvarint(), to: d.uvarint()}
	if q.to <= q.after {
		d.fail()
	}
	return q, d.end("request for rows")
}

func (r *Row) append(b []byte) []byte {
	for _, v := range [...]uint64{r.N, r.Dep, uint64(r.Meta.Kind), uint64(r.Meta.GTIDFlags), r.Meta.OriginalCommitTimestamp,
		uint64(r.Meta.OriginalServerVersion), uint64(r.Meta.Timestamp), uint64(r.Size)} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func parseRow(p []byte) (Row, error) {
	d := decoder{p: p}
	r := Row{N: d.uvarint(), Dep: d.uvarint()}
	kind, flags := d.uvarint(), d.uvarint()
	r.Meta.OriginalCommitTimestamp = d.uvarint()
	server, at, size := d.uvarint(), d.uvarint(), d.uvarint()
	if kind > 0xff || flags > 0xff || server > 1<<32-1 || at > 1<<32-1 || size == 0 || size > maxBody || r.Dep >= r.N {
		d.fail()
	}
	r.Meta.Kind, r.Meta.GTIDFlags = binlog.Kind(kind), byte(flags)
	r.Meta.OriginalServerVersion, r.Meta.Timestamp, r.Size = uint32(server), uint32(at), int64(size)
	if err := d.end("transaction"); err != nil {
		return r, err
	}
	if err := r.Meta.Validate(); err != nil {
		return r, fmt.Errorf("%w: transaction %d: %w", ErrFrame, r.N, err)
	}
	return r, nil
}

func (e *RefusedError) append(b []byte) []byte {
	purged := byte(0)
	if e.Purged {
		purged = 1
	}
	b = append(b, purged)
	b = binary.AppendUvarint(binary.AppendUvarint(b, e.First), e.Last)
	return appendString(b, e.Text[:min(len(e.Text), maxRowsText)])
}

func parseRefused(p []byte) (*RefusedError, error) {
	d := decoder{p: p}
	e := &RefusedError{}
	switch d.byte() {
	case 0:
	case 1:
		e.Purged = true
	default:
		d.fail()
	}
	e.First, e.Last, e.Text = d.uvarint(), d.uvarint(), d.string()
	return e, d.end("refusal")
}

var errBodyLeft = errors.New("peer: the body was not read to its end")
