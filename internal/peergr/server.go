package peergr

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"cohort/internal/loadgen"
	"cohort/internal/mysqld"
)

// Server is one mysqld that this process started, with the settings that the
// sandbox gives to a member's mysqld too. It dies with this process.
type Server struct {
	Name string
	UUID string

	in      *mysqld.Installation
	options mysqld.Options
	proc    *mysqld.Process
}

// Pid is the process id of the server.
func (s *Server) Pid() int { return s.proc.Pid }

// Root is root on the server's socket, without a password.
func (s *Server) Root() loadgen.Target {
	return loadgen.Target{Network: "unix", Addr: s.proc.Socket, User: "root"}
}

// App is the account app over TCP.
func (s *Server) App() loadgen.Target { return appAt(s.proc.Port) }

func appAt(port int) loadgen.Target {
	return loadgen.Target{
		Network: "tcp", Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		User: "app", Password: "app",
	}
}

// appAccount creates the account that clients of a benchmark use.
var appAccount = []string{
	"CREATE USER app@'%' IDENTIFIED BY 'app'",
	"GRANT ALL ON *.* TO app@'%'",
}

// StartServer initialises and starts one mysqld in dir with the given settings
// (name=value), creates the account app, password app, and returns.
func StartServer(ctx context.Context, in *mysqld.Installation, dir, name string, settings ...string) (*Server, error) {
	s, err := launch(ctx, in, dir, name, 1, settings)
	if err != nil {
		return nil, err
	}
	if err := s.run(ctx, appAccount...); err != nil {
		_ = s.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	return s, nil
}

func launch(ctx context.Context, in *mysqld.Installation, dir, name string, id uint32, settings []string) (*Server, error) {
	o := mysqld.Options{
		Dir: dir, ServerID: id, KillWithParent: true,
		Settings: append([]string{"innodb_buffer_pool_size=128M", "max_connections=2000", "report_host=127.0.0.1"}, settings...),
	}
	if err := in.InitializeFromTemplate(ctx, o); err != nil {
		return nil, fmt.Errorf("peergr: %s: %w", name, err)
	}
	p, err := in.Start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("peergr: %s: %w", name, err)
	}
	o.Port = p.Port // one that is started again keeps its address
	s := &Server{Name: name, in: in, options: o, proc: p}
	if s.UUID, err = s.ask(ctx, "SELECT @@server_uuid"); err != nil {
		_ = p.Kill()
		return nil, err
	}
	return s, nil
}

// restart starts a server that ended or was killed, with its data and address.
func (s *Server) restart(ctx context.Context) error {
	if err := s.proc.Kill(); err != nil {
		return fmt.Errorf("peergr: %s: %w", s.Name, err)
	}
	p, err := s.in.Start(ctx, s.options)
	if err != nil {
		return fmt.Errorf("peergr: %s: %w", s.Name, err)
	}
	s.proc = p
	return nil
}

// run executes statements as root.
func (s *Server) run(ctx context.Context, statements ...string) error {
	c, err := loadgen.Dial(ctx, s.Root())
	if err != nil {
		return err
	}
	defer c.Close()
	for _, sql := range statements {
		if _, err := c.Query(sql); err != nil {
			return fmt.Errorf("peergr: %s: %s: %w\n%s", s.Name, sql, err, tail(s.proc.LogFile))
		}
	}
	return nil
}

// ask returns the first column of the first row.
func (s *Server) ask(ctx context.Context, sql string) (string, error) {
	c, err := loadgen.Dial(ctx, s.Root())
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.QueryString(sql)
}

// Close shuts the server down and waits until it is gone.
func (s *Server) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.proc.Stop(ctx); err != nil {
		return fmt.Errorf("peergr: %s: %w", s.Name, err)
	}
	return nil
}

// tail is the end of a log file, for error messages.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-3000):])
}
