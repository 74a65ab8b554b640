package battery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cohort/internal/loadgen"
	"cohort/internal/pause"
)

// answerWithin bounds the wait for one answer; an operation without one is
// unknown.
const answerWithin = 30 * time.Second

// querier reads one value.
type querier func(sql string) (string, error)

// workload is what a set of clients does and how it is judged.
type workload interface {
	name() string
	setup() []string          // statements that make its tables
	clients(members int) int  // how many sessions
	step(*client, *rand.Rand) // one operation, recorded
	final(querier) error      // reads how it ended
	check() Verdict
	history() any // for a file
}

// client is one session. Its connection is replaced when it is lost; an
// operation never goes on over another one.
type client struct {
	id      int
	schema  string
	base    time.Time
	targets []Target
	at      int  // the target it is connected to
	roam    bool // to another one when it cannot connect
	direct  bool // to members' own mysqlds: for reading only
	before  bool // reads under group_replication_consistency=BEFORE
	conns   *atomic.Int32

	conn   *loadgen.Conn
	number int   // of the connection
	broken error // what ended the connection
	mark   string
	done   *progress
}

// Target is a member as a client sees it.
type Target struct {
	Name string
	At   loadgen.Target
}

// progress counts operations and errors, and tells when a write was acknowledged.
type progress struct {
	acks  chan<- time.Duration
	acked atomic.Int64
	wrote atomic.Int64 // acknowledged writes
	total atomic.Int64

	mu     sync.Mutex
	errors map[string]int
}

const erUnknown = 1105

// lostConnection stands for errors that no server sent.
const lostConnection = "lost connection"

func (p *progress) fail(err error) {
	what := lostConnection
	var se *loadgen.ServerError
	if errors.As(err, &se) {
		what = strconv.Itoa(int(se.Number))
		if se.Number == erUnknown { // the number alone says nothing
			text, _, _ := strings.Cut(se.Message, ";")
			text, _, _ = strings.Cut(text, "(")
			text, _, _ = strings.Cut(text, ":")
			what += " " + strings.TrimSpace(text)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.errors == nil {
		p.errors = map[string]int{}
	}
	p.errors[what]++
}

// run does operations until the context ends; the one under way has its answer.
func (c *client) run(ctx context.Context, w workload, rng *rand.Rand) {
	defer c.drop()
	for ctx.Err() == nil {
		if c.conn == nil && !c.connect(ctx, rng) {
			if c.roam {
				c.at = rng.IntN(len(c.targets))
			}
			_ = pause.For(ctx, 50*time.Millisecond)
			continue
		}
		w.step(c, rng)
		_ = pause.For(ctx, time.Duration(rng.IntN(10))*time.Millisecond)
	}
}

func (c *client) connect(ctx context.Context, rng *rand.Rand) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	t := c.targets[c.at]
	conn, err := loadgen.Dial(ctx, t.At)
	if err != nil {
		return false
	}
	c.conn, c.number, c.broken = conn, int(c.conns.Add(1)), nil
	c.mark = fmt.Sprintf("m%d_%d", c.number, rng.Uint32())
	// What a session has set it keeps, whatever becomes of the primary.
	statements := []string{"USE " + c.schema, "SET @mark = '" + c.mark + "'", "SET SESSION group_concat_max_len = 64000000"}
	if c.before {
		statements = append(statements, "SET SESSION group_replication_consistency = 'BEFORE'")
	}
	for _, sql := range statements {
		if _, err := c.query(sql); err != nil {
			c.drop()
			return false
		}
	}
	return true
}

func (c *client) drop() {
	if c.conn != nil {
		_ = c.conn.SetDeadline(time.Now().Add(time.Second))
		_ = c.conn.Close()
		c.conn = nil
	}
}

func (c *client) since() time.Duration { return time.Since(c.base) }

// lost remembers an error that leaves the connection useless.
func (c *client) lost(err error) error {
	var se *loadgen.ServerError
	if err != nil && !errors.As(err, &se) {
		c.broken = err
	}
	return err
}

func (c *client) query(sql string) (loadgen.Reply, error) {
	_ = c.conn.SetDeadline(time.Now().Add(answerWithin))
	r, err := c.conn.Query(sql)
	return r, c.lost(err)
}

func (c *client) queryString(sql string) (string, error) {
	_ = c.conn.SetDeadline(time.Now().Add(answerWithin))
	s, err := c.conn.QueryString(sql)
	return s, c.lost(err)
}

// call records one operation. After an error the session is brought to a state
// in which the next can begin, or left for another connection.
func (c *client) call(r *Call, writes bool, do func() (Outcome, error)) {
	r.Session, r.Conn, r.Through = c.id, c.number, c.targets[c.at].Name
	r.Start = c.since()
	outcome, err := do()
	r.End = c.since()
	r.Outcome = outcome
	c.done.total.Add(1)
	if outcome == OK {
		c.done.acked.Add(1)
		if writes {
			c.done.wrote.Add(1)
			select {
			case c.done.acks <- r.End:
			default: // a figure, not worth waiting for
			}
		}
	}
	if err == nil {
		return
	}
	r.Err = err.Error()
	c.done.fail(err)
	if c.broken == nil {
		_, _ = c.query("ROLLBACK")
	}
	if c.broken != nil {
		c.drop()
	}
}

// transaction runs n statements and says what became of them. Nothing is
// committed before COMMIT was sent, so an error before it is a failure, also
// when the connection is lost.
func (c *client) transaction(auto bool, n int, statement func(i int) error) (Outcome, error) {
	if auto {
		err := statement(0)
		return outcomeOf(err), err
	}
	if _, err := c.query("BEGIN"); err != nil {
		return Fail, err
	}
	for i := range n {
		if err := statement(i); err != nil {
			return Fail, err
		}
	}
	_, err := c.query("COMMIT")
	return outcomeOf(err), err
}
