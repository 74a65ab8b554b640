package writeset

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// TableHash is a table's hash in a write set's Tables.
func TableHash(schema, table string) uint64 {
	return xxhash.Sum64String(schema + "\x00" + table)
}

// ObjectHash is the hash of one of capture.Captured.Objects: equal to TableHash
// for "schema\x00table", and one of its own for a whole "schema".
func ObjectHash(object string) uint64 { return xxhash.Sum64String(object) }

// seedOf begins every key of one index.
func seedOf(schema, table, index string) uint64 {
	return xxhash.Sum64String(schema + "\x00" + table + "\x00" + index)
}

// keyHash finishes a key whose first eight bytes are its index's seed.
func keyHash(key []byte) uint64 { return xxhash.Sum64(key) }

func startKey(dst []byte, seed uint64) []byte {
	return binary.LittleEndian.AppendUint64(dst[:0], seed)
}
