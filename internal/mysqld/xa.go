package mysqld

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
)

// XID identifies a prepared XA transaction.
type XID struct {
	FormatID     int64
	Gtrid, Bqual []byte
}

// SQL returns the xid as the XA statements take it: X'..',X'..',format.
func (x XID) SQL() string {
	return fmt.Sprintf("X'%x',X'%x',%d", x.Gtrid, x.Bqual, x.FormatID)
}

// XARecover lists the prepared XA transactions.
func XARecover(ctx context.Context, q Querier) ([]XID, error) {
	rows, err := q.QueryContext(ctx, "XA RECOVER CONVERT XID")
	if err != nil {
		return nil, fmt.Errorf("XA RECOVER: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var xids []XID
	for rows.Next() {
		var x XID
		var g, b int
		var data string
		if err := rows.Scan(&x.FormatID, &g, &b, &data); err != nil {
			return nil, fmt.Errorf("XA RECOVER: %w", err)
		}
		raw, err := hex.DecodeString(strings.TrimPrefix(data, "0x"))
		if err != nil || g < 0 || b < 0 || len(raw) != g+b {
			return nil, fmt.Errorf("XA RECOVER: unexpected xid %q (%d+%d bytes)", data, g, b)
		}
		x.Gtrid, x.Bqual = raw[:g:g], raw[g:]
		xids = append(xids, x)
	}
	return xids, rows.Err()
}
