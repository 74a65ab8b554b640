package loadgen

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Protocol says how a workload sends its statements.
type Protocol int

const (
	// Prepared uses server-side prepared statements.
	Prepared Protocol = iota
	// TextProtocol sends each statement as text.
	TextProtocol
)

// Schema describes the tables that the workloads use: sysbench's shape.
type Schema struct {
	Database string
	Rows     int
}

// Prepare creates the database and its one table and fills it. A table that is
// there already is replaced.
func (s Schema) Prepare(ctx context.Context, t Target) error {
	t.Schema = ""
	c, err := Dial(ctx, t)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, sql := range []string{
		"CREATE DATABASE IF NOT EXISTS " + s.Database,
		"USE " + s.Database,
		"DROP TABLE IF EXISTS sbtest1",
		"CREATE TABLE sbtest1 (id INT NOT NULL AUTO_INCREMENT, k INT NOT NULL DEFAULT 0, " +
			"c CHAR(120) NOT NULL DEFAULT '', pad CHAR(60) NOT NULL DEFAULT '', PRIMARY KEY (id), KEY k_1 (k)) ENGINE=InnoDB",
	} {
		if _, err := c.Query(sql); err != nil {
			return fmt.Errorf("loadgen: %s: %w", sql, err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	const batch = 1000
	for from := 1; from <= s.Rows; from += batch {
		if err := ctx.Err(); err != nil {
			return err
		}
		var sql strings.Builder
		sql.WriteString("INSERT INTO sbtest1 (id, k, c, pad) VALUES ")
		for id := from; id < from+batch && id <= s.Rows; id++ {
			if id > from {
				sql.WriteByte(',')
			}
			fmt.Fprintf(&sql, "(%d,%d,'%s','%s')", id, rng.IntN(s.Rows)+1, digits(rng, 10), digits(rng, 5))
		}
		if _, err := c.Query(sql.String()); err != nil {
			return fmt.Errorf("loadgen: fill sbtest1: %w", err)
		}
	}
	return nil
}

// digits makes sysbench's strings: groups of eleven digits joined by dashes.
func digits(rng *rand.Rand, groups int) string {
	b := make([]byte, 0, groups*12)
	for g := range groups {
		if g > 0 {
			b = append(b, '-')
		}
		v := rng.Uint64()
		for range 11 {
			b = append(b, '0'+byte(v%10))
			v /= 10
		}
	}
	return string(b)
}

// Workload is one kind of transaction.
type Workload struct {
	Name   string
	Writes bool // each transaction commits exactly one group transaction
	// open prepares a session and returns the function that runs one transaction.
	open func(c *Conn, s Schema, rng *rand.Rand, p Protocol) (func() error, error)
}

// Workloads are all that there are, by name.
func Workloads() []Workload {
	return []Workload{
		{Name: "update", Writes: true, open: openUpdate},
		{Name: "begin-update-commit", Writes: true, open: openTransaction},
		{Name: "point-select", open: openPointSelect},
		{Name: "oltp-read-write", Writes: true, open: openReadWrite},
	}
}

// WorkloadNamed finds a workload.
func WorkloadNamed(name string) (Workload, error) {
	for _, w := range Workloads() {
		if w.Name == name {
			return w, nil
		}
	}
	return Workload{}, fmt.Errorf("loadgen: no workload %q", name)
}

// statement returns a function that runs sql with parameters over p.
func statement(c *Conn, p Protocol, sql string) (func(args ...Arg) error, error) {
	if p == Prepared {
		st, err := c.Prepare(sql)
		if err != nil {
			return nil, fmt.Errorf("loadgen: prepare %q: %w", sql, err)
		}
		return func(args ...Arg) error { _, err := st.Exec(args...); return err }, nil
	}
	parts := strings.Split(sql, "?")
	return func(args ...Arg) error {
		c.begin(comQuery)
		for i, part := range parts {
			c.out = append(c.out, part...)
			if i < len(args) {
				c.out = args[i].appendLiteral(c.out)
			}
		}
		if err := c.send(); err != nil {
			return err
		}
		_, err := c.results(false)
		return err
	}, nil
}

// appendLiteral renders the parameter as SQL. Texts of the workloads hold
// digits and dashes only, so nothing needs escaping.
func (a Arg) appendLiteral(b []byte) []byte {
	if a.IsText {
		return append(append(append(b, '\''), a.Text...), '\'')
	}
	return fmt.Appendf(b, "%d", a.Int)
}

func openUpdate(c *Conn, s Schema, rng *rand.Rand, p Protocol) (func() error, error) {
	update, err := statement(c, p, "UPDATE sbtest1 SET k = k + 1 WHERE id = ?")
	return func() error { return update(Int(rng.Int64N(int64(s.Rows)) + 1)) }, err
}

func openTransaction(c *Conn, s Schema, rng *rand.Rand, p Protocol) (func() error, error) {
	update, err := openUpdate(c, s, rng, p)
	return func() error { return bracket(c, update) }, err
}

func openPointSelect(c *Conn, s Schema, rng *rand.Rand, p Protocol) (func() error, error) {
	sel, err := statement(c, p, "SELECT c FROM sbtest1 WHERE id = ?")
	return func() error { return sel(Int(rng.Int64N(int64(s.Rows)) + 1)) }, err
}

// openReadWrite is the mix of sysbench's oltp_read_write with its default
// counts, with uniformly distributed ids.
func openReadWrite(c *Conn, s Schema, rng *rand.Rand, p Protocol) (func() error, error) {
	const spread = 100
	texts := []string{
		"SELECT c FROM sbtest1 WHERE id = ?",
		"SELECT c FROM sbtest1 WHERE id BETWEEN ? AND ?",
		"SELECT SUM(k) FROM sbtest1 WHERE id BETWEEN ? AND ?",
		"SELECT c FROM sbtest1 WHERE id BETWEEN ? AND ? ORDER BY c",
		"SELECT DISTINCT c FROM sbtest1 WHERE id BETWEEN ? AND ? ORDER BY c",
		"UPDATE sbtest1 SET k = k + 1 WHERE id = ?",
		"UPDATE sbtest1 SET c = ? WHERE id = ?",
		"DELETE FROM sbtest1 WHERE id = ?",
		"INSERT INTO sbtest1 (id, k, c, pad) VALUES (?, ?, ?, ?)",
	}
	run := make([]func(...Arg) error, len(texts))
	for i, sql := range texts {
		var err error
		if run[i], err = statement(c, p, sql); err != nil {
			return nil, err
		}
	}
	id := func() int64 { return rng.Int64N(int64(s.Rows)) + 1 }
	body := func() error {
		for range 10 {
			if err := run[0](Int(id())); err != nil {
				return err
			}
		}
		for _, ranged := range run[1:5] {
			from := id()
			if err := ranged(Int(from), Int(from+spread-1)); err != nil {
				return err
			}
		}
		if err := run[5](Int(id())); err != nil {
			return err
		}
		if err := run[6](Text(digits(rng, 10)), Int(id())); err != nil {
			return err
		}
		gone := id()
		if err := run[7](Int(gone)); err != nil {
			return err
		}
		return run[8](Int(gone), Int(id()), Text(digits(rng, 10)), Text(digits(rng, 5)))
	}
	return func() error { return bracket(c, body) }, nil
}

// bracket runs body between BEGIN and COMMIT, and rolls back when it fails.
func bracket(c *Conn, body func() error) error {
	if _, err := c.Query("BEGIN"); err != nil {
		return err
	}
	if err := body(); err != nil {
		var se *ServerError
		if errors.As(err, &se) {
			if _, rbErr := c.Query("ROLLBACK"); rbErr != nil {
				return errors.Join(err, rbErr)
			}
		}
		return err
	}
	_, err := c.Query("COMMIT")
	return err
}
