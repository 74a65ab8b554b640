// Package transport carries the members' raft messages and snapshots over TCP,
// for dragonboat (config.TransportFactory).
//
// It owns the connections: who is let in, encryption, framing, reconnecting. It
// must never let bytes from the network stop the process: whatever is malformed,
// of another group or from a fenced replica ends that connection only. It knows
// nothing of views; it asks who is a member.
package transport
