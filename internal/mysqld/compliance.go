package mysqld

import (
	"context"
	"fmt"
)

// noncompliant finds base tables whose rows the group does not take: not
// InnoDB, or without a primary key and without a unique key of NOT NULL columns
// that could serve as one. The servers' own schemas are left out.
const noncompliant = `SELECT t.TABLE_SCHEMA, t.TABLE_NAME FROM information_schema.TABLES t
WHERE t.TABLE_TYPE = 'BASE TABLE' AND t.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
AND (t.ENGINE IS NULL OR t.ENGINE <> 'InnoDB' OR NOT EXISTS (
  SELECT 1 FROM information_schema.STATISTICS s WHERE s.TABLE_SCHEMA = t.TABLE_SCHEMA AND s.TABLE_NAME = t.TABLE_NAME AND s.NON_UNIQUE = 0
  GROUP BY s.INDEX_NAME HAVING SUM(s.NULLABLE = 'YES' OR s.COLUMN_NAME IS NULL) = 0))`

// Table names a table.
type Table struct{ Schema, Name string }

// Noncompliant lists the tables on which the group refuses DML, and says
// whether names are compared without regard to case.
func Noncompliant(ctx context.Context, q Querier) (tables []Table, foldCase bool, err error) {
	var lower int
	if err := q.QueryRowContext(ctx, "SELECT @@GLOBAL.lower_case_table_names").Scan(&lower); err != nil {
		return nil, false, fmt.Errorf("read lower_case_table_names: %w", err)
	}
	rows, err := q.QueryContext(ctx, noncompliant)
	if err != nil {
		return nil, false, fmt.Errorf("list tables without primary key: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var t Table
		if err := rows.Scan(&t.Schema, &t.Name); err != nil {
			return nil, false, fmt.Errorf("list tables without primary key: %w", err)
		}
		tables = append(tables, t)
	}
	return tables, lower != 0, rows.Err()
}
