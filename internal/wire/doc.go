// Package wire owns the MySQL client/server protocol as bytes: framing and
// sequence numbers, the connection phase, the OK, ERR and EOF packets with
// their session trackers, the compressed protocol, and the authentication
// arithmetic. It also has [Client], a small connection to a server for our own
// statements.
//
// It must never know what a statement means, hold policy about sessions, or
// trust a byte that came from a socket: malformed input is an error, and no
// length read from the wire is allocated before that many bytes have arrived.
package wire
