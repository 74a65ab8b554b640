package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"cohort/internal/httpapi"
)

// Member is one member as `cohort sandbox status --json` prints it. State and
// role are in MySQL's words; a member that does not run, or does not answer, is
// OFFLINE and has no role. Pids of processes that do not run are 0.
type Member struct {
	Name         string `json:"name"`
	UUID         string `json:"uuid"`
	Role         string `json:"role"`
	State        string `json:"state"`
	Host         string `json:"host"`
	Port         int    `json:"port"`
	HTTP         string `json:"http"`
	Pid          int    `json:"pid"`
	MysqldPid    int    `json:"mysqld_pid"`
	MysqldSocket string `json:"mysqld_socket"`
	MysqldPort   int    `json:"mysqld_port"`
	Dir          string `json:"dir"`
	Datadir      string `json:"mysqld_datadir"`

	// why says in words what keeps the member from being ONLINE; silent that
	// its process runs but did not answer.
	why    string
	silent bool
}

// DSN is the member's address in the form of go-sql-driver/mysql.
func (m Member) DSN(user, password, schema string) string {
	return fmt.Sprintf("%s:%s@tcp(%s:%d)/%s", user, password, m.Host, m.Port, schema)
}

const offline = "OFFLINE"

// client asks members on the loopback interface; a proxy that the environment
// names has no business there.
var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// Status asks all members and looks at their processes.
func (s *Sandbox) Status(ctx context.Context) []Member {
	out := make([]Member, len(s.spec.Members))
	var wg sync.WaitGroup
	for i, m := range s.spec.Members {
		wg.Go(func() { out[i] = s.member(ctx, m) })
	}
	wg.Wait()
	return out
}

func (s *Sandbox) member(ctx context.Context, m memberSpec) Member {
	o := s.mysqldOptions(m)
	r := Member{
		Name: m.Name, UUID: serverUUID(o.Datadir()), State: offline, Host: m.host(), Port: m.Port, HTTP: "http://" + m.addr(m.HTTPPort),
		MysqldSocket: o.SocketFile(), MysqldPort: m.MysqldPort, Dir: s.memberDir(m), Datadir: o.Datadir(),
	}
	if id, ok := s.running(m, Mysqld); ok {
		r.MysqldPid = id.Pid
	} else {
		r.why = "mysqld does not run: " + lastLine(o.LogFile())
	}
	id, ok := s.running(m, Proxy)
	if !ok {
		r.why = "its process does not run: " + lastLine(s.memberLog(m))
		return r
	}
	r.Pid = id.Pid
	var st httpapi.Status
	if err := getJSON(ctx, r.HTTP+"/status", &st); err != nil {
		r.why, r.silent = "it does not answer yet: "+err.Error(), true
		return r
	}
	if st.Self.State != "" {
		r.State, r.Role = st.Self.State, st.Self.Role
	}
	if st.Self.MemberID != "" {
		r.UUID = st.Self.MemberID
	}
	if r.State != httpapi.Online && r.why == "" {
		var v httpapi.Verdict
		if err := getJSON(ctx, r.HTTP+"/health", &v); err == nil && v.Reason != "" {
			r.why = v.Reason
		} else {
			r.why = "it says so; see " + s.memberLog(m)
		}
	}
	return r
}

// getJSON reads a JSON answer; /health answers 503 with a body.
func getJSON(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusServiceUnavailable {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(into)
}

// serverUUID reads the uuid that mysqld keeps beside its data.
func serverUUID(datadir string) string {
	b, err := os.ReadFile(filepath.Join(datadir, "auto.cnf"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "server-uuid="); ok {
			return v
		}
	}
	return ""
}

// lastLine returns the last line of a log, for a message.
func lastLine(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return "no log"
	}
	b = bytes.TrimSpace(b)
	b = b[bytes.LastIndexByte(b, '\n')+1:]
	if len(b) == 0 {
		return "its log is empty"
	}
	return string(b[:min(len(b), 500)])
}

// WaitOnline returns once the named member ("": every one) is ONLINE, and for
// the whole group also one of them PRIMARY. Otherwise the error, which wraps
// ErrNotOnline, says which is not and why: when ctx ends, or at once when a
// process has ended. seen, if not nil, gets every status read.
func (s *Sandbox) WaitOnline(ctx context.Context, name string, seen func([]Member)) error {
	if _, err := s.pick(name); err != nil {
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ms := s.Status(ctx)
		if seen != nil {
			seen(ms)
		}
		var missing []string
		ended, primary := false, name != ""
		for _, m := range ms {
			primary = primary || m.Role == httpapi.Primary
			if (name == "" || m.Name == name) && m.State != httpapi.Online {
				missing = append(missing, fmt.Sprintf("%s is %s: %s", m.Name, m.State, m.why))
				ended = ended || m.Pid == 0 || m.MysqldPid == 0
			}
		}
		if len(missing) == 0 && primary {
			return nil
		}
		if len(missing) == 0 {
			missing = []string{"no member is PRIMARY"}
		}
		err := fmt.Errorf("%w: %s", ErrNotOnline, strings.Join(missing, "; "))
		if ended {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
