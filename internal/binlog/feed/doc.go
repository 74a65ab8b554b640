// Package feed is a replication source: it hands the group binlog to a stock
// mysqld through that server's own replication channel.
//
// It owns the sessions of receivers: the handshake, the few statements that a
// receiver asks before it starts, and the dump. It reads the group binlog and
// must never write it, decide about transactions, or talk to a mysqld on its
// own account.
//
// # What a receiver gets
//
// An artificial rotate event, a format description, then every transaction of
// the group that is not in the set of GTIDs that the receiver presented, in
// order of N, and a heartbeat whenever nothing was sent for the period that the
// receiver asked for. Only the GTID event differs from the bytes in the group
// binlog: its logical clock counts the transactions of this very stream,
// because a receiver's applier runs a transaction alone when the number after
// its predecessor's is missing.
//
// Transactions for which Options.Skip says true are left out of the stream for
// good. A member that withheld a transaction which must come through the feed
// after all (its prepared half died with its mysqld) calls CloseStreams: the
// receiver then presents its GTIDs anew and gets it.
//
// # Errors
//
// An ERR packet during a dump stops the receiver for good, so one is sent only
// when no repetition can help: the transactions that it needs were purged, or it
// asks for something that this source does not do. Everything else just drops
// the connection, which the receiver dials again.
//
// Wire formats: Protocol::COM_REGISTER_SLAVE and COM_BINLOG_DUMP_GTID of the
// MySQL client/server protocol; the receiver's side is in sql/rpl_replica.cc.
package feed
