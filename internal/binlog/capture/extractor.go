package capture

import (
	"context"

	"cohort/internal/binlog"
)

// Extractor makes write sets of row events. Capture calls it from one
// goroutine. Byte slices are valid during the call only.
type Extractor interface {
	// Begin forgets the transaction before.
	Begin()
	// Table announces a table: body is a Table_map event behind its header,
	// without checksum. It may read the table's definition from mysqld; an
	// error means that it could not and ends Run.
	Table(ctx context.Context, body []byte) error
	// Rows adds the rows of a row event of version 2 (types 30 to 32), body as
	// for Table. An error means that the event is malformed. relax asks to have
	// the statement applied without foreign key checks.
	Rows(typ binlog.Type, body []byte) (relax bool, err error)
	// Finish returns what Begin, Table and Rows gathered. The slices belong to
	// the caller.
	Finish() Extract
	// Invalidate forgets what is known about tables: the definitions may have
	// changed at this point of the binary log.
	Invalidate()
}

// Extract is an Extractor's result for one transaction.
type Extract struct {
	WriteSet
	// Names are the tables touched, as "schema\x00table".
	Names []string
	// See Captured.
	Wide, Serial, CommitOrder bool
	// Refuse is a MySQL error number, 0 for none, with its explanation.
	Refuse     uint16
	RefuseText string
}
