package writeset

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// queryTimeout bounds one read of information_schema.
const queryTimeout = 30 * time.Second

// column is a column as information_schema shows it.
type column struct {
	name      string
	dataType  string // lower case
	collation *collation
	octets    int64 // maximal length of strings in bytes
	precision int64
	scale     int64
	fraction  int64 // digits of fractional seconds
	nullable  bool
	virtual   bool
}

// part is a column of an index, as a whole or its first prefix characters
// (bytes for binary strings).
type part struct {
	col    int
	prefix int
}

// index is a unique index.
type index struct {
	name       string
	parts      []part
	functional bool // parts of it are expressions, whose values events lack
}

// foreignKey goes from columns of one table to columns of another.
type foreignKey struct {
	schema, name                 string // of the constraint
	childSchema, childTable      string
	parentSchema, parentTable    string
	childCols, parentCols        []string
	cascadeUpdate, cascadeDelete bool
}

// definition is a table's.
type definition struct {
	schema, table string
	engine        string
	columns       []column
	indexes       []index // PRIMARY first, if there is one
	out, in       []foreignKey
}

func (d *definition) column(name string) int {
	for i := range d.columns {
		if strings.EqualFold(d.columns[i].name, name) {
			return i
		}
	}
	return -1
}

// identity is the index that tells rows apart: the primary key, or the unique
// one that InnoDB uses in its place (no NULL, no prefix, no expression); -1 if
// there is none.
func (d *definition) identity() int {
	for i := range d.indexes {
		x := &d.indexes[i]
		if x.name == "PRIMARY" {
			return i
		}
		ok := !x.functional
		for _, p := range x.parts {
			ok = ok && p.prefix == 0 && !d.columns[p.col].nullable
		}
		if ok {
			return i
		}
	}
	return -1
}

// source reads definitions from information_schema.
type source struct {
	db         *sql.DB
	collations map[string]*collation
	// logsCascades: what foreign keys change in children is in the row events
	// (innodb_native_foreign_keys=OFF, 9.6 and later).
	logsCascades bool
}

// load reads a table's definition; nil if there is no such table.
func (s *source) load(ctx context.Context, schema, table string, foreign bool) (*definition, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	d := &definition{schema: schema, table: table}
	err := s.loadInto(ctx, d, foreign)
	if err != nil {
		return nil, fmt.Errorf("writeset: definition of %s.%s: %w", schema, table, err)
	}
	if len(d.columns) == 0 {
		return nil, nil
	}
	return d, nil
}

func (s *source) loadInto(ctx context.Context, d *definition, foreign bool) error {
	if s.collations == nil {
		if err := s.loadCollations(ctx); err != nil {
			return err
		}
	}
	if err := s.loadColumns(ctx, d); err != nil || len(d.columns) == 0 {
		return err
	}
	if err := s.loadIndexes(ctx, d); err != nil || !foreign {
		return err
	}
	var err error
	if d.out, err = s.foreignKeys(ctx, "k.TABLE_SCHEMA = ? AND k.TABLE_NAME = ?", d); err != nil {
		return err
	}
	d.in, err = s.foreignKeys(ctx, "k.REFERENCED_TABLE_SCHEMA = ? AND k.REFERENCED_TABLE_NAME = ?", d)
	return err
}

// each runs a query and calls row after each Scan into dest.
func (s *source) each(ctx context.Context, query string, args []any, row func() error, dest ...any) error {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		if err := row(); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (s *source) loadCollations(ctx context.Context) error {
	all := make(map[string]*collation)
	var id uint16
	var name, charset, pad string
	var maxLen int
	err := s.each(ctx, `SELECT c.ID, c.COLLATION_NAME, c.CHARACTER_SET_NAME, c.PAD_ATTRIBUTE, s.MAXLEN
		FROM information_schema.COLLATIONS c
		JOIN information_schema.CHARACTER_SETS s ON s.CHARACTER_SET_NAME = c.CHARACTER_SET_NAME`, nil,
		func() error {
			c := &collation{id: id, name: name, charset: charset, padSpace: pad == "PAD SPACE", maxLen: maxLen}
			c.resolve()
			all[name] = c
			return nil
		}, &id, &name, &charset, &pad, &maxLen)
	if err != nil {
		return err
	}
	var value string
	err = s.each(ctx, "SELECT VARIABLE_VALUE FROM performance_schema.global_variables WHERE VARIABLE_NAME = 'innodb_native_foreign_keys'", nil,
		func() error { s.logsCascades = value == "OFF"; return nil }, &value)
	if err != nil {
		return err
	}
	s.collations = all
	return nil
}

func (s *source) loadColumns(ctx context.Context, d *definition) error {
	var schema, table, name, dataType, nullable, extra string
	var engine, coll sql.NullString
	var octets, precision, scale, fraction sql.NullInt64
	return s.each(ctx, `SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.ENGINE, c.COLUMN_NAME, c.DATA_TYPE, c.IS_NULLABLE, c.EXTRA,
			c.COLLATION_NAME, c.CHARACTER_OCTET_LENGTH, c.NUMERIC_PRECISION, c.NUMERIC_SCALE, c.DATETIME_PRECISION
		FROM information_schema.TABLES t
		JOIN information_schema.COLUMNS c ON c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME
		WHERE t.TABLE_SCHEMA = ? AND t.TABLE_NAME = ? ORDER BY c.ORDINAL_POSITION`, []any{d.schema, d.table},
		func() error {
			if schema != d.schema || table != d.table {
				return nil // names that differ in case only
			}
			d.engine = engine.String
			c := column{
				name: name, dataType: strings.ToLower(dataType), octets: octets.Int64,
				precision: precision.Int64, scale: scale.Int64, fraction: fraction.Int64,
				nullable: nullable != "NO", virtual: strings.Contains(extra, "VIRTUAL GENERATED"),
			}
			if coll.Valid {
				if c.collation = s.collations[coll.String]; c.collation == nil {
					return fmt.Errorf("unknown collation %s", coll.String)
				}
			}
			d.columns = append(d.columns, c)
			return nil
		}, &schema, &table, &engine, &name, &dataType, &nullable, &extra, &coll, &octets, &precision, &scale, &fraction)
}

func (s *source) loadIndexes(ctx context.Context, d *definition) error {
	var schema, table, name string
	var col, expr sql.NullString
	var prefix sql.NullInt64
	return s.each(ctx, `SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, EXPRESSION
		FROM information_schema.STATISTICS
		WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0
		ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX`, []any{d.schema, d.table},
		func() error {
			if schema != d.schema || table != d.table {
				return nil
			}
			if n := len(d.indexes); n == 0 || d.indexes[n-1].name != name {
				d.indexes = append(d.indexes, index{name: name})
			}
			x := &d.indexes[len(d.indexes)-1]
			if expr.Valid || !col.Valid {
				x.functional = true
				return nil
			}
			at := d.column(col.String)
			if at < 0 {
				return fmt.Errorf("index %s has unknown column %s", name, col.String)
			}
			x.parts = append(x.parts, part{col: at, prefix: int(prefix.Int64)})
			return nil
		}, &schema, &table, &name, &col, &prefix, &expr)
}

func (s *source) foreignKeys(ctx context.Context, where string, d *definition) ([]foreignKey, error) {
	var all []foreignKey
	var f foreignKey
	var childCol, parentCol, onUpdate, onDelete string
	err := s.each(ctx, `SELECT k.CONSTRAINT_SCHEMA, k.CONSTRAINT_NAME, k.TABLE_SCHEMA, k.TABLE_NAME, k.COLUMN_NAME,
			k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, r.UPDATE_RULE, r.DELETE_RULE
		FROM information_schema.KEY_COLUMN_USAGE k
		JOIN information_schema.REFERENTIAL_CONSTRAINTS r
			ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME
		WHERE k.REFERENCED_TABLE_NAME IS NOT NULL AND `+where+`
		ORDER BY k.CONSTRAINT_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION`, []any{d.schema, d.table},
		func() error {
			if n := len(all); n == 0 || all[n-1].schema != f.schema || all[n-1].name != f.name || all[n-1].childTable != f.childTable {
				f.cascadeUpdate, f.cascadeDelete = cascades(onUpdate), cascades(onDelete)
				all = append(all, f)
			}
			last := &all[len(all)-1]
			if s.logsCascades {
				// The children's rows speak for themselves.
				last.cascadeUpdate, last.cascadeDelete = false, false
			}
			last.childCols = append(last.childCols, childCol)
			last.parentCols = append(last.parentCols, parentCol)
			return nil
		}, &f.schema, &f.name, &f.childSchema, &f.childTable, &childCol, &f.parentSchema, &f.parentTable, &parentCol, &onUpdate, &onDelete)
	return all, err
}

// cascades says whether a rule makes mysqld change rows of the child.
func cascades(rule string) bool { return rule != "NO ACTION" && rule != "RESTRICT" }
