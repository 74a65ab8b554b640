package consensus

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"cohort/consensus/state"
)

// lines collects what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

type logLine struct{ Level, Raft, Message string }

func (l *lines) all(t *testing.T) (out []logLine) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.buf.Bytes()) {
		var x logLine
		if err := json.Unmarshal(line, &x); err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

var election = regexp.MustCompile(`(?i)vote|candidate|higher term`)

// Elections are nothing to warn of; a group that cannot work is.
func TestElectionsAreLoggedQuietly(t *testing.T) {
	var log lines
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.Logger = zerolog.New(&log).Level(zerolog.DebugLevel)
	})
	c.found()
	if err := c.members[0].node.TransferLeader(c.ctx(), 2); err != nil {
		t.Fatal(err)
	}
	c.crash(c.members[1])
	submit(t, c, c.members[0], "x", 5)
	votes, ours := 0, 0
	for _, l := range log.all(t) {
		switch {
		case l.Raft == "raft" && l.Level == "debug" && strings.Contains(l.Message, "cast vote"):
			votes++
		case l.Raft == "raft" && l.Level == "warn" && election.MatchString(l.Message):
			t.Errorf("a warning: %s", l.Message)
		case l.Raft == "config" && l.Level == "warn":
			t.Errorf("a warning: %s", l.Message)
		case l.Raft == "" && l.Level == "info" && strings.Contains(l.Message, "not authenticated"):
			ours++
		}
	}
	if votes == 0 || ours != 3 {
		t.Fatalf("%d votes at debug level, %d lines about authentication", votes, ours)
	}
}

func TestRaftWarnings(t *testing.T) {
	for _, x := range []struct {
		pkg, format string
		ordinary    bool
	}{
		{"raft", "%s became candidate", true},
		{"raft", "%s received %d preVotes and %d rejections, quorum is %d", true},
		{"raft", "%s has lost quorum", false},
		{"raft", "%s dropped proposal, no leader", false},
		{"raft", "%s, restore aborted, ss.Index <= committed", false},
		{"transport", "%s became candidate", false},
		{"config", "mutual TLS disabled, communication is insecure", true},
		{"config", "CAFile/CertFile/KeyFile specified when MutualTLS is disabled", false},
	} {
		if ordinary(x.pkg, x.format) != x.ordinary {
			t.Errorf("%s: %q", x.pkg, x.format)
		}
		var log lines
		l := zerolog.New(&log).Level(zerolog.DebugLevel)
		logTo.Store(&l)
		raftLogger{x.pkg}.Warningf(x.format, nil...)
		raftLogger{x.pkg}.Errorf(x.format, nil...)
		want := "warn"
		if x.ordinary {
			want = "debug"
		}
		if got := log.all(t); len(got) != 2 || got[0].Level != want || got[1].Level != "error" {
			t.Errorf("%+v", got)
		}
	}
}

// Leadership is offered to a primary that is up, by the leader only.
func TestTransferTarget(t *testing.T) {
	nobody := func(uint64) bool { return false }
	for _, st := range []state.MemberState{state.StateOffline, state.StateRecovering, state.StateOnline, state.StateError} {
		v := &state.View{Primary: 2, Members: []state.Member{{ID: 1, State: state.StateOnline}, {ID: 2, State: st}}}
		if to, ok := transferTarget(v, 1, 1, nobody); ok != (st == state.StateOnline) || ok && to != 2 {
			t.Errorf("%s: %d %t", st, to, ok)
		}
		for _, x := range [][2]uint64{{2, 1}, {2, 2}, {0, 1}} {
			if _, ok := transferTarget(v, x[0], x[1], nobody); ok {
				t.Errorf("%s: leader %d, self %d", st, x[0], x[1])
			}
		}
	}
	if _, ok := transferTarget(&state.View{Primary: 7}, 1, 1, nobody); ok {
		t.Error("unknown primary")
	}
	v := &state.View{Primary: 2, Members: []state.Member{{ID: 1, State: state.StateOnline}, {ID: 2, State: state.StateOnline}}}
	if _, ok := transferTarget(v, 1, 1, func(m uint64) bool { return m == 2 }); ok {
		t.Error("one that is not heard")
	}
}
