package mysqld

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// privileges of a member's own account, on *.*: what the write path, the
// start-up and the feed need, and nothing that reads or writes user data.
// Those that a server version does not know are left out.
var privileges = []string{
	"PROCESS", "RELOAD", "SHOW DATABASES", "REPLICATION SLAVE", "REPLICATION CLIENT",
	// REFERENCES makes every table's keys and columns visible in
	// information_schema without a right to read rows.
	"REFERENCES",
	"XA_RECOVER_ADMIN", "SESSION_VARIABLES_ADMIN", "SYSTEM_VARIABLES_ADMIN", "PERSIST_RO_VARIABLES_ADMIN",
	"CONNECTION_ADMIN", "SERVICE_CONNECTION_ADMIN",
	// SYSTEM_USER: sessions of administrators must be killed at start too.
	"SYSTEM_USER",
	"REPLICATION_SLAVE_ADMIN", "REPLICATION_APPLIER", "BACKUP_ADMIN", "TRANSACTION_GTID_TAG",
}

// EnsureAccount creates the account user@localhost with exactly the privileges
// a member needs, or resets its password and privileges. conn must be an
// administrator's connection. Nothing is written to the binary log: each
// member's account is its own, has no GTID and may not reach other members.
//
// On a read-only server super_read_only is lifted for the moment it takes;
// read_only stays, so ordinary accounts cannot write meanwhile.
func EnsureAccount(ctx context.Context, conn *sql.Conn, user, password string) (err error) {
	if user == "" || strings.Contains(user, "'") || !quotable(user) || len(user) > 32 {
		return fmt.Errorf("account name %q is not usable", user)
	}
	if !quotable(password) {
		return errors.New("a password with a backslash is not usable")
	}
	known, err := knownPrivileges(ctx, conn)
	if err != nil {
		return err
	}
	var grants []string
	for _, p := range privileges {
		if known[p] {
			grants = append(grants, p)
		}
	}
	account := "'" + user + "'@'localhost'"
	stmts := []string{
		"CREATE USER IF NOT EXISTS " + account,
		"ALTER USER " + account + " IDENTIFIED WITH caching_sha2_password BY " + text(password) +
			" REQUIRE NONE PASSWORD EXPIRE NEVER ACCOUNT UNLOCK COMMENT 'used by the cohort member beside this server'",
		"REVOKE ALL PRIVILEGES, GRANT OPTION FROM " + account,
		"GRANT " + strings.Join(grants, ", ") + " ON *.* TO " + account,
		"GRANT SELECT ON performance_schema.* TO " + account,
	}
	restore, err := unlog(ctx, conn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	for _, s := range stmts {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("prepare account %s: %w", account, err)
		}
	}
	return nil
}

// restoreTimeout bounds how long super_read_only's return may wait for rows
// that a session holds.
const restoreTimeout = 30 * time.Second

// Unlogged runs statements as an administrator without the binary log, lifting
// super_read_only meanwhile. It serves accounts and schemas that every member
// of a new group must have from the start, identically and without a GTID.
func Unlogged(ctx context.Context, conn *sql.Conn, stmts ...string) (err error) {
	restore, err := unlog(ctx, conn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	for _, s := range stmts {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// unlog prepares conn for statements that stay on this server. The returned
// function undoes it, whatever became of the caller's context.
func unlog(ctx context.Context, conn *sql.Conn) (restore func() error, err error) {
	var superReadOnly, logBin bool
	var mode string
	if err := conn.QueryRowContext(ctx, "SELECT @@GLOBAL.super_read_only, @@SESSION.sql_log_bin, @@SESSION.sql_mode").Scan(&superReadOnly, &logBin, &mode); err != nil {
		return nil, fmt.Errorf("leave the binary log: %w", err)
	}
	undo := []string{"SET SESSION sql_mode = " + text(mode)}
	if logBin {
		undo = append(undo, "SET SESSION sql_log_bin = 1")
	}
	if superReadOnly {
		undo = append(undo, "SET GLOBAL super_read_only = ON")
	}
	restore = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTimeout)
		defer cancel()
		var errs []error
		for _, s := range undo {
			if _, err := conn.ExecContext(ctx, s); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", s, err))
			}
		}
		return errors.Join(errs...)
	}
	do := []string{"SET SESSION sql_mode = ''", "SET SESSION sql_log_bin = 0"}
	if superReadOnly {
		do = append(do, "SET GLOBAL super_read_only = OFF")
	}
	for _, s := range do {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", s, err), restore())
		}
	}
	return restore, nil
}

func knownPrivileges(ctx context.Context, q Querier) (map[string]bool, error) {
	rows, err := q.QueryContext(ctx, "SHOW PRIVILEGES")
	if err != nil {
		return nil, fmt.Errorf("list privileges: %w", err)
	}
	defer func() { _ = rows.Close() }()
	known := map[string]bool{}
	for rows.Next() {
		var name, where, comment string
		if err := rows.Scan(&name, &where, &comment); err != nil {
			return nil, fmt.Errorf("list privileges: %w", err)
		}
		known[strings.ToUpper(name)] = true
	}
	return known, rows.Err()
}
