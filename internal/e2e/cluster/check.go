package cluster

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	_ "github.com/go-sql-driver/mysql" // for database/sql
)

// Check waits until every member has applied all there is, then holds the
// members against each other: gtid_executed has exactly group:1-N on all, no
// XA transaction is prepared anywhere, and all tables, routines, views and
// accounts are the same. Nobody may write meanwhile. The context bounds the
// waiting. It returns N.
func Check(ctx context.Context, members []Member) (uint64, error) {
	dbs := make([]*sql.DB, len(members))
	for i, m := range members {
		db, err := sql.Open("mysql", m.Direct().DSN())
		if err != nil {
			return 0, err
		}
		defer db.Close()
		dbs[i] = db
	}
	group, err := GroupName(ctx, members[0])
	if err != nil {
		return 0, err
	}
	n, err := settle(ctx, group, members, dbs)
	if err != nil {
		return 0, err
	}
	// The data have as long as it takes, whatever of the wait is left.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	contents := make([]map[string]string, len(dbs))
	for i, db := range dbs {
		if contents[i], err = contentsOf(ctx, db); err != nil {
			return n, fmt.Errorf("cluster: %s: %w", members[i].Name, err)
		}
	}
	var problems []error
	for i := 1; i < len(contents); i++ {
		problems = append(problems, differences(members[0].Name, members[i].Name, contents[0], contents[i])...)
	}
	return n, errors.Join(problems...)
}

// settle returns N once all members agree and stay so.
func settle(ctx context.Context, group string, members []Member, dbs []*sql.DB) (uint64, error) {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	var before uint64
	calm := false // the last look found agreement on before
	for {
		n, err := agreed(ctx, group, members, dbs)
		if err == nil && calm && n == before {
			return n, nil
		}
		before, calm = n, err == nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("cluster: members do not agree: %w", errors.Join(err, ctx.Err()))
		}
	}
}

func agreed(ctx context.Context, group string, members []Member, dbs []*sql.DB) (uint64, error) {
	sets := make([]GTIDSet, len(dbs))
	for i, db := range dbs {
		var text string
		if err := db.QueryRowContext(ctx, "SELECT @@GLOBAL.gtid_executed").Scan(&text); err != nil {
			return 0, fmt.Errorf("%s: %w", members[i].Name, err)
		}
		var err error
		if sets[i], err = ParseGTIDSet(text); err != nil {
			return 0, err
		}
		prepared, err := preparedXA(ctx, db)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", members[i].Name, err)
		}
		if len(prepared) > 0 {
			return 0, fmt.Errorf("%s: still prepared: %s", members[i].Name, strings.Join(prepared, ", "))
		}
	}
	n := sets[0].Count(group)
	for i, set := range sets {
		want := []Interval{{1, n}}
		if n == 0 {
			want = nil // nothing was ever written
		}
		if !slices.Equal(set[group], want) {
			return 0, fmt.Errorf("%s has %v of the group, %s has %v", members[0].Name, sets[0][group], members[i].Name, set[group])
		}
	}
	return n, nil
}

func preparedXA(ctx context.Context, db *sql.DB) ([]string, error) {
	rows, err := db.QueryContext(ctx, "XA RECOVER")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var xids []string
	for rows.Next() {
		var format, gtrid, bqual int64
		var data string
		if err := rows.Scan(&format, &gtrid, &bqual, &data); err != nil {
			return nil, err
		}
		xids = append(xids, data)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	// One that XA RECOVER does not know and InnoDB holds all the same.
	var lost int
	err = db.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = 0").Scan(&lost)
	if lost > len(xids) {
		xids = append(xids, fmt.Sprintf("%d in InnoDB without a session", lost-len(xids)))
	}
	return xids, err
}

const notSystem = "NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')"

// contentsOf describes what a member holds, by object.
func contentsOf(ctx context.Context, db *sql.DB) (map[string]string, error) {
	contents := map[string]string{}
	tables, err := pairs(ctx, db, "SELECT CONCAT('`', table_schema, '`.`', table_name, '`'), table_type FROM information_schema.tables "+
		"WHERE table_type = 'BASE TABLE' AND table_schema "+notSystem)
	if err != nil {
		return nil, err
	}
	if names := slices.Sorted(maps.Keys(tables)); len(names) > 0 {
		sums, err := pairs(ctx, db, "CHECKSUM TABLE "+strings.Join(names, ", "))
		if err != nil {
			return nil, err
		}
		for name, sum := range sums {
			contents["checksum of "+name] = sum
		}
	}
	for what, query := range map[string]string{
		"column":  "SELECT CONCAT_WS('.', table_schema, table_name, column_name), CONCAT_WS(' ', ordinal_position, column_type, is_nullable, column_default, collation_name, extra) FROM information_schema.columns WHERE table_schema " + notSystem,
		"index":   "SELECT CONCAT_WS('.', table_schema, table_name, index_name, seq_in_index), CONCAT_WS(' ', non_unique, column_name, sub_part, expression) FROM information_schema.statistics WHERE table_schema " + notSystem,
		"routine": "SELECT CONCAT_WS('.', routine_schema, routine_name), CONCAT_WS(' ', definer, routine_type, routine_definition) FROM information_schema.routines WHERE routine_schema " + notSystem,
		"view":    "SELECT CONCAT_WS('.', table_schema, table_name), CONCAT_WS(' ', definer, view_definition) FROM information_schema.views WHERE table_schema " + notSystem,
		"trigger": "SELECT CONCAT_WS('.', trigger_schema, trigger_name), CONCAT_WS(' ', definer, action_statement) FROM information_schema.triggers WHERE trigger_schema " + notSystem,
		"schema":  "SELECT schema_name, default_collation_name FROM information_schema.schemata WHERE schema_name " + notSystem,
		// A member's own account is its own: it exists on localhost only. The
		// sandbox makes its two on each server by itself, with a salt of its own.
		"account": "SELECT CONCAT(user, '@', host), CONCAT_WS(' ', plugin, IF(user IN ('app', 'plain'), '', HEX(authentication_string)), account_locked) FROM mysql.user WHERE host <> 'localhost'",
		"grants":  "SELECT CONCAT_WS(' ', user, host, db), CONCAT_WS(' ', select_priv, insert_priv, create_priv, drop_priv) FROM mysql.db WHERE host <> 'localhost'",
	} {
		found, err := pairs(ctx, db, query)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		for name, value := range found {
			contents[what+" "+name] = value
		}
	}
	return contents, nil
}

// pairs reads a result of two columns.
func pairs(ctx context.Context, db *sql.DB, query string) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[string]string{}
	for rows.Next() {
		var name, value sql.NullString
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		found[name.String] = value.String
	}
	return found, rows.Err()
}

func differences(a, b string, of, to map[string]string) []error {
	var problems []error
	for name, value := range of {
		switch other, ok := to[name]; {
		case !ok:
			problems = append(problems, fmt.Errorf("%s: on %s, not on %s", name, a, b))
		case other != value:
			problems = append(problems, fmt.Errorf("%s: %q on %s, %q on %s", name, value, a, other, b))
		}
	}
	for name := range to {
		if _, ok := of[name]; !ok {
			problems = append(problems, fmt.Errorf("%s: on %s, not on %s", name, b, a))
		}
	}
	return problems
}
