package mysqld

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cohort/internal/mysqlversion"
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
	Number  mysqlversion.Version
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
	if id.Number = mysqlversion.Parse(id.Version); id.Number == 0 {
		return id, fmt.Errorf("server version %q is not understood", id.Version)
	}
	id.Version = id.Number.String()
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

// past are settings that newer versions do not have: there is nothing to ask for where
// one is missing. With any other value the channel would not start, forget its position
// in a crash, or have row events that nothing here reads.
var past = []requirement{
	{"replica_parallel_type", is("LOGICAL_CLOCK"), "replica_parallel_type=LOGICAL_CLOCK", false},
	{"master_info_repository", is("TABLE"), "master_info_repository=TABLE", false},
	{"relay_log_info_repository", is("TABLE"), "relay_log_info_repository=TABLE", false},
	{"log_bin_use_v1_row_events", is("OFF"), "log_bin_use_v1_row_events=OFF", false},
}

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
	// What the applier skips, or takes for done, is missing on this server alone.
	{"replica_skip_errors", is("OFF"), "replica_skip_errors=OFF", true},
	{"replica_exec_mode", is("STRICT"), "replica_exec_mode=STRICT", false},
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
	if id.Number < mysqlversion.Oldest {
		problems = append(problems, Problem{"version", id.Version, fmt.Sprintf("use MySQL %s or later", mysqlversion.Oldest)})
	}
	vars, err := variables(ctx, q)
	if err != nil {
		return err
	}
	if strings.Contains(strings.ToLower(vars["version_comment"]+vars["version"]), "mariadb") {
		problems = append(problems, Problem{"version_comment", vars["version_comment"], "use stock MySQL"})
	}
	problems = append(problems, unmet(vars)...)
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

// unmet are the requirements that a server with these variables does not meet.
func unmet(vars map[string]string) (problems []Problem) {
	old := slices.DeleteFunc(slices.Clone(past), func(r requirement) bool { _, ok := vars[r.name]; return !ok })
	for _, r := range append(old, requirements...) {
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
	return problems
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
	var problems []Problem
	row, err := firstRow(ctx, q, id.Number.BinlogStatus())
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
