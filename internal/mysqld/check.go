package mysqld

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// ErrSettings is wrapped by what Check returns for a server that does not meet
// the requirements.
var ErrSettings = errors.New("mysqld's settings do not meet the requirements of a member")

// Problem is one setting that a member's mysqld must have otherwise.
type Problem struct {
	// Name and Value are the variable and what it is; Fix says what to do.
	Name, Value, Fix string
}

func (p Problem) String() string { return fmt.Sprintf("%s is %q: %s", p.Name, p.Value, p.Fix) }

// SettingsError lists every problem that Check found. It wraps ErrSettings.
type SettingsError struct{ Problems []Problem }

func (e *SettingsError) Error() string {
	var s []string
	for _, p := range e.Problems {
		s = append(s, p.String())
	}
	return ErrSettings.Error() + ": " + strings.Join(s, "; ")
}

// Unwrap returns ErrSettings.
func (e *SettingsError) Unwrap() error { return ErrSettings }

// Identity is what must be unique, or equal, among the members' servers.
type Identity struct {
	// Version is the server's, as 9.7.4; Number the same as 90704.
	Version string
	Number  int
	// ServerUUID and ServerID must be unique in the group.
	ServerUUID string
	ServerID   uint32
	// LowerCaseTableNames and DefaultTableEncryption must be equal.
	LowerCaseTableNames    int
	DefaultTableEncryption bool
	// Port is the TCP port.
	Port int
	// RequireSecureTransport refuses clients without TLS that are not on a socket.
	RequireSecureTransport bool
}

// minimumVersion has every setting below, xa_detach_on_prepare being the newest.
const minimumVersion = 80029

// ReadIdentity reads the server's identity.
func ReadIdentity(ctx context.Context, q Querier) (Identity, error) {
	var id Identity
	var encryption sql.NullBool
	err := q.QueryRowContext(ctx, `SELECT @@GLOBAL.version, @@GLOBAL.server_uuid, @@GLOBAL.server_id,
		@@GLOBAL.lower_case_table_names, @@GLOBAL.default_table_encryption, @@GLOBAL.port, @@GLOBAL.require_secure_transport`).
		Scan(&id.Version, &id.ServerUUID, &id.ServerID, &id.LowerCaseTableNames, &encryption, &id.Port, &id.RequireSecureTransport)
	if err != nil {
		return id, fmt.Errorf("read the server's identity: %w", err)
	}
	id.DefaultTableEncryption = encryption.Bool
	var major, minor, patch int
	if _, err := fmt.Sscanf(id.Version, "%d.%d.%d", &major, &minor, &patch); err != nil {
		return id, fmt.Errorf("server version %q: %w", id.Version, err)
	}
	id.Version = fmt.Sprintf("%d.%d.%d", major, minor, patch)
	id.Number = major*10000 + minor*100 + patch
	return id, nil
}

type requirement struct {
	name string
	ok   func(string) bool
	want string
	// restart says that the variable cannot be changed while mysqld runs.
	restart bool
}

func is(want string) func(string) bool {
	return func(v string) bool { return strings.EqualFold(v, want) }
}

// on accepts both spellings of a boolean: variables_info shows ON, older
// selects 1.
func on(v string) bool { return strings.EqualFold(v, "ON") || v == "1" }

// requirements are DESIGN §8's. Unique ids and equal settings among members
// are the group's to compare (Identity); super_read_only is cohort's to set.
var requirements = []requirement{
	{"gtid_mode", is("ON"), "gtid_mode=ON", false},
	{"enforce_gtid_consistency", is("ON"), "enforce_gtid_consistency=ON", false},
	{"log_bin", on, "log_bin (do not start with skip-log-bin)", true},
	{"binlog_format", is("ROW"), "binlog_format=ROW", false},
	{"binlog_row_image", is("FULL"), "binlog_row_image=FULL", false},
	{"binlog_row_value_options", is(""), "binlog_row_value_options=''", false},
	{"log_replica_updates", on, "log_replica_updates=ON", true},
	{"replica_preserve_commit_order", on, "replica_preserve_commit_order=ON", false},
	{"xa_detach_on_prepare", on, "xa_detach_on_prepare=ON", false},
	{"server_id", func(v string) bool { return v != "0" && v != "" }, "server_id to a number unique in the group", false},
	{"performance_schema", on, "performance_schema=ON", true},
	{"offline_mode", func(v string) bool { return !on(v) }, "offline_mode=OFF", false},
}

// Check reads the settings that a member's mysqld needs. A *SettingsError names
// each setting that differs, its value and the fix; other errors mean that the
// server could not be asked.
func Check(ctx context.Context, q Querier) error {
	id, err := ReadIdentity(ctx, q)
	if err != nil {
		return err
	}
	var problems []Problem
	if id.Number < minimumVersion {
		problems = append(problems, Problem{"version", id.Version, "use MySQL 8.0.29 or later"})
	}
	vars, err := variables(ctx, q)
	if err != nil {
		return err
	}
	if strings.Contains(strings.ToLower(vars["version_comment"]+vars["version"]), "mariadb") {
		problems = append(problems, Problem{"version_comment", vars["version_comment"], "use stock MySQL"})
	}
	for _, r := range requirements {
		v := vars[r.name]
		if r.ok(v) {
			continue
		}
		fix := "SET PERSIST " + r.want + ", or put it in my.cnf"
		if r.restart {
			fix = "put " + r.want + " in my.cnf and restart mysqld"
		}
		if strings.Contains(r.want, " ") {
			fix = "set " + r.want + " in my.cnf and restart mysqld"
		}
		problems = append(problems, Problem{r.name, v, fix})
	}
	filters, err := filters(ctx, q, id)
	if err != nil {
		return err
	}
	problems = append(problems, filters...)
	if len(problems) > 0 {
		return &SettingsError{Problems: problems}
	}
	return nil
}

func variables(ctx context.Context, q Querier) (map[string]string, error) {
	rows, err := q.QueryContext(ctx, "SHOW GLOBAL VARIABLES")
	if err != nil {
		return nil, fmt.Errorf("read the server's settings: %w", err)
	}
	defer func() { _ = rows.Close() }()
	vars := map[string]string{}
	for rows.Next() {
		var n, v string
		if err := rows.Scan(&n, &v); err != nil {
			return nil, fmt.Errorf("read the server's settings: %w", err)
		}
		vars[strings.ToLower(n)] = v
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the server's settings: %w", err)
	}
	return vars, nil
}

// filters finds binlog and replication filters. Either would make members
// differ without an error.
func filters(ctx context.Context, q Querier, id Identity) ([]Problem, error) {
	show := "SHOW BINARY LOG STATUS"
	if id.Number < 80200 {
		show = "SHOW MASTER STATUS"
	}
	var problems []Problem
	row, err := firstRow(ctx, q, show)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"Binlog_Do_DB", "Binlog_Ignore_DB"} {
		if row[name] != "" {
			problems = append(problems, Problem{strings.ToLower(name), row[name], "remove this filter from my.cnf and restart mysqld"})
		}
	}
	rows, err := q.QueryContext(ctx, `SELECT FILTER_NAME, FILTER_RULE FROM performance_schema.replication_applier_global_filters
		UNION SELECT FILTER_NAME, FILTER_RULE FROM performance_schema.replication_applier_filters WHERE CHANNEL_NAME = ?`, FeedChannel)
	if err != nil {
		return nil, fmt.Errorf("read replication filters: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var n, v string
		if err := rows.Scan(&n, &v); err != nil {
			return nil, fmt.Errorf("read replication filters: %w", err)
		}
		if v != "" {
			problems = append(problems, Problem{strings.ToLower(n), v, "remove this filter (CHANGE REPLICATION FILTER " + n + " = (), and my.cnf)"})
		}
	}
	return problems, rows.Err()
}

// firstRow returns a statement's first row by column name, nil if it has none.
func firstRow(ctx context.Context, q Querier, query string, args ...any) (map[string]string, error) {
	all, err := allRows(ctx, q, query, args...)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// allRows returns a statement's rows by column name; NULL is the empty text.
func allRows(ctx context.Context, q Querier, query string, args ...any) ([]map[string]string, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	defer func() { _ = rows.Close() }()
	cols, err := rows.Columns()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	vals := make([]sql.NullString, len(cols))
	dest := make([]any, len(cols))
	for i := range vals {
		dest[i] = &vals[i]
	}
	var all []map[string]string
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return nil, fmt.Errorf("%s: %w", query, err)
		}
		m := make(map[string]string, len(cols))
		for i, c := range cols {
			m[c] = vals[i].String
		}
		all = append(all, m)
	}
	return all, rows.Err()
}
