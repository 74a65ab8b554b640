package binlog

import "hash/crc32"

// Transaction is a group transaction's place: what rendering depends on beside
// Meta and the body.
type Transaction struct {
	Group UUID
	N     uint64
	// LastCommitted and SequenceNumber are the logical clock of the file.
	LastCommitted, SequenceNumber int64
}

// AppendTransactionGTID appends the GTID event of a transaction whose body has
// bodyLen bytes and returns the size of the whole transaction in bytes: GTID
// event, body and, for KindTransaction, the XID event.
func AppendTransactionGTID(dst []byte, t Transaction, m Meta, bodyLen int64) ([]byte, int64) {
	g := GTID{
		Flags: m.GTIDFlags, UUID: t.Group, GNO: int64(t.N),
		LastCommitted: t.LastCommitted, SequenceNumber: t.SequenceNumber,
		ImmediateCommitTimestamp: m.OriginalCommitTimestamp,
		OriginalCommitTimestamp:  m.OriginalCommitTimestamp,
		ImmediateServerVersion:   m.OriginalServerVersion,
		OriginalServerVersion:    m.OriginalServerVersion,
	}
	rest := uint64(bodyLen)
	if m.Kind == KindTransaction {
		rest += XIDSize
	}
	// The length counts the event that holds it, whose size depends on the
	// length's own encoding: a fixed point is reached in at most three rounds.
	for {
		total := uint64(EncodedGTIDSize(&g)) + rest
		if total == g.TransactionLength {
			return AppendGTID(dst, m.Timestamp, &g), int64(total)
		}
		g.TransactionLength = total
	}
}

// AppendTransaction appends a whole transaction, from its GTID event to its
// end.
func AppendTransaction(dst []byte, t Transaction, m Meta, body []byte) []byte {
	dst, _ = AppendTransactionGTID(dst, t, m, int64(len(body)))
	dst = append(dst, body...)
	if m.Kind == KindTransaction {
		dst = AppendXID(dst, m.Timestamp, t.N)
	}
	return dst
}

func updateChecksum(crc uint32, b []byte) uint32 {
	return crc32.Update(crc, crc32.IEEETable, b)
}
