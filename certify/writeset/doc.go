// Package writeset makes the write set of a transaction from its row events:
// a 64-bit hash for each primary and unique key value written, for each parent
// key referenced, and for each table.
//
// Two rows that mysqld would call duplicates of each other have the same hash,
// whatever their bytes: values are normalised by type and collation first. Where
// that is not possible (a collation that is not known here, a definition that
// changed since the event was written) a coarser key stands in, never a finer
// one: too much conflict is slow, too little is wrong.
//
// It owns the cache of table definitions, read from information_schema. It must
// never write to mysqld and never guess a definition.
package writeset
