package sandbox

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Table shows members and what happens to them: on a terminal as a table that is
// redrawn in place, elsewhere as one line per change.
type Table struct {
	w    io.Writer
	live bool

	mu      sync.Mutex
	names   []string
	doing   map[string]string // until the member's status is known
	members map[string]Member
	drawn   int               // lines of the table on the terminal
	said    map[string]string // last line said about each member
}

// NewTable returns a table of the sandbox's members that is written to w.
func NewTable(w io.Writer, s *Sandbox) *Table {
	return &Table{
		w: w, live: isTerminal(w), names: s.Names(),
		doing: map[string]string{}, members: map[string]Member{}, said: map[string]string{},
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Doing shows what is being done to a member.
func (t *Table) Doing(member, doing string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.doing[member] = doing
	t.show(member, doing)
}

// Seen shows the members' status.
func (t *Table) Seen(ms []Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range ms {
		t.members[m.Name] = m
		text := strings.TrimSpace(m.State + " " + m.Role)
		switch {
		case m.Pid == 0:
			text += ": its process does not run"
		case m.MysqldPid == 0:
			text += ": its mysqld does not run"
		case m.silent:
			text = "starting the member"
		}
		delete(t.doing, m.Name)
		t.show(m.Name, text)
	}
}

func (t *Table) show(member, text string) {
	if t.said[member] == text {
		return
	}
	t.said[member] = text
	if !t.live {
		fmt.Fprintf(t.w, "%s: %s\n", member, text)
		return
	}
	if t.drawn > 0 {
		fmt.Fprintf(t.w, "\x1b[%dA\x1b[J", t.drawn) // back to the table's first line
	}
	t.drawn = t.write()
}

// write prints the table and returns its number of lines.
func (t *Table) write() int {
	var ms []Member
	for _, n := range t.names {
		m, ok := t.members[n]
		if d := t.doing[n]; d != "" || !ok {
			m = Member{Name: n, State: t.said[n]}
		}
		ms = append(ms, m)
	}
	WriteTable(t.w, ms)
	return len(ms) + 1
}

// Final prints the table once more where it was not drawn all along.
func (t *Table) Final(ms []Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.live {
		WriteTable(t.w, ms)
	}
}

// Detach ends the drawing in place: other text follows the table, and later
// changes are lines.
func (t *Table) Detach() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live = false
}

// WriteTable prints members with what a client needs to connect.
func WriteTable(w io.Writer, ms []Member) {
	rows := [][]string{{"MEMBER", "STATE", "ROLE", "DSN", "HTTP"}}
	for _, m := range ms {
		row := []string{m.Name, m.State, m.Role, "", ""}
		if m.Port != 0 {
			row[3], row[4] = m.DSN("app", "app", ""), m.HTTP
		}
		rows = append(rows, row)
	}
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], len(c))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, c := range r {
			fmt.Fprintf(&b, "%-*s  ", width[i], c)
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}
