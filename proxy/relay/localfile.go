package relay

import "errors"

// localFile relays a LOAD DATA LOCAL exchange: the backend's request, then the
// client's packets up to an empty one. The backend's verdict follows.
func (s *scanner) localFile() error {
	if err := s.accept(); err != nil {
		return err
	}
	if s.o.Swallow {
		// Nobody is there to send a file: an empty one.
		s.b.Seq = s.seq
		if err := send(s.b, nil); err != nil {
			return backendErr(err)
		}
		s.seq++
		return nil
	}
	if err := s.settle(true); err != nil {
		return err
	}
	s.r.armIdle()
	for {
		n, _, err := s.c.PeekHeader()
		if err != nil {
			return clientErr(err)
		}
		last, err := s.r.stream(s.c, s.b, s.seq)
		if err != nil && !errors.Is(err, ErrBackend) {
			return err
		}
		if s.seq = last + 1; n == 0 {
			s.c.Release()
			return nil
		}
	}
}
