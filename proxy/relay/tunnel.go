package relay

import (
	"errors"
	"sync"
	"time"

	"cohort/internal/wire"
)

// ErrCompressed says that a command cannot be served over compression.
var ErrCompressed = errors.New("not possible on a compressed connection")

// Tunnel forwards the client's present command and then copies bytes both ways
// until either side closes: for COM_BINLOG_DUMP, COM_BINLOG_DUMP_GTID and
// COM_CLONE, which own the connection from then on. Both connections are closed
// when it returns.
func (r *Relay) Tunnel() error {
	if r.Client.Compression() != wire.NoCompression {
		return errors.Join(clientErr(ErrCompressed),
			r.SendError(wire.NewError(1235, "42000", "This command is not supported on a compressed connection")))
	}
	if err := r.Forward(); err != nil {
		return err
	}
	if err := r.Flush(); err != nil {
		return err
	}
	r.expect = r.expect[:0]
	r.active.Add(1)
	defer r.active.Add(1)
	r.Client.NetConn().SetReadDeadline(time.Time{})
	var wg sync.WaitGroup
	var up error
	// The two directions use the two halves of each Conn, which share nothing.
	wg.Go(func() {
		up = pump(r.Client, r.Backend.Conn, clientErr, backendErr)
		r.Backend.Close()
	})
	down := pump(r.Backend.Conn, r.Client, backendErr, clientErr)
	r.Client.Close()
	wg.Wait()
	if IsGone(up) || IsGone(down) {
		return nil
	}
	return errors.Join(down, up)
}

func pump(src, dst *wire.Conn, srcErr, dstErr func(error) error) error {
	for {
		if err := src.Fill(1); err != nil {
			return srcErr(err)
		}
		b := src.Buffered()
		if err := dst.WriteThrough(b); err != nil {
			return dstErr(err)
		}
		src.Discard(len(b))
		src.Release()
	}
}
