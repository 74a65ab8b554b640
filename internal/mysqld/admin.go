package mysqld

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// Querier is a connection or a pool; *sql.DB, *sql.Conn and *sql.Tx are.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Open returns a pool of connections to the mysqld behind a unix socket.
// Nothing is dialled yet. Statements go as text, so that commands which cannot
// be prepared take arguments too.
func Open(socket, user, password string) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.User, cfg.Passwd = "unix", socket, user, password
	cfg.InterpolateParams = true
	cfg.Logger = &mysql.NopLogger{} // every error is returned; none is news twice
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("mysqld at %s: %w", socket, err)
	}
	return sql.OpenDB(c), nil
}

// Errno returns the MySQL error number of err, 0 if it has none.
func Errno(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// SetGlobals sets global variables, in the order of their names. Values are
// words (ON, a number) or text, which is quoted.
func SetGlobals(ctx context.Context, q Querier, vars map[string]string) error {
	return setAll(ctx, q, "GLOBAL", vars)
}

// SetPersist sets global variables so that they survive a restart of mysqld
// (mysqld-auto.cnf). Variables that can only be set at a start are written for
// the next one.
func SetPersist(ctx context.Context, q Querier, vars map[string]string) error {
	return setAll(ctx, q, "PERSIST", vars)
}

const errReadOnlyVariable = 1238 // ER_INCORRECT_GLOBAL_LOCAL_VAR: "is a read only variable"

func setAll(ctx context.Context, q Querier, scope string, vars map[string]string) error {
	names := make([]string, 0, len(vars))
	for n := range vars {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if !variableName.MatchString(n) {
			return fmt.Errorf("set %s: not a variable's name", strconv.Quote(n))
		}
		set := "SET " + scope + " " + n + " = " + literal(vars[n])
		_, err := q.ExecContext(ctx, set)
		if Errno(err) == errReadOnlyVariable && scope == "PERSIST" {
			_, err = q.ExecContext(ctx, "SET PERSIST_ONLY "+n+" = "+literal(vars[n]))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", set, err)
		}
	}
	return nil
}

var bareWord = regexp.MustCompile(`^(-?[0-9]+(\.[0-9]+)?|ON|OFF|DEFAULT)$`)

func literal(v string) string {
	if bareWord.MatchString(strings.ToUpper(v)) {
		return v
	}
	if !quotable(v) {
		return fmt.Sprintf("_utf8mb4 0x%x", v)
	}
	return text(v)
}

// quotable reports whether text(v) means v in every sql_mode.
func quotable(v string) bool { return !strings.ContainsAny(v, "\\\x00") }

// text quotes a quotable string where the grammar takes no other literal.
func text(v string) string { return "'" + strings.ReplaceAll(v, "'", "''") + "'" }
