package transport

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
)

// snapshotConn sends a snapshot, chunk by chunk: a chunk counts as sent when the
// other side has taken it.
type snapshotConn struct {
	c     *outConn
	stop  func() bool
	frame []byte
}

var _ raftio.ISnapshotConnection = (*snapshotConn)(nil)

func newSnapshotConn(ctx context.Context, c *outConn) *snapshotConn {
	return &snapshotConn{c: c, stop: context.AfterFunc(ctx, func() { c.Close() })}
}

// Close implements raftio.ISnapshotConnection.
func (s *snapshotConn) Close() {
	s.stop()
	s.c.Close()
}

// SendChunk implements raftio.ISnapshotConnection.
func (s *snapshotConn) SendChunk(chunk raftpb.Chunk) error {
	n := chunk.Size()
	if n > maxFrame {
		return fmt.Errorf("transport: chunk of %d bytes", n)
	}
	var payload []byte
	s.frame, payload = growFrame(s.frame, n)
	if _, err := chunk.MarshalTo(payload); err != nil {
		return err
	}
	sealFrame(s.frame, frameChunk|flagAsk, s.c.sum)
	// The other side writes to its disk before it answers.
	if err := s.c.SetDeadline(time.Now().Add(chunkTimeout)); err != nil {
		return err
	}
	if err := s.c.write(s.frame); err != nil {
		return fmt.Errorf("transport: %w", err)
	}
	b, err := s.c.r.ReadByte()
	switch {
	case err != nil:
		return fmt.Errorf("transport: %w", err)
	case b != ack:
		return errors.New("transport: the chunk was not taken")
	}
	return nil
}
