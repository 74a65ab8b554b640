// Package binlog is the codec of MySQL's binary log events: it parses what a
// stock mysqld writes and renders what the group's members read.
//
// It owns the layout of events (headers, checksums, GTID, Query, XID, control
// events, encoded GTID sets) and the two types that describe a group
// transaction independent of any member: Meta and the body. It never does I/O,
// never reads a clock and never allocates more than a small multiple of its
// input: everything here may be fed bytes from a socket or from a damaged
// file.
//
// # Bodies
//
// A body is what a transaction carries through the ordered log: the final
// bytes of every event after the GTID event and before the terminating XID
// event, each with server id RenderedServerID, log position 0 and a CRC32. Only
// the GTID event and the XID event are made by each member, from N, the
// dependency number, Meta, the body's length and the group's UUID and from
// nothing else, so that two members that keep the same N in the same file of
// the same history hold the same bytes.
//
// Layouts follow the MySQL source: libs/mysql/binlog/event (event formats),
// libs/mysql/serialization (tagged GTID events) and sql/rpl_gtid_set.cc
// (encoded GTID sets).
package binlog
