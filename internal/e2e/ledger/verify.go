package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	_ "github.com/go-sql-driver/mysql" // for database/sql

	"cohort/internal/loadgen"
)

// Problems are what a member is held to account for.
type Problems []string

// maxShown bounds an error's text: one fault tends to show many times.
const maxShown = 20

// Err is nil when there are none.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	shown := p[:min(len(p), maxShown)]
	return fmt.Errorf("ledger: %d problems:\n%s", len(p), strings.Join(shown, "\n"))
}

// writeID names a write within one schema.
type writeID struct {
	writer int
	seq    int64
}

// found is what a member holds of a write: how often by part.
type found map[int]int

// Verify reads a member's tables as the given account (root on its socket) and
// compares them with what was answered. Writers must have stopped and the
// members must have applied everything.
func (l *Ledger) Verify(ctx context.Context, target loadgen.Target) error {
	db, err := sql.Open("mysql", target.DSN())
	if err != nil {
		return err
	}
	defer db.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	schemas := map[string][]Writer{}
	for _, w := range l.Writers {
		schemas[w.Account.Schema] = append(schemas[w.Account.Schema], w)
	}
	var problems Problems
	for schema, writers := range schemas {
		p, err := l.verifySchema(ctx, db, schema, writers)
		if err != nil {
			return fmt.Errorf("ledger: %s: %w", schema, err)
		}
		problems = append(problems, p...)
	}
	return problems.Err()
}

func (l *Ledger) verifySchema(ctx context.Context, db *sql.DB, schema string, writers []Writer) (Problems, error) {
	present := map[writeID]found{}
	add := func(writer int, seq int64, part, n int) {
		id := writeID{writer, seq}
		if present[id] == nil {
			present[id] = found{}
		}
		present[id][part] += n
	}
	scan := func(query string, args ...any) error {
		rows, err := db.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var writer, part, n int
			var seq int64
			if err := rows.Scan(&writer, &seq, &part, &n); err != nil {
				return err
			}
			add(writer, seq, part, n)
		}
		return rows.Err()
	}
	// A body of the wrong length is another write than the one acknowledged.
	queries := []error{
		scan("SELECT w, seq, part, COUNT(*) FROM " + schema + ".ledger GROUP BY w, seq, part"),
		scan("SELECT SUBSTRING_INDEX(SUBSTRING_INDEX(table_name, '_', 2), '_', -1), SUBSTRING_INDEX(table_name, '_', -1), 1, COUNT(*) "+
			"FROM information_schema.tables WHERE table_schema = ? AND table_name LIKE 'made\\_%' GROUP BY table_name", schema),
	}
	counters := map[int]int64{}
	for _, w := range writers {
		switch w.Kind {
		case Locked:
			queries = append(queries, scan(fmt.Sprintf("SELECT %d, seq, 1, COUNT(*) FROM %s.locked_%d GROUP BY seq", w.ID, schema, w.ID)))
		case User:
			queries = append(queries, scan(fmt.Sprintf("SELECT %d, SUBSTRING_INDEX(user, '_', -1), 1, COUNT(*) FROM mysql.user WHERE user LIKE 'ledger\\_%d\\_%%' GROUP BY user", w.ID, w.ID)))
		case Multi:
			var n int64
			queries = append(queries, db.QueryRowContext(ctx, fmt.Sprintf("SELECT n FROM %s.counters WHERE w = %d", schema, w.ID)).Scan(&n))
			counters[w.ID] = n
		}
	}
	var short int
	queries = append(queries, db.QueryRowContext(ctx, fmt.Sprintf("SELECT COUNT(*) FROM %s.ledger WHERE LENGTH(body) > 100 AND LENGTH(body) <> %d", schema, largeRow)).Scan(&short))
	if err := errors.Join(queries...); err != nil {
		return nil, err
	}
	var problems Problems
	if short > 0 {
		problems = append(problems, fmt.Sprintf("%s: %d bodies of large writes have the wrong length", schema, short))
	}
	for _, w := range writers {
		problems = append(problems, l.verifyWriter(w, present, counters)...)
	}
	for id, f := range present {
		problems = append(problems, fmt.Sprintf("%s: writer %d, write %d was never made, found %v", schema, id.writer, id.seq, f))
	}
	return problems, nil
}

// verifyWriter takes what it accounts for out of present.
func (l *Ledger) verifyWriter(w Writer, present map[writeID]found, counters map[int]int64) Problems {
	var problems Problems
	var there int64
	for _, write := range l.writes[w.ID] {
		id := writeID{w.ID, write.Seq}
		f := present[id]
		delete(present, id)
		want := l.parts(w.Kind)
		whole := len(f) == want
		for _, n := range f {
			whole = whole && n == 1
		}
		complain := func(what string) {
			problems = append(problems, fmt.Sprintf("%s by %s, writer %d, write %d, %s: found parts %v of %d (answer: %v)",
				w.Kind, w.Account.User, w.ID, write.Seq, what, f, want, write.Err))
		}
		switch {
		case whole:
			there++
			if write.Outcome == Refused {
				complain("refused but there")
			}
		case len(f) > 0:
			complain("in part or more than once")
		case write.Outcome == Acked:
			complain("acknowledged and lost")
		}
	}
	if n, ok := counters[w.ID]; ok && n != there {
		problems = append(problems, fmt.Sprintf("writer %d of %s: its counter says %d, its rows %d", w.ID, w.Account.Schema, n, there))
	}
	return problems
}

func (l *Ledger) parts(k Kind) int {
	switch k {
	case Multi, Call:
		return 2
	case Large:
		return l.largeRows
	default:
		return 1
	}
}
