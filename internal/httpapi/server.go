// Package httpapi owns a member's HTTP endpoint: health checks for load
// balancers, metrics, status, and, when switched on, profiles. It is read-only:
// nothing that is asked here may change the member, and it shows no secret and no
// data of the tables.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
)

// shutdownTime bounds how long Run waits for requests in progress when it ends.
const shutdownTime = 3 * time.Second

// Options tells a server what to show. Status is required.
type Options struct {
	// Listener is used if given, and closed by the server; otherwise the server
	// listens on Addr, host:port.
	Listener net.Listener
	Addr     string
	// Status is called for each request, concurrently; it must not block.
	Status func() Status
	// Registry is what /metrics shows; NewRegistry makes one. nil: no /metrics.
	Registry *prometheus.Registry
	// Pprof serves /debug/pprof/.
	Pprof  bool
	Logger zerolog.Logger
}

// Server is the endpoint. Lifecycle: New, Run, Close.
type Server struct {
	ln   net.Listener
	http *http.Server
	log  zerolog.Logger
}

// New listens, so that Addr is known before Run serves.
func New(o Options) (*Server, error) {
	if o.Status == nil {
		return nil, errors.New("httpapi: no status")
	}
	ln := o.Listener
	if ln == nil {
		var err error
		if ln, err = net.Listen("tcp", o.Addr); err != nil {
			return nil, fmt.Errorf("httpapi: %w", err)
		}
	}
	return &Server{ln: ln, log: o.Logger, http: &http.Server{
		Handler:           Handler(o),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      2 * time.Minute, // longer than a profile takes
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}}, nil
}

// Handler is the endpoint without its listener.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f http.HandlerFunc) {
		mux.HandleFunc("GET "+path, f) // GET patterns answer HEAD too
	}
	get("/health", check(o.Status, Status.ready))
	get("/primary", check(o.Status, func(s Status) string { return s.hasRole(Primary) }))
	get("/replica", check(o.Status, func(s Status) string { return s.hasRole(Secondary) }))
	get("/status", func(w http.ResponseWriter, _ *http.Request) {
		s := o.Status()
		if s.Members == nil {
			s.Members = []Member{}
		}
		reply(w, http.StatusOK, s)
	})
	if o.Registry != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{Registry: o.Registry}))
	}
	if o.Pprof {
		get("/debug/pprof/", pprof.Index)
		get("/debug/pprof/cmdline", pprof.Cmdline)
		get("/debug/pprof/profile", pprof.Profile)
		get("/debug/pprof/symbol", pprof.Symbol)
		get("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// Verdict is the body of /health, /primary and /replica.
type Verdict struct {
	// OK is whether the answer is 200; otherwise it is 503.
	OK     bool   `json:"ok"`
	State  string `json:"state"`
	Role   string `json:"role"`
	Reason string `json:"reason,omitempty"`
}

func check(status func() Status, why func(Status) string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		s := status()
		v := Verdict{State: s.Self.State, Role: s.Self.Role, Reason: why(s)}
		code := http.StatusOK
		if v.OK = v.Reason == ""; !v.OK {
			code = http.StatusServiceUnavailable
		}
		reply(w, code, v)
	}
}

func reply(w http.ResponseWriter, code int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(append(b, '\n')) // the client may be gone; nobody to tell
}

// Addr is the address the server listens on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Run serves until ctx ends or Close is called, lets requests in progress finish
// (at most 3 s), and returns nil; any other error means the listener failed.
func (s *Server) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		// ctx is over, so the time to finish needs a context of its own.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		if err := s.http.Shutdown(end); err != nil {
			s.log.Debug().Err(err).Msg("HTTP endpoint: requests were cut off")
			s.http.Close()
		}
	})
	err := s.http.Serve(s.ln)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("httpapi: %w", err)
}

// Close ends the server at once. It is safe to call more than once, and without
// Run.
func (s *Server) Close() error {
	err := s.http.Close()
	if lerr := s.ln.Close(); lerr != nil && !errors.Is(lerr, net.ErrClosed) {
		err = errors.Join(err, lerr)
	}
	if err != nil {
		return fmt.Errorf("httpapi: %w", err)
	}
	return nil
}
