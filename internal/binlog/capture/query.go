package capture

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"cohort/internal/binlog"
)

// XIDPrefix begins the gtrid of every xid that cohort makes.
const XIDPrefix = "cohort."

// verb is what a Query event does to the flow of a transaction.
type verb uint8

const (
	verbOther verb = iota
	verbBegin
	verbCommit
	verbRollback
	verbSavepoint // SAVEPOINT and ROLLBACK TO
	verbXAStart
	verbXAEnd
	verbXACommit
	verbXARollback
)

// classify recognises the statements that mysqld itself writes into the binary
// log, always in this spelling; the rest, whatever it is, is verbOther.
func classify(sql []byte) verb {
	switch {
	case len(sql) == 0:
		return verbOther
	case sql[0] == 'B' && string(sql) == "BEGIN":
		return verbBegin
	case sql[0] == 'C' && string(sql) == "COMMIT":
		return verbCommit
	case sql[0] == 'R' && string(sql) == "ROLLBACK":
		return verbRollback
	case sql[0] == 'R' && bytes.HasPrefix(sql, []byte("ROLLBACK TO ")),
		sql[0] == 'S' && bytes.HasPrefix(sql, []byte("SAVEPOINT ")):
		return verbSavepoint
	case sql[0] != 'X':
		return verbOther
	case bytes.HasPrefix(sql, []byte("XA START ")):
		return verbXAStart
	case bytes.HasPrefix(sql, []byte("XA END ")):
		return verbXAEnd
	case bytes.HasPrefix(sql, []byte("XA COMMIT ")):
		return verbXACommit
	case bytes.HasPrefix(sql, []byte("XA ROLLBACK ")):
		return verbXARollback
	}
	return verbOther
}

// isFlush recognises FLUSH, which mysqld logs as the client wrote it.
func isFlush(sql []byte) bool {
	sql = bytes.TrimLeft(sql, " \t\r\n")
	return len(sql) > 6 && bytes.EqualFold(sql[:5], []byte("FLUSH")) && (sql[5] == ' ' || sql[5] == '\t' || sql[5] == '\n')
}

// parseXID reads the xid of an XA statement as mysqld writes it,
// X'hex',X'hex',n, and says whether it is one of cohort's.
func parseXID(sql []byte) (xid string, own bool, err error) {
	i := bytes.IndexByte(sql, '\'')
	if i < 1 || sql[i-1] != 'X' {
		return "", false, fmt.Errorf("%w: xid in %q", binlog.ErrMalformed, clip(sql))
	}
	literal := sql[i-1:]
	gtrid, rest, err := hexLiteral(literal)
	if err != nil || len(rest) == 0 || rest[0] != ',' {
		return "", false, fmt.Errorf("%w: xid in %q", binlog.ErrMalformed, clip(sql))
	}
	bqual, rest, err := hexLiteral(rest[1:])
	if err != nil || len(rest) < 2 || rest[0] != ',' {
		return "", false, fmt.Errorf("%w: xid in %q", binlog.ErrMalformed, clip(sql))
	}
	digits := rest[1:]
	if j := bytes.IndexByte(digits, ' '); j >= 0 {
		digits = digits[:j] // XA COMMIT … ONE PHASE
	}
	format, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return "", false, fmt.Errorf("%w: xid in %q", binlog.ErrMalformed, clip(sql))
	}
	name, own := xidName(gtrid, bqual, format)
	return name, own, nil
}

// xidName is how Captured.XID shows an xid.
func xidName(gtrid, bqual []byte, format int64) (string, bool) {
	if format == 1 && len(bqual) == 0 && bytes.HasPrefix(gtrid, []byte(XIDPrefix)) {
		return string(gtrid), true
	}
	return fmt.Sprintf("X'%x',X'%x',%d", gtrid, bqual, format), false
}

func hexLiteral(b []byte) (value, rest []byte, err error) {
	if len(b) < 3 || b[0] != 'X' || b[1] != '\'' {
		return nil, nil, binlog.ErrMalformed
	}
	b = b[2:]
	end := bytes.IndexByte(b, '\'')
	if end < 0 || end > 128 {
		return nil, nil, binlog.ErrMalformed
	}
	value = make([]byte, hex.DecodedLen(end))
	if _, err := hex.Decode(value, b[:end]); err != nil {
		return nil, nil, binlog.ErrMalformed
	}
	return value, b[end+1:], nil
}

// parseXAPrepare reads the body of an XA_prepare event: one-phase flag,
// formatID, lengths of gtrid and bqual, and both.
func parseXAPrepare(body []byte) (onePhase bool, xid string, own bool, err error) {
	if len(body) < 13 {
		return false, "", false, fmt.Errorf("XA_prepare event: %w", binlog.ErrTruncated)
	}
	format := int64(int32(binary.LittleEndian.Uint32(body[1:])))
	g := uint64(binary.LittleEndian.Uint32(body[5:]))
	q := uint64(binary.LittleEndian.Uint32(body[9:]))
	if g > 64 || q > 64 || uint64(len(body)-13) < g+q {
		return false, "", false, fmt.Errorf("%w: XA_prepare event with lengths %d, %d", binlog.ErrMalformed, g, q)
	}
	xid, own = xidName(body[13:13+g], body[13+g:13+g+q], format)
	return body[0] != 0, xid, own, nil
}

// Codes and sizes of a Query event's status variables (MySQL source:
// libs/mysql/binlog/event/statement_events.h).
const (
	statusCatalogOld    = 2
	statusTimeZone      = 5
	statusCatalog       = 6
	statusInvoker       = 11
	statusUpdatedDBs    = 12
	overMaxDBs          = 254 // the list was too long to be written
	statusCommitTS      = 14
	statusCommitTS2     = 15
	unknownStatusLength = -1
)

var statusLengths = [...]int{
	0: 4, 1: 8, statusCatalogOld: unknownStatusLength, 3: 4, 4: 6, statusTimeZone: unknownStatusLength,
	statusCatalog: unknownStatusLength, 7: 2, 8: 2, 9: 8, 10: 4, statusInvoker: unknownStatusLength,
	statusUpdatedDBs: unknownStatusLength, 13: 3, statusCommitTS: unknownStatusLength,
	statusCommitTS2: unknownStatusLength, 16: 1, 17: 8, 18: 2, 19: 1, 20: 1,
}

// updatedDBs returns the schemas that a statement changed, as mysqld lists
// them; ok is false when it does not say.
func updatedDBs(vars []byte) (dbs []string, ok bool) {
	for len(vars) > 0 {
		code := int(vars[0])
		vars = vars[1:]
		if code >= len(statusLengths) {
			return nil, false
		}
		n := statusLengths[code]
		if n == unknownStatusLength {
			if len(vars) == 0 {
				return nil, false
			}
			switch code {
			case statusTimeZone, statusCatalog:
				n = 1 + int(vars[0])
			case statusCatalogOld:
				n = 2 + int(vars[0])
			case statusInvoker:
				n = 1 + int(vars[0])
				if n >= len(vars) {
					return nil, false
				}
				n += 1 + int(vars[n])
			case statusUpdatedDBs:
				return dbList(vars)
			default:
				return nil, false
			}
		}
		if n > len(vars) {
			return nil, false
		}
		vars = vars[n:]
	}
	return nil, false
}

func dbList(vars []byte) ([]string, bool) {
	count := int(vars[0])
	if count == overMaxDBs {
		return nil, false
	}
	vars = vars[1:]
	dbs := make([]string, 0, count)
	for range count {
		end := bytes.IndexByte(vars, 0)
		if end <= 0 {
			return nil, false // an unnamed schema: anything may have changed
		}
		dbs = append(dbs, string(vars[:end]))
		vars = vars[end+1:]
	}
	return dbs, len(dbs) > 0
}

// objects names what a statement may have changed. It trusts mysqld's own list
// of schemas and nothing finer; a foreign key reaches into schemas that the
// list does not name, so such statements touch everything, as do those about
// accounts.
func objects(q *binlog.Query) []string {
	if containsFold(q.SQL, "references") {
		return nil
	}
	dbs, ok := updatedDBs(q.StatusVars)
	if !ok {
		return nil
	}
	for _, db := range dbs {
		if strings.EqualFold(db, "mysql") {
			return nil
		}
	}
	return dbs
}

// keepsDefinitions says whether a statement certainly leaves the definitions
// of tables as they are, so that an Extractor may keep what it knows.
func keepsDefinitions(sql []byte) bool {
	sql = bytes.TrimLeft(sql, " \t\r\n(")
	first, rest := word(sql)
	second, _ := word(rest)
	switch first {
	case "GRANT", "REVOKE", "FLUSH", "SET":
		return true
	case "CREATE", "ALTER", "DROP":
		return second == "USER" || second == "ROLE"
	}
	return false
}

// word returns the first word in upper case (up to 16 letters) and the rest.
func word(sql []byte) (string, []byte) {
	sql = bytes.TrimLeft(sql, " \t\r\n")
	n := 0
	for n < len(sql) && n < 16 && (sql[n]|0x20 >= 'a' && sql[n]|0x20 <= 'z') {
		n++
	}
	return strings.ToUpper(string(sql[:n])), sql[n:]
}

// containsFold looks for lower (lower case ASCII) in b whatever its case.
func containsFold(b []byte, lower string) bool {
	for i := 0; i+len(lower) <= len(b); i++ {
		if b[i]|0x20 == lower[0] && strings.EqualFold(string(b[i:i+len(lower)]), lower) {
			return true
		}
	}
	return false
}

func clip(b []byte) []byte {
	if len(b) > 100 {
		return b[:100]
	}
	return b
}
