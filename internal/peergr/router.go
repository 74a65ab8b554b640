package peergr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"cohort/internal/loadgen"
	"cohort/internal/mysqld"
)

// Router is MySQL Router with one route to the primary.
type Router struct {
	Port int           // on 127.0.0.1
	done chan struct{} // closed once the process was waited for
	cmd  *exec.Cmd
}

// Pid is the process id of the router.
func (r *Router) Pid() int { return r.cmd.Process.Pid }

// App is the account app through the router.
func (r *Router) App() loadgen.Target { return appAt(r.Port) }

// Close ends the router and waits until it is gone.
func (r *Router) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
	}
	_ = r.cmd.Process.Kill()
	<-r.done
	return fmt.Errorf("peergr: the router did not end by itself: %w", ctx.Err())
}

// routerConfig: TLS is passed through as it is between a client and its
// server, so what the router costs is what relaying costs.
const routerConfig = `[DEFAULT]
logging_folder = %[1]s
runtime_folder = %[1]s
data_folder = %[1]s
max_total_connections = 1000
%[5]s
[logger]
level = WARNING

%[4]s[routing:primary]
bind_address = 127.0.0.1
bind_port = %[2]d
destinations = %[3]s
routing_strategy = first-available
protocol = classic
max_connections = 1000
client_ssl_mode = PASSTHROUGH
server_ssl_mode = AS_CLIENT
`

// route says how the router finds the primary.
type route struct {
	defaults     string // lines of the section DEFAULT
	sections     string // further sections
	destinations string
	state        string // content of the state file, if any
	account      string // of the router itself; its password is its name
}

func fixedRoute(to *Server) route { return route{destinations: to.proc.Addr} }

func startRouter(ctx context.Context, bin, dir string, to route) (*Router, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("peergr: %w", err)
	}
	port, err := mysqld.FreePort("127.0.0.1")
	if err != nil {
		return nil, err
	}
	defaults := to.defaults
	if os.Getuid() == 0 {
		defaults += "user = root\n"
	}
	if to.state != "" {
		state := filepath.Join(dir, "state.json")
		if err := os.WriteFile(state, []byte(to.state), 0o644); err != nil {
			return nil, fmt.Errorf("peergr: %w", err)
		}
		defaults += "dynamic_state = " + state + "\n"
	}
	if to.account != "" {
		keyring, err := makeKeyring(ctx, bin, dir, to.account)
		if err != nil {
			return nil, err
		}
		defaults += keyring
	}
	config := filepath.Join(dir, "router.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, routerConfig, dir, port, to.destinations, to.sections, defaults+pluginFolder(bin)), 0o644); err != nil {
		return nil, fmt.Errorf("peergr: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, "out.log"))
	if err != nil {
		return nil, fmt.Errorf("peergr: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "mysqlrouter"), "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	// An interrupt typed at the terminal is for the one who started us, who
	// then ends the children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("peergr: start the router: %w", err)
	}
	r := &Router{Port: port, cmd: cmd, done: make(chan struct{})}
	// The reaper lives as long as the child; Close waits for it.
	go func() {
		_ = cmd.Wait()
		close(r.done)
	}()
	if err := r.await(ctx, dir); err != nil {
		return nil, errors.Join(err, r.Close(context.WithoutCancel(ctx)))
	}
	return r, nil
}

// pluginFolder finds the router's plugins in the private root that bin is part
// of: the path compiled into the program is that of an installed package.
func pluginFolder(bin string) string {
	for _, pattern := range []string{"usr/lib/mysqlrouter/plugin", "usr/lib/*/mysqlrouter/plugin", "usr/lib/mysqlrouter", "usr/lib/mysql-router/plugin"} {
		found, _ := filepath.Glob(filepath.Join(filepath.Dir(bin), pattern, "routing.so"))
		if len(found) > 0 {
			return "plugin_folder = " + filepath.Dir(found[0]) + "\n"
		}
	}
	return ""
}

func (r *Router) await(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := loadgen.Dial(ctx, r.App())
		if err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-r.done:
			return fmt.Errorf("peergr: the router ended while starting\n%s", tail(filepath.Join(dir, "out.log")))
		case <-ctx.Done():
			return fmt.Errorf("peergr: the router does not answer: %w (%w)\n%s", ctx.Err(), err, tail(filepath.Join(dir, "out.log")))
		}
	}
}
