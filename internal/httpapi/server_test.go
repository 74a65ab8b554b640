package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func status(state, role string, serving bool) Status {
	return Status{
		GroupName: "g", ViewID: "1:2", Primary: "m1", Epoch: 3, LastOrdered: 10, Applied: 8, Backlog: 2, Leader: "m1",
		Self:    Self{MemberID: "m1", State: state, Role: role, Host: "h", Port: 6446},
		Members: []Member{{MemberID: "m1", Host: "h", Port: 6446, State: state, Role: role, Version: "9.7.4", MysqldAddress: "h:3306"}},
		Serving: serving,
	}
}

func get(t *testing.T, h http.Handler, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

func TestChecks(t *testing.T) {
	for _, tc := range []struct {
		name                     string
		s                        Status
		health, primary, replica int
	}{
		{"primary", status(Online, Primary, true), 200, 200, 503},
		{"secondary", status(Online, Secondary, true), 200, 503, 200},
		{"recovering", status("RECOVERING", Secondary, true), 503, 503, 503},
		{"error", status("ERROR", Primary, true), 503, 503, 503},
		{"online, not serving", status(Online, Primary, false), 503, 503, 503},
		{"online secondary, not serving", status(Online, Secondary, false), 503, 503, 503},
		{"nothing known", Status{}, 503, 503, 503},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := Handler(Options{Status: func() Status { return tc.s }})
			for path, want := range map[string]int{"/health": tc.health, "/primary": tc.primary, "/replica": tc.replica} {
				code, body := get(t, h, "GET", path)
				if code != want {
					t.Errorf("%s: %d, want %d", path, code, want)
				}
				var v Verdict
				if err := json.Unmarshal([]byte(body), &v); err != nil {
					t.Fatalf("%s: %v in %q", path, err, body)
				}
				if v.OK != (want == 200) || (v.Reason == "") != v.OK || v.State != tc.s.Self.State {
					t.Errorf("%s: %+v", path, v)
				}
				if code, _ := get(t, h, "HEAD", path); code != want {
					t.Errorf("HEAD %s: %d, want %d", path, code, want)
				}
			}
		})
	}
}

func TestReasonIsShown(t *testing.T) {
	for _, s := range []Status{
		{Self: Self{State: "ERROR"}, Reason: "mysqld is gone"},
		{Self: Self{State: Online}, Reason: "mysqld is gone"},
	} {
		_, body := get(t, Handler(Options{Status: func() Status { return s }}), "GET", "/health")
		if !strings.Contains(body, "mysqld is gone") {
			t.Errorf("body %q", body)
		}
	}
}

func TestStatusDocument(t *testing.T) {
	s := status(Online, Primary, true)
	s.Reason = "not shown"
	_, body := get(t, Handler(Options{Status: func() Status { return s }}), "GET", "/status")
	want := `{"group_name":"g","view_id":"1:2","self":{"member_id":"m1","state":"ONLINE","role":"PRIMARY","host":"h","port":6446},` +
		`"members":[{"member_id":"m1","host":"h","port":6446,"state":"ONLINE","role":"PRIMARY","version":"9.7.4","mysqld_address":"h:3306"}],` +
		`"primary":"m1","epoch":3,"last_ordered":10,"applied":8,"backlog":2,"leader":"m1"}` + "\n"
	if body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	if _, body := get(t, Handler(Options{Status: func() Status { return Status{} }}), "GET", "/status"); !strings.Contains(body, `"members":[]`) {
		t.Errorf("no members: %s", body)
	}
}

func TestReadOnly(t *testing.T) {
	h := Handler(Options{Status: func() Status { return Status{} }})
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		if code, _ := get(t, h, method, "/health"); code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, code)
		}
	}
	if code, _ := get(t, h, "GET", "/other"); code != 404 {
		t.Errorf("/other: %d", code)
	}
}

func TestPprofOnlyWhenEnabled(t *testing.T) {
	for _, on := range []bool{false, true} {
		code, _ := get(t, Handler(Options{Status: func() Status { return Status{} }, Pprof: on}), "GET", "/debug/pprof/cmdline")
		if (code == 200) != on {
			t.Errorf("pprof=%v: %d", on, code)
		}
	}
}

func TestMetrics(t *testing.T) {
	s := status(Online, Primary, true)
	s.Members = append(s.Members, s.Members[0], Member{MemberID: "m\xff2"}) // a duplicate and bad UTF-8 do no harm
	f := func() Status { return s }
	code, body := get(t, Handler(Options{Status: f, Registry: NewRegistry(f)}), "GET", "/metrics")
	if code != 200 {
		t.Fatalf("%d: %s", code, body)
	}
	for _, want := range []string{
		"cohort_transactions_last_ordered 10", "cohort_transactions_applied 8", "cohort_transactions_backlog 2", "cohort_group_epoch 3",
		"cohort_member_healthy 1", "cohort_member_primary 1", "cohort_member_log_leader 1", "go_goroutines ",
		`cohort_member_info{member_id="m1",role="PRIMARY",state="ONLINE",version="9.7.4"} 1`,
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("no line %q", want)
		}
	}
	if code, _ := get(t, Handler(Options{Status: f}), "GET", "/metrics"); code != 404 {
		t.Errorf("without a registry: %d", code)
	}
}

func start(t *testing.T, o Options) (*Server, context.CancelFunc, chan error) {
	t.Helper()
	o.Addr, o.Logger = "127.0.0.1:0", zerolog.Nop()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, cancel, done
}

func ended(t *testing.T, done chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Minute):
		t.Fatal("Run did not end")
		return nil
	}
}

func TestShutdownLetsRequestsFinish(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	s, cancel, done := start(t, Options{Status: func() Status {
		if once.CompareAndSwap(false, true) {
			close(entered)
			<-release
		}
		return status(Online, Primary, true)
	}})
	answer := make(chan int, 1)
	go func() {
		r, err := http.Get("http://" + s.Addr().String() + "/health")
		if err != nil {
			answer <- 0
			return
		}
		defer r.Body.Close()
		io.Copy(io.Discard, r.Body)
		answer <- r.StatusCode
	}()
	<-entered
	cancel()
	close(release)
	if code := <-answer; code != 200 {
		t.Errorf("the request in progress got %d", code)
	}
	if err := ended(t, done); err != nil {
		t.Errorf("Run: %v", err)
	}
	if c, err := net.Dial("tcp", s.Addr().String()); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

func TestClose(t *testing.T) {
	s, cancel, done := start(t, Options{Status: func() Status { return Status{} }})
	defer cancel()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := ended(t, done); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestNewErrors(t *testing.T) {
	if _, err := New(Options{Addr: "127.0.0.1:0"}); err == nil {
		t.Error("no status: no error")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := New(Options{Addr: ln.Addr().String(), Status: func() Status { return Status{} }}); err == nil {
		t.Error("address in use: no error")
	}
}
