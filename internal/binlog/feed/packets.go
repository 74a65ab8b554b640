package feed

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"cohort/internal/binlog"
	"cohort/internal/wire"
)

// writeBuffer is how much of a backlog goes out in one write.
const writeBuffer = 64 << 10

// packetWriter frames events as packets of a dump: a zero byte, then the event,
// cut into physical packets where it is that long. It buffers until flush.
type packetWriter struct {
	w   *bufio.Writer
	seq byte
	// position is what heartbeats say: it must never fall behind what the
	// receiver counts, which is 4 plus every event's length since the rotate
	// event, whatever it counts as an event. Starting far ahead is allowed and
	// keeps clear of its rules.
	position uint64

	left    int  // payload of the event still to come
	piece   int  // of which in the current physical packet
	maximal bool // the current physical packet is of the maximal size

	head [wire.HeaderSize]byte // scratch
	gtid []byte                // scratch
}

const heartbeatBase = 5_000_000_000

func newPacketWriter(w io.Writer, seq byte) *packetWriter {
	return &packetWriter{w: bufio.NewWriterSize(w, writeBuffer), seq: seq, position: heartbeatBase}
}

// event queues a whole event.
func (p *packetWriter) event(ev []byte) error {
	if err := p.begin(len(ev)); err != nil {
		return err
	}
	_, err := p.Write(ev)
	return err
}

// heartbeat queues a heartbeat. It is not counted itself: the receiver takes
// over its position, and one that says the same again costs the receiver
// nothing, whereas a higher one is written to its relay log.
func (p *packetWriter) heartbeat() error {
	position := p.position
	err := p.event(binlog.AppendHeartbeat(nil, streamFile, position))
	p.position = position
	return err
}

// begin queues the start of an event of size bytes, which Write must complete.
func (p *packetWriter) begin(size int) error {
	p.position += uint64(size)
	p.left = size + 1
	if err := p.header(); err != nil {
		return err
	}
	p.left--
	p.piece--
	return p.w.WriteByte(0)
}

func (p *packetWriter) header() error {
	p.piece = min(p.left, wire.MaxPayload)
	p.maximal = p.piece == wire.MaxPayload
	wire.PutHeader(p.head[:], p.piece, p.seq)
	p.seq++
	_, err := p.w.Write(p.head[:])
	return err
}

// Write queues the next bytes of the event that begin announced.
func (p *packetWriter) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n := min(len(b)-done, p.piece)
		if n == 0 {
			return done, io.ErrShortWrite
		}
		k, err := p.w.Write(b[done : done+n])
		done += k
		p.piece -= k
		p.left -= k
		if err != nil {
			return done, err
		}
		// A physical packet of the maximal size is always followed by another,
		// an empty one if nothing is left.
		if p.piece == 0 && p.maximal {
			if err := p.header(); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

func (p *packetWriter) flush() error { return p.w.Flush() }

// transaction queues a whole transaction held in memory, with lastCommitted and
// sequence in its GTID event.
func (p *packetWriter) transaction(raw []byte, lastCommitted, sequence int64) error {
	ev, rest, err := binlog.NextEvent(raw)
	if err != nil {
		return err
	}
	p.gtid = append(p.gtid[:0], ev...) // raw is shared with other streams
	if err := binlog.PatchGTIDClock(p.gtid, lastCommitted, sequence); err != nil {
		return err
	}
	if err := p.event(p.gtid); err != nil {
		return err
	}
	for len(rest) > 0 {
		if ev, rest, err = binlog.NextEvent(rest); err != nil {
			return err
		}
		if err := p.event(ev); err != nil {
			return err
		}
	}
	return nil
}

// stream queues a transaction that is too large to be held in memory.
func (p *packetWriter) stream(src io.Reader, lastCommitted, sequence int64) error {
	br := bufio.NewReaderSize(src, 4*writeBuffer)
	for first := true; ; first = false {
		head, err := br.Peek(binlog.HeaderSize)
		if err == io.EOF && len(head) == 0 && !first {
			return nil
		}
		if err != nil {
			return noEOF(err)
		}
		h, err := binlog.ParseHeader(head)
		if err != nil {
			return err
		}
		if first {
			gtid := make([]byte, min(h.Size, 4096))
			if _, err := io.ReadFull(br, gtid); err != nil {
				return noEOF(err)
			}
			if err := binlog.PatchGTIDClock(gtid, lastCommitted, sequence); err != nil {
				return err
			}
			if err := p.event(gtid); err != nil {
				return err
			}
			continue
		}
		if h.Size < binlog.MinEventSize {
			return fmt.Errorf("%w: event of %d bytes", binlog.ErrMalformed, h.Size)
		}
		if err := p.copyEvent(br, int64(h.Size)); err != nil {
			return err
		}
	}
}

// copyEvent queues an event of size bytes from src. Its checksum is verified
// before the last bytes go out, so that damage drops the connection instead of
// reaching the receiver, which would stop for good.
func (p *packetWriter) copyEvent(src io.Reader, size int64) error {
	if err := p.begin(int(size)); err != nil {
		return err
	}
	sum := crc32.NewIEEE()
	if _, err := io.CopyN(p, io.TeeReader(src, sum), size-binlog.ChecksumSize); err != nil {
		return noEOF(err)
	}
	var end [binlog.ChecksumSize]byte
	if _, err := io.ReadFull(src, end[:]); err != nil {
		return noEOF(err)
	}
	if binary.LittleEndian.Uint32(end[:]) != sum.Sum32() {
		return fmt.Errorf("%w: event of %d bytes", binlog.ErrChecksum, size)
	}
	_, err := p.Write(end[:])
	return err
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// stripChecksum cuts the checksum off a whole event.
func stripChecksum(ev []byte) []byte {
	ev = ev[:len(ev)-binlog.ChecksumSize]
	binary.LittleEndian.PutUint32(ev[9:], uint32(len(ev)))
	return ev
}
