package battery

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
)

// Note is one operation of the session workload.
type Note struct {
	Call
	Row   int    `json:"row"`
	Wrote int    `json:"wrote,omitempty"`
	Read  int    `json:"read"`
	Mark  string `json:"mark,omitempty"` // of a read: the session's variable
	Want  string `json:"want,omitempty"`
}

// notes is read-your-writes: each session writes its own row and reads it on the
// same connection, wherever the primary is by then.
type notes struct {
	mu    sync.Mutex
	notes []Note
	last  map[int]int // by row, final
	n     map[int]int
}

func newNotes() *notes { return &notes{last: map[int]int{}, n: map[int]int{}} }

func (*notes) name() string { return "session" }

func (*notes) setup() []string {
	return []string{
		// What the clock says is data, which must be the same on all members.
		"CREATE TABLE notes (id INT PRIMARY KEY, n INT NOT NULL, " +
			"at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), seen DATETIME(6))",
		"CREATE TRIGGER notes_seen BEFORE UPDATE ON notes FOR EACH ROW SET NEW.seen = SYSDATE(6)",
		"INSERT INTO notes (id, n) WITH RECURSIVE s AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM s WHERE i < 31) SELECT i, 0 FROM s",
	}
}

func (*notes) clients(members int) int { return members }

func (w *notes) step(c *client, rng *rand.Rand) {
	n := Note{Row: c.id}
	if rng.IntN(2) == 0 {
		w.mu.Lock()
		w.n[c.id]++
		n.Wrote = w.n[c.id]
		w.mu.Unlock()
		c.call(&n.Call, true, func() (Outcome, error) {
			_, err := c.query(fmt.Sprintf("UPDATE notes SET n = %d WHERE id = %d", n.Wrote, c.id))
			return outcomeOf(err), err
		})
	} else {
		n.Want = c.mark
		c.call(&n.Call, false, func() (Outcome, error) {
			text, err := c.queryString(fmt.Sprintf("SELECT CONCAT(n, ',', IFNULL(@mark, 'lost'), ',', DATABASE()) FROM notes WHERE id = %d", c.id))
			if err != nil {
				return outcomeOf(err), err
			}
			parts := strings.SplitN(text, ",", 3)
			if len(parts) != 3 {
				return Unknown, fmt.Errorf("battery: note %q", text)
			}
			n.Mark = parts[1]
			n.Read, err = strconv.Atoi(parts[0])
			return outcomeOf(err), err
		})
	}
	w.mu.Lock()
	w.notes = append(w.notes, n)
	w.mu.Unlock()
}

func (w *notes) final(q querier) error {
	text, err := q("SELECT GROUP_CONCAT(n ORDER BY id) FROM notes")
	if err != nil {
		return err
	}
	list, err := parseList(text)
	for i, n := range list {
		w.last[i] = n
	}
	return err
}

func (w *notes) history() any { return map[string]any{"notes": w.notes, "final": w.last} }

func (w *notes) check() Verdict { return CheckNotes(w.notes, w.last) }

// CheckNotes follows each row through its only session. Notes of a session are
// in their order.
func CheckNotes(all []Note, final map[int]int) Verdict {
	var v Verdict
	rows := map[int][]Note{}
	for _, n := range all {
		rows[n.Row] = append(rows[n.Row], n)
	}
	for row, notes := range rows {
		var (
			acked   int              // newest acknowledged
			conn    int              // present connection
			here    int              // newest acknowledged or read on it
			pending = map[int]bool{} // unknown: may take effect at any time
			failed  = map[int]bool{}
		)
		for _, n := range notes {
			if n.Conn != conn {
				conn, here = n.Conn, 0
			}
			if n.Wrote > 0 {
				switch n.Outcome {
				case OK:
					acked, here = n.Wrote, n.Wrote
				case Unknown:
					pending[n.Wrote] = true
				case Fail:
					failed[n.Wrote] = true
				}
				continue
			}
			if n.Outcome != OK {
				continue
			}
			if n.Mark != n.Want {
				v.add("session", "lost session state", "@mark is %q: %+v", n.Mark, n)
			}
			switch {
			case failed[n.Read]:
				v.add("session", "read of a refused write", "%+v", n)
			case pending[n.Read]:
			case n.Read < here:
				v.add("session", "read-your-writes", "%d was acknowledged or read before on this connection: %+v", here, n)
			case n.Read < acked:
				v.Stale++
			case n.Read > acked:
				v.add("session", "read of what was not written", "%+v", n)
			}
			if !pending[n.Read] {
				here = max(here, n.Read)
			}
		}
		if end := final[row]; end != acked && !pending[end] {
			v.add("session", "lost write", "row %d holds %d, acknowledged was %d", row, end, acked)
		}
	}
	return v
}
