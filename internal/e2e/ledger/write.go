package ledger

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"cohort/internal/loadgen"
)

// Dialer says where a writer connects now; members move when they restart.
type Dialer func(ctx context.Context, w Writer) (loadgen.Target, error)

// answerWithin bounds the wait for one answer. A write without one is unknown.
const answerWithin = 45 * time.Second

// Prepare creates the schemas (for accounts that lack theirs) and tables.
func (l *Ledger) Prepare(ctx context.Context, dial Dialer) error {
	done := map[Account]bool{}
	for _, w := range l.Writers {
		if !done[w.Account] {
			done[w.Account] = true
			if err := l.once(ctx, dial, w, schemaStatements(w.Account)); err != nil {
				return err
			}
		}
		if err := l.once(ctx, dial, w, []string{
			fmt.Sprintf("INSERT INTO counters VALUES (%d, 0)", w.ID),
			fmt.Sprintf("CREATE TABLE locked_%d (id BIGINT AUTO_INCREMENT PRIMARY KEY, seq BIGINT NOT NULL)", w.ID),
		}); err != nil {
			return err
		}
	}
	return nil
}

func schemaStatements(a Account) []string {
	return []string{
		"CREATE DATABASE IF NOT EXISTS " + a.Schema,
		"USE " + a.Schema,
		"CREATE TABLE ledger (id BIGINT AUTO_INCREMENT PRIMARY KEY, w INT NOT NULL, seq BIGINT NOT NULL, " +
			"part INT NOT NULL, body LONGBLOB, KEY (w, seq))",
		"CREATE TABLE counters (w INT PRIMARY KEY, n BIGINT NOT NULL)",
		"CREATE PROCEDURE put (IN w INT, IN seq BIGINT) BEGIN START TRANSACTION; " +
			"INSERT INTO ledger (w, seq, part) VALUES (w, seq, 1); INSERT INTO ledger (w, seq, part) VALUES (w, seq, 2); COMMIT; END",
	}
}

func (l *Ledger) once(ctx context.Context, dial Dialer, w Writer, statements []string) error {
	c, err := open(ctx, dial, w)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, sql := range statements {
		if _, err := c.Query(sql); err != nil {
			return fmt.Errorf("ledger: %s: %s: %w", w.Account.User, sql, err)
		}
	}
	return nil
}

func open(ctx context.Context, dial Dialer, w Writer) (*loadgen.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	t, err := dial(ctx, w)
	if err != nil {
		return nil, err
	}
	c, err := loadgen.Dial(ctx, t)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(answerWithin))
	// The schema may not exist yet when Prepare connects.
	if _, err := c.Query("USE " + w.Account.Schema); err != nil {
		var se *loadgen.ServerError
		if !errors.As(err, &se) || se.Number != 1049 {
			_ = c.Close()
			return nil, err
		}
	}
	return c, nil
}

// Run writes with all writers until the context ends, then lets every write
// that is under way have its answer. A writer that loses its connection opens
// another one.
func (l *Ledger) Run(ctx context.Context, dial Dialer) {
	var wg sync.WaitGroup
	for _, w := range l.Writers {
		wg.Go(func() { l.write(ctx, dial, w) })
	}
	wg.Wait()
}

// pace keeps the costly kinds from crowding out the others.
func pace(k Kind) time.Duration {
	switch k {
	case Autocommit, Prepared, Multi:
		return 2 * time.Millisecond
	case Large:
		return 500 * time.Millisecond
	default:
		return 100 * time.Millisecond
	}
}

func (l *Ledger) write(ctx context.Context, dial Dialer, w Writer) {
	l.mu.Lock()
	seq := int64(len(l.writes[w.ID])) // a second Run goes on counting
	l.mu.Unlock()
	var c *session
	defer func() {
		if c != nil {
			_ = c.Close()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if c == nil {
			conn, err := open(ctx, dial, w)
			if err != nil {
				timer.Reset(200 * time.Millisecond)
				continue
			}
			c = &session{Conn: conn}
		}
		seq++
		_ = c.SetDeadline(time.Now().Add(answerWithin))
		err, after := l.one(c, w, seq)
		l.record(w, seq, err)
		if err == nil {
			err = after
		}
		if err != nil && l.Stay {
			err = tidy(c, err)
		}
		if err != nil {
			l.lose(w, err)
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_ = c.Close()
			c = nil
		}
		timer.Reset(pace(w.Kind))
	}
}

// session is a connection and what was prepared on it.
type session struct {
	*loadgen.Conn
	insert *loadgen.Stmt
}

// one performs one write. err is that of the first statement that failed up to
// and with the one that commits: nothing behind it was sent. after is that of a
// statement behind the one that commits, which the write does not depend on.
func (l *Ledger) one(c *session, w Writer, seq int64) (err, after error) {
	if w.Kind == Prepared {
		return c.insertPrepared(w, seq), nil
	}
	statements := l.statements(w, seq)
	commits := len(statements) - 1
	if w.Kind == Locked {
		commits-- // the INSERT commits; UNLOCK TABLES is tidying up
	}
	for i, sql := range statements {
		if _, err := c.Query(sql); err != nil {
			if i > commits {
				return nil, err
			}
			return err, nil
		}
	}
	return nil, nil
}

func (c *session) insertPrepared(w Writer, seq int64) error {
	if c.insert == nil {
		stmt, err := c.Prepare("INSERT INTO ledger (w, seq, part, body) VALUES (?, ?, 1, ?)")
		if err != nil {
			return err
		}
		c.insert = stmt
	}
	_, err := c.insert.Exec(loadgen.Int(int64(w.ID)), loadgen.Int(seq), loadgen.Text("prepared"))
	return err
}

// tidy returns a connection that was answered with an error to a state in which
// the next write can begin, or says what keeps it from that.
func tidy(c *session, err error) error {
	var se *loadgen.ServerError
	if !errors.As(err, &se) {
		return err
	}
	for _, sql := range []string{"ROLLBACK", "UNLOCK TABLES"} {
		if _, err := c.Query(sql); err != nil {
			return err
		}
	}
	return nil
}

// largeRow is the length of one of the rows of a large write, in bytes.
const largeRow = 256 << 10

// noise is a literal of random bytes: what a compressor could shrink would not
// be large on the wire.
func noise(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return "x'" + hex.EncodeToString(b) + "'"
}

func (l *Ledger) statements(w Writer, seq int64) []string {
	insert := func(part int, body string) string {
		return fmt.Sprintf("INSERT INTO ledger (w, seq, part, body) VALUES (%d, %d, %d, %s)", w.ID, seq, part, body)
	}
	switch w.Kind {
	case Autocommit:
		return []string{insert(1, "'autocommit'")}
	case Multi:
		return []string{
			"BEGIN",
			insert(1, "'first'"),
			fmt.Sprintf("UPDATE counters SET n = n + 1 WHERE w = %d", w.ID),
			insert(2, "'second'"),
			"COMMIT",
		}
	case Large:
		statements := []string{"BEGIN"}
		for part := 1; part <= l.largeRows; part++ {
			statements = append(statements, insert(part, noise(largeRow)))
		}
		return append(statements, "COMMIT")
	case DDL:
		return []string{fmt.Sprintf("CREATE TABLE made_%d_%d (id INT PRIMARY KEY)", w.ID, seq)}
	case Locked:
		return []string{
			fmt.Sprintf("LOCK TABLES locked_%d WRITE", w.ID),
			fmt.Sprintf("INSERT INTO locked_%d (seq) VALUES (%d)", w.ID, seq),
			"UNLOCK TABLES",
		}
	case Call:
		return []string{fmt.Sprintf("CALL put(%d, %d)", w.ID, seq)}
	case User:
		return []string{fmt.Sprintf("CREATE USER ledger_%d_%d IDENTIFIED BY 'secret'", w.ID, seq)}
	}
	panic("ledger: no such kind: " + string(w.Kind))
}
