// Package relay joins one client connection to one backend connection. It owns
// the connection phase (the backend's own greeting and authentication, relayed),
// reading commands from the client, sending them or statements of the proxy to
// the backend, and passing responses on: raw wherever possible, with the closing
// packets re-encoded, held back or swallowed where the session asks for it.
//
// It must never decide what a statement means, start or end a transaction, or
// know anything about the group. The session (package proxy) does that with what
// relay reports: status flags, trackers, error numbers.
//
// A Relay belongs to one goroutine. Only Watch looks at it from outside, at
// fields meant for that.
//
// The backend always speaks SESSION_TRACK and DEPRECATE_EOF whatever the client
// asked for: trackers say what a statement did, also a SELECT that wrote through
// a function, and without DEPRECATE_EOF the end of a result set carries none.
// What the client did not ask for is translated. Every other feature that
// changes how the server behaves is exactly the client's.
package relay
