package relay

import (
	"errors"
	"fmt"
	"io"
	"time"

	"cohort/internal/wire"
)

// Command is one command of the client. Payload starts with the command byte; it
// is valid until the next ReadCommand, or until a response that reads a local
// file from the client.
type Command struct {
	Code    byte
	Payload []byte
	// Streamed says that the command is longer than Options.MaxInline and
	// Payload only its beginning; Forward passes the rest on as it arrives.
	Streamed bool
}

// Arg returns the payload behind the command byte.
func (c *Command) Arg() []byte {
	if len(c.Payload) == 0 {
		return nil
	}
	return c.Payload[1:]
}

// streamHead is how much of a streamed command is shown for classification.
const streamHead = 64 << 10

// HasResponse reports whether the server answers a command at all.
func HasResponse(code byte) bool {
	return code != wire.ComQuit && code != wire.ComStmtClose && code != wire.ComStmtSendLongData
}

// ReadCommand waits for the client's next command. Whatever is left of the last
// one is dropped. A client that breaks the protocol is told so; the error then
// wraps [ErrClient], as it does when the client is gone (io.EOF inside).
func (r *Relay) ReadCommand() (*Command, error) {
	if err := r.DropCommand(); err != nil {
		return nil, err
	}
	c := r.Client
	r.armIdle()
	if err := c.WaitIdle(wire.HeaderSize); err != nil {
		return nil, clientErr(err)
	}
	n, seq, err := c.PeekHeader()
	if err != nil {
		return nil, clientErr(err)
	}
	c.Seq = seq + 1
	if seq != 0 {
		return nil, errors.Join(clientErr(wire.ErrSequence),
			r.tell(wire.NewError(errOutOfOrder, stateComm, "Got packets out of order")))
	}
	r.cmdLen = n
	r.begun, r.torn = false, false
	r.cmd = Command{Streamed: n > r.acc.opt.MaxInline}
	want := n
	if r.cmd.Streamed {
		want = min(n, streamHead)
	}
	if err := fillSteps(c, wire.HeaderSize+want); err != nil {
		return nil, clientErr(err)
	}
	b := c.Buffered()[wire.HeaderSize:]
	r.cmd.Payload = b[:min(n, len(b)):min(n, len(b))]
	if n > 0 {
		r.cmd.Code = r.cmd.Payload[0]
	}
	c.SyncSeq()
	return &r.cmd, nil
}

// fillSteps lets the buffer grow only as bytes arrive.
func fillSteps(c *wire.Conn, n int) error {
	for step := 64 << 10; step < n; step *= 2 {
		if err := c.Fill(step); err != nil {
			return err
		}
	}
	return c.Fill(n)
}

// armIdle renews the client's read deadline when a sixteenth of it has passed.
func (r *Relay) armIdle() {
	idle := r.acc.opt.IdleTimeout
	if idle <= 0 {
		return
	}
	if now := time.Now(); r.deadline.Sub(now) < idle-idle/16 {
		r.deadline = now.Add(idle)
		r.Client.NetConn().SetReadDeadline(r.deadline)
	}
}

// DropCommand consumes the client's present command without sending it on.
// Answering a command that was not forwarded does it too.
func (r *Relay) DropCommand() error {
	if r.cmdLen < 0 {
		return nil
	}
	if !r.cmd.Streamed {
		r.Client.Discard(wire.HeaderSize + r.cmdLen)
		r.cmdLen = -1
		return nil
	}
	r.cmdLen = -1
	for {
		n, seq, err := r.Client.PeekHeader()
		if err != nil {
			return clientErr(err)
		}
		r.Client.Seq = seq + 1
		r.Client.Discard(wire.HeaderSize)
		for left := n; left > 0; {
			if err := r.Client.Fill(1); err != nil {
				return clientErr(err)
			}
			k := min(left, len(r.Client.Buffered()))
			r.Client.Discard(k)
			left -= k
		}
		if n < wire.MaxPayload {
			r.Client.SyncSeq()
			return nil
		}
	}
}

// Forward sends the client's present command to the backend as it is. Short
// commands are queued behind what Queue queued, to leave in one write with the
// next Flush or Response.
func (r *Relay) Forward() error {
	if r.cmdLen < 0 {
		return fmt.Errorf("relay: there is no command to forward")
	}
	b, c := r.Backend.Conn, r.Client
	if r.cmd.Streamed {
		r.cmdLen = -1
		last, err := r.stream(c, b, 0)
		if HasResponse(r.cmd.Code) && (err == nil || errors.Is(err, ErrBackend)) {
			// A backend that closed because the command is too long has said
			// so: Response reads it, or fails in its turn.
			r.expect = append(r.expect, last+1)
			return nil
		}
		return err
	}
	raw := c.Buffered()[:wire.HeaderSize+r.cmdLen]
	wire.PutHeader(raw, r.cmdLen, 0)
	b.Seq = 1
	c.Discard(len(raw))
	r.cmdLen = -1
	if HasResponse(r.cmd.Code) {
		r.expect = append(r.expect, 1)
	}
	if err := b.WriteRaw(raw); err != nil {
		return backendErr(err)
	}
	return nil
}

// stream copies one logical packet from src to dst, numbering from seq, and
// returns the number of its last physical packet. When dst fails the rest of the
// packet is read all the same, and the error, of dst, comes at the end: the peer
// may have said why it closed, and src wants an answer to its whole packet.
func (r *Relay) stream(src, dst *wire.Conn, seq byte) (last byte, err error) {
	srcErr, dstErr := clientErr, backendErr
	var failed error
	for {
		n, s, err := src.PeekHeader()
		if err != nil {
			return 0, srcErr(err)
		}
		src.Seq = s + 1
		for left := wire.HeaderSize + n; left > 0; {
			if err := src.Fill(1); err != nil {
				return 0, srcErr(err)
			}
			b := src.Buffered()
			b = b[:min(left, len(b))]
			if left == wire.HeaderSize+n {
				wire.PutHeader(b, n, seq)
			}
			if failed == nil {
				if err := dst.WriteThrough(b); err != nil {
					failed = dstErr(err)
				}
			}
			src.Discard(len(b))
			left -= len(b)
		}
		if n < wire.MaxPayload {
			src.SyncSeq()
			dst.Seq = seq + 1
			return seq, failed
		}
		seq++
	}
}

// Queue queues a command of the proxy's own for the backend.
func (r *Relay) Queue(code byte, arg []byte) error {
	if err := wire.WriteCommand(r.Backend.Conn, code, arg); err != nil {
		return backendErr(err)
	}
	if HasResponse(code) {
		r.expect = append(r.expect, r.Backend.Conn.Seq)
	}
	return nil
}

// QueueQuery queues a statement of the proxy's own as a COM_QUERY.
func (r *Relay) QueueQuery(sql string) error {
	if err := r.Backend.WriteQuery(sql); err != nil {
		return backendErr(err)
	}
	r.expect = append(r.expect, r.Backend.Conn.Seq)
	return nil
}

// ForwardAs sends payload (command byte first) in place of the client's present
// command, which is dropped; its memory may be the command's own.
func (r *Relay) ForwardAs(payload []byte) error {
	if len(payload) == 0 {
		return fmt.Errorf("relay: empty command")
	}
	if err := r.Queue(payload[0], payload[1:]); err != nil {
		return err
	}
	return r.DropCommand()
}

// Flush sends what is queued for the backend.
func (r *Relay) Flush() error {
	if err := r.Backend.Conn.Flush(); err != nil {
		return backendErr(err)
	}
	return nil
}

// Outstanding is how many responses the backend still owes.
func (r *Relay) Outstanding() int { return len(r.expect) }

// IsGone reports whether an error means that the peer simply closed.
func IsGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
