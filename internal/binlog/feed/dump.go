package feed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/wire"
)

// streamFile is the name of the file that a stream claims to come from. Its
// positions mean nothing: receivers place themselves by GTID.
const streamFile = "cohort-feed.000001"

// flagNonBlock in a dump request: end with EOF instead of waiting for more.
const flagNonBlock = 1

// dumpRequest is what COM_BINLOG_DUMP_GTID asks for.
type dumpRequest struct {
	flags    uint16
	serverID uint32
	gtids    binlog.GTIDSet
}

// parseDump reads the payload of COM_BINLOG_DUMP_GTID behind the command byte:
// flags, server id, file name with its length, position, GTID set with its
// length.
func parseDump(p []byte) (dumpRequest, error) {
	var d dumpRequest
	short := fmt.Errorf("%w: dump request of %d bytes", errProtocol, len(p))
	if len(p) < 10 {
		return d, short
	}
	d.flags = binary.LittleEndian.Uint16(p)
	d.serverID = binary.LittleEndian.Uint32(p[2:])
	name := uint64(binary.LittleEndian.Uint32(p[6:]))
	p = p[10:]
	if uint64(len(p)) < name+8+4 {
		return d, short
	}
	p = p[name+8:]
	size := uint64(binary.LittleEndian.Uint32(p))
	p = p[4:]
	if uint64(len(p)) < size {
		return d, short
	}
	var err error
	d.gtids, err = binlog.ParseGTIDSet(p[:size])
	return d, err
}

// dump serves one COM_BINLOG_DUMP_GTID until the connection ends.
func (s *session) dump(ctx context.Context, payload []byte) error {
	d, err := parseDump(payload)
	if err != nil {
		return errors.Join(err, s.fail(wire.NewError(1236, "HY000", "malformed dump request")))
	}
	if len(s.c.Buffered()) > 0 { // watch looks only at the socket
		return fmt.Errorf("%w: behind a dump request", errProtocol)
	}
	have := d.gtids.Of(s.f.group, "")
	r, err := s.f.opt.Store.NewReader(have.Low())
	if errors.Is(err, groupbinlog.ErrPurged) {
		// No repetition helps: the receiver has to be provisioned anew.
		return errors.Join(err, s.fail(wire.NewError(1236, "HY000",
			"the group binlog no longer holds transaction %s:%d", s.f.opt.GroupUUID, have.Low()+1)))
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if err := s.nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if s.serverID == 0 {
		s.serverID = d.serverID
	}
	s.f.replace(s)
	s.sentN.Store(have.Low())
	s.f.opt.Logger.Info().Str("remote", s.nc.RemoteAddr().String()).Str("receiver", s.uuid).
		Uint64("after", have.Low()).Dur("heartbeat", s.heartbeat).Msg("feed stream started")

	done := make(chan struct{})
	go s.watch(done)
	defer func() {
		_ = s.nc.Close() // ends watch
		<-done
	}()
	return s.stream(ctx, r, have, d.flags&flagNonBlock != 0)
}

// watch notices that the receiver is gone while nothing is being sent. A
// receiver says nothing during a dump; whatever it says ends the stream.
func (s *session) watch(done chan<- struct{}) {
	defer close(done)
	var b [1]byte
	n, err := s.nc.Read(b[:])
	if n > 0 || err == nil {
		err = fmt.Errorf("%w: during a dump", errProtocol)
	}
	s.cancel(err)
}

func (s *session) stream(ctx context.Context, r *groupbinlog.Reader, have binlog.Intervals, nonBlock bool) error {
	w := newPacketWriter(s.nc, s.c.Seq)
	rotate := binlog.AppendRotate(nil, streamFile, binlog.MagicSize)
	if s.plainRotate {
		rotate = stripChecksum(rotate)
	}
	if err := w.event(rotate); err != nil {
		return err
	}
	if err := w.event(s.f.fde); err != nil {
		return err
	}
	clock := newClock(have.Low())
	if s.heartbeat <= 0 {
		return s.follow(ctx, r, have, nonBlock, w, clock, nil)
	}
	idle := time.NewTicker(s.heartbeat)
	defer idle.Stop()
	return s.follow(ctx, r, have, nonBlock, w, clock, idle)
}

// follow sends transactions as they come and heartbeats while none do.
func (s *session) follow(ctx context.Context, r *groupbinlog.Reader, have binlog.Intervals, nonBlock bool, w *packetWriter, clock *clock, idle *time.Ticker) error {
	var tick <-chan time.Time
	if idle != nil {
		tick = idle.C
	}
	for {
		sent, err := s.backlog(r, have, w, clock)
		if err != nil {
			return err
		}
		if err := w.flush(); err != nil {
			return err
		}
		if sent && idle != nil {
			idle.Reset(s.heartbeat)
		}
		if nonBlock {
			return s.end(w)
		}
		select {
		case <-r.Appended():
		case <-tick:
			if err := w.heartbeat(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// backlog queues everything that is there to send; w writes whenever its buffer
// is full, so a backlog goes out in large writes.
func (s *session) backlog(r *groupbinlog.Reader, have binlog.Intervals, w *packetWriter, clock *clock) (sent bool, err error) {
	for {
		t, ok, err := r.TryNext()
		if err != nil {
			s.readFailed(err)
			return sent, err
		}
		if !ok {
			return sent, nil
		}
		if have.Contains(t.N) || s.f.opt.Skip(t.N) {
			clock.leaveOut(t.N)
			s.sentN.Store(t.N)
			continue
		}
		lastCommitted, sequence := clock.next(t.N, t.Dep)
		if t.Raw != nil {
			err = w.transaction(t.Raw, lastCommitted, sequence)
		} else {
			err = w.stream(t.Bytes(), lastCommitted, sequence)
		}
		if err != nil {
			if errors.Is(err, binlog.ErrMalformed) || errors.Is(err, binlog.ErrChecksum) || errors.Is(err, binlog.ErrTruncated) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("%w: transaction %d: %w", groupbinlog.ErrCorrupt, t.N, err)
				s.readFailed(err)
			}
			return sent, err
		}
		sent = true
		s.sentN.Store(t.N)
	}
}

// readFailed tells of errors that do not go away by dialling again.
func (s *session) readFailed(err error) {
	if errors.Is(err, groupbinlog.ErrCorrupt) && s.f.opt.Failed != nil {
		s.f.opt.Failed(err)
	}
}

// end closes a dump that was asked not to wait.
func (s *session) end(w *packetWriter) error {
	eof := wire.AppendEOF(nil, &wire.OK{}, s.caps&^wire.DeprecateEOF)
	s.c.Seq = w.seq
	return s.send(eof)
}
