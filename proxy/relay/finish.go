package relay

import (
	"errors"
	"fmt"

	"cohort/internal/wire"
)

// failed handles an ERR packet, which always ends a response.
func (s *scanner) failed(n int) error {
	p, err := s.whole(n)
	if err != nil {
		return err
	}
	e, err := wire.ParseERR(p)
	if err != nil {
		return backendErr(err)
	}
	s.out.Kind, s.out.OK, s.out.Err = KindErr, wire.OK{}, e
	s.patchEOF(s.r.Status)
	if s.o.Swallow {
		return s.accept()
	}
	if s.o.Hold {
		return s.hold(n)
	}
	if s.o.Rewrite == nil {
		return s.accept()
	}
	shown := &s.r.shown
	*shown = *s.out
	said := *e
	shown.Err = &said
	if !s.o.alter(shown, true, &s.altmem) {
		return s.accept()
	}
	return s.replace(n, shown)
}

// end handles the packet that closes one result: an OK, or the end of rows.
func (s *scanner) end(kind Kind, n int) error {
	p, err := s.whole(n)
	if err != nil {
		return err
	}
	ok, err := wire.ParseOK(p, s.r.Backend.Caps)
	if err != nil {
		return backendErr(err)
	}
	s.patchEOF(ok.Status)
	last := ok.Status&wire.StatusMoreResults == 0
	s.out.Kind, s.out.OK = kind, ok
	if last {
		s.own()
	}
	if s.o.Swallow {
		return s.accept()
	}
	if last && s.o.Hold {
		return s.hold(n)
	}
	shown := &s.r.shown
	*shown = *s.out
	changed := s.o.alter(shown, last, &s.altmem)
	s.r.Status = shown.Status
	if !changed && s.passable(kind, &shown.OK) {
		return s.accept()
	}
	return s.replace(n, shown)
}

// own copies the slices of the outcome out of the read buffer.
func (s *scanner) own() {
	r, ok := s.r, &s.out.OK
	i := len(ok.Info)
	r.keep = append(append(r.keep[:0], ok.Info...), ok.Trackers...)
	ok.Info, ok.Trackers = r.keep[:i:i], wire.Trackers(r.keep[i:])
}

// passable reports whether a closing packet of the backend's is what the client
// would get from the server itself.
func (s *scanner) passable(kind Kind, ok *wire.OK) bool {
	if kind == KindEOF && s.legacy {
		return false
	}
	return s.r.ClientCaps.Has(wire.SessionTrack) || ok.Status&wire.StatusSessionStateChanged == 0
}

// hold takes the final packet away from the client's stream.
func (s *scanner) hold(n int) error {
	s.out.Held = true
	return s.take(n)
}

// take consumes a packet that is not passed on as it is.
func (s *scanner) take(n int) error {
	if err := s.settle(false); err != nil {
		return err
	}
	s.seq++
	s.out.Bytes += uint64(wire.HeaderSize + n)
	s.b.Discard(wire.HeaderSize + n)
	return nil
}

func (s *scanner) replace(n int, shown *Outcome) error {
	// The outcome is encoded first: it may point into the packet it replaces.
	enc := s.r.encode(shown)
	if err := s.take(n); err != nil {
		return err
	}
	s.out.Relayed = true
	if err := s.c.WritePacket(enc); err != nil {
		return clientErr(err)
	}
	return nil
}

// encode renders a closing packet for the client; valid until the next call.
func (r *Relay) encode(o *Outcome) []byte {
	switch o.Kind {
	case KindErr:
		r.enc = wire.AppendERR(r.enc[:0], o.Err)
	case KindEOF:
		r.enc = wire.AppendEOF(r.enc[:0], &o.OK, r.ClientCaps)
	default:
		r.enc = wire.AppendOK(r.enc[:0], wire.HeaderOK, &o.OK, r.ClientCaps)
	}
	return r.enc
}

// Finish sends the final packet of a held response, altered as o says (nil: not
// at all). The caller may have changed out before, its Kind and Err included.
func (r *Relay) Finish(out *Outcome, o *ResponseOptions) error {
	if out.Kind != KindOK && out.Kind != KindEOF && out.Kind != KindErr {
		return fmt.Errorf("relay: nothing to finish")
	}
	shown := &r.shown
	*shown = *out
	if o != nil {
		o.alter(shown, true, &r.sc.altmem)
	}
	if shown.Kind != KindErr {
		r.Status = shown.Status
	}
	out.Held = false
	return r.sendClient(r.encode(shown))
}

// SendOK answers the client's present command with an OK packet.
func (r *Relay) SendOK(ok *wire.OK) error {
	if err := r.DropCommand(); err != nil {
		return err
	}
	r.Status = ok.Status
	return r.sendClient(r.encode(&Outcome{Kind: KindOK, OK: *ok}))
}

// SendEOF sends what ends a result set for this client, or answers commands whose
// success is an EOF (COM_SET_OPTION, COM_DEBUG).
func (r *Relay) SendEOF(ok *wire.OK) error {
	if err := r.DropCommand(); err != nil {
		return err
	}
	r.Status = ok.Status
	return r.sendClient(r.encode(&Outcome{Kind: KindEOF, OK: *ok}))
}

// errTorn: the client is in the middle of something that only the backend could
// have ended.
var errTorn = errors.New("the response broke off where no error can be told")

// SendError answers the client's present command with an ERR packet.
func (r *Relay) SendError(e *wire.ServerError) error {
	if r.torn {
		return clientErr(errTorn)
	}
	if err := r.DropCommand(); err != nil {
		return err
	}
	return r.sendClient(r.encode(&Outcome{Kind: KindErr, Err: e}))
}

// SendResult answers the client's present command with a text result set.
func (r *Relay) SendResult(cols []wire.Column, rows [][][]byte, ok *wire.OK) error {
	if err := r.DropCommand(); err != nil {
		return err
	}
	r.Status = ok.Status
	err := wire.WriteTextResult(r.Client, r.ClientCaps, cols, rows, ok)
	if err == nil {
		err = r.Client.Flush()
	}
	if err != nil {
		return clientErr(err)
	}
	return nil
}

func (r *Relay) sendClient(p []byte) error {
	if err := send(r.Client, p); err != nil {
		return clientErr(err)
	}
	return nil
}
