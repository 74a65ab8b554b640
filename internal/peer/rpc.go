package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// Errors of Call.
var (
	// ErrDown says that there is no connection, so the request was not sent.
	ErrDown = errors.New("peer: not connected")
	// ErrLost says that the connection ended before the response came: whether
	// the request was carried out is unknown.
	ErrLost = errors.New("peer: connection lost before the response")
)

// RemoteError is a failure that the other side's handler reported.
type RemoteError struct{ Method, Text string }

// Error implements error.
func (e *RemoteError) Error() string { return fmt.Sprintf("peer: %s: %s", e.Method, e.Text) }

// maxMethod bounds a method's name, bytes.
const maxMethod = 255

type request struct {
	id      uint64
	method  string
	payload []byte
}

func (q request) append(b []byte) []byte {
	b = binary.AppendUvarint(b, q.id)
	b = appendString(b, q.method)
	return append(b, q.payload...)
}

func parseRequest(p []byte) (request, error) {
	d := decoder{p: p}
	q := request{id: d.uvarint()}
	n := d.uvarint()
	if n > maxMethod {
		d.fail()
	}
	q.method = string(d.bytes(n))
	q.payload = bytes.Clone(d.p)
	d.p = nil
	return q, d.end("request")
}

type response struct {
	id      uint64
	failed  bool
	payload []byte // the error's text if failed
}

func (r response) append(b []byte) []byte {
	b = binary.AppendUvarint(b, r.id)
	flag := byte(0)
	if r.failed {
		flag = 1
	}
	b = append(b, flag)
	return append(b, r.payload...)
}

func parseResponse(p []byte) (response, error) {
	d := decoder{p: p}
	r := response{id: d.uvarint()}
	switch d.byte() {
	case 0:
	case 1:
		r.failed = true
	default:
		d.fail()
	}
	r.payload = bytes.Clone(d.p)
	d.p = nil
	return r, d.end("response")
}

// answer runs one handler and sends its response; a failure to send is noticed
// by the connection's other goroutines.
func (s *Server) answer(ctx context.Context, c *conn, q request) {
	r := response{id: q.id}
	if h := s.o.Handlers[q.method]; h == nil {
		r.failed, r.payload = true, []byte("no such method")
	} else if out, err := h(ctx, q.payload); err != nil {
		r.failed, r.payload = true, []byte(err.Error())
	} else {
		r.payload = out
	}
	if len(r.payload) > MaxFrame-32 {
		r.failed, r.payload = true, []byte(ErrTooLarge.Error())
	}
	if err := c.writeFrame(frameResponse, r.append); err != nil {
		c.Close()
	}
}

// calls are the requests of one connection that wait for their response.
type calls struct {
	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan response // capacity 1; closed when the connection ends
	ended   bool
}

func (cs *calls) begin() (uint64, chan response, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.ended {
		return 0, nil, ErrDown
	}
	if cs.waiting == nil {
		cs.waiting = map[uint64]chan response{}
	}
	cs.next++
	ch := make(chan response, 1)
	cs.waiting[cs.next] = ch
	return cs.next, ch, nil
}

func (cs *calls) forget(id uint64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.waiting, id)
}

// finish hands r to its caller; one that gave up meanwhile is no mistake.
func (cs *calls) finish(r response) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if ch := cs.waiting[r.id]; ch != nil {
		ch <- r
		delete(cs.waiting, r.id)
	}
}

func (cs *calls) end() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.ended = true
	for _, ch := range cs.waiting {
		close(ch)
	}
	clear(cs.waiting)
}

// Call sends a request over the present connection and waits for the response.
// Errors: ErrDown (not sent), ErrTooLarge (not sent), ErrLost (unknown outcome),
// *RemoteError (the handler failed), or ctx's cause (unknown outcome).
func (s *Subscriber) Call(ctx context.Context, method string, payload []byte) ([]byte, error) {
	if len(payload) > MaxFrame-maxMethod-32 || len(method) > maxMethod {
		return nil, ErrTooLarge
	}
	link := s.link.Load()
	if link == nil {
		return nil, ErrDown
	}
	id, ch, err := link.calls.begin()
	if err != nil {
		return nil, err
	}
	defer link.calls.forget(id)
	if err := link.c.writeFrame(frameRequest, request{id, method, payload}.append); err != nil {
		link.c.Close() // part of a frame may be on the wire
		return nil, fmt.Errorf("%w: %w", ErrLost, err)
	}
	select {
	case r, ok := <-ch:
		switch {
		case !ok:
			return nil, ErrLost
		case r.failed:
			return nil, &RemoteError{Method: method, Text: string(r.payload)}
		}
		return r.payload, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
