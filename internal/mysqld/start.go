package mysqld

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cohort/internal/proc"
)

// ErrStart says that mysqld ended, or did not answer in time, while starting;
// the message holds the end of its log.
var ErrStart = errors.New("mysqld did not start")

// Process is a running mysqld.
type Process struct {
	proc.ID
	// Socket is the unix socket's path.
	Socket string
	// Addr is host:port of the TCP listener; Port its number.
	Addr string
	Port int
	// Datadir, Config and LogFile are paths.
	Datadir, Config, LogFile string

	link string
	done chan struct{} // closed by the reaper once the process was waited for; nil if attached
}

// Start starts mysqld on an initialised Dir and returns when it accepts
// connections. It runs in a session of its own: signals of the terminal do not
// reach it, and it outlives the caller unless KillWithParent is set. When ctx
// ends first, the process is killed.
func (in *Installation) Start(ctx context.Context, o Options) (*Process, error) {
	const attempts = 5 // a port that the kernel called free may be taken by then
	for i := 1; ; i++ {
		p, err := in.startOnce(ctx, &o)
		if err == nil || o.Port != 0 || i == attempts || !portTaken(o.LogFile()) || ctx.Err() != nil {
			return p, err
		}
	}
}

func (in *Installation) startOnce(ctx context.Context, o *Options) (*Process, error) {
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("mysqld's directory: %w", err)
	}
	host := o.Host
	if host == "" {
		host = "127.0.0.1"
	}
	port := o.Port
	if port == 0 {
		if port, err = FreePort(host); err != nil {
			return nil, err
		}
	}
	socket, link, err := o.prepareSocket()
	if err != nil {
		return nil, err
	}
	if err := o.writeConfig(socket, port); err != nil {
		return nil, err
	}
	// A socket file of a dead server would be dialled before the new one is up.
	// A killed mysqld leaves its lock file, whose pid may be someone else's now.
	if err := os.Remove(socket + ".lock"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket's stale lock: %w", err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("old socket: %w", err)
	}
	logOffset := fileSize(o.LogFile())
	cmd, err := in.command(o, "--defaults-file="+o.ConfigFile())
	if err != nil {
		return nil, err
	}
	if err := spawn(cmd, o.KillWithParent); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	p := &Process{
		Socket: socket, Addr: net.JoinHostPort(host, strconv.Itoa(port)), Port: port,
		Datadir: o.Datadir(), Config: o.ConfigFile(), LogFile: o.LogFile(),
		link: link, done: make(chan struct{}),
	}
	// A child keeps its id until it is waited for, so this cannot be another's.
	p.ID, err = proc.Of(cmd.Process.Pid)
	if err != nil {
		p.ID = proc.ID{Pid: cmd.Process.Pid}
	}
	// The reaper lives exactly as long as the child; Wait waits for it.
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	if err := p.awaitReady(ctx); err != nil {
		_ = cmd.Process.Kill()
		<-p.done
		p.removeLink()
		return nil, fmt.Errorf("%w: %w: %s", ErrStart, err, logTail(o.LogFile(), logOffset))
	}
	return p, nil
}

// Attach returns the mysqld that Start (of any process) started with o and that
// still runs, or proc.ErrGone.
func Attach(o Options, id proc.ID, port int) (*Process, error) {
	if !id.Alive() {
		return nil, fmt.Errorf("mysqld in %s: %w", o.Dir, proc.ErrGone)
	}
	host := o.Host
	if host == "" {
		host = "127.0.0.1"
	}
	return &Process{
		ID: id, Socket: o.SocketFile(), Addr: net.JoinHostPort(host, strconv.Itoa(port)), Port: port,
		Datadir: o.Datadir(), Config: o.ConfigFile(), LogFile: o.LogFile(),
	}, nil
}

func (in *Installation) command(o *Options, args ...string) (*exec.Cmd, error) {
	// What mysqld says before it opens its own log goes to the same file.
	log, err := os.OpenFile(o.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("mysqld's log: %w", err)
	}
	cmd := exec.Command(in.mysqld(), args...)
	cmd.Dir = o.Dir
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, nil
}

// spawn starts cmd in a session of its own and closes our copy of its log.
func spawn(cmd *exec.Cmd, killWithParent bool) error {
	if f, ok := cmd.Stdout.(*os.File); ok {
		defer func() { _ = f.Close() }()
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !killWithParent {
		return cmd.Start()
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return onLastingThread(cmd.Start)
}

// awaitReady returns once mysqld greets on its socket.
func (p *Process) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if greets(ctx, p.Socket, p.done) {
			return nil
		}
		select {
		case <-p.done:
			return errors.New("it ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// greets dials and reads the first byte of the greeting. While mysqld starts it
// may listen already without accepting: the read then waits.
func greets(ctx context.Context, socket string, done <-chan struct{}) bool {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return false
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-done:
		case <-ctx.Done():
		case <-stop:
		}
		_ = c.Close()
	})
	var b [5]byte
	n, err := c.Read(b[:])
	close(stop)
	wg.Wait()
	// 0x0a is the protocol version; an ERR packet (0xff) is no greeting.
	return err == nil && n == len(b) && b[4] == 0x0a
}

// Wait returns nil when the process has ended, or the context's error.
func (p *Process) Wait(ctx context.Context) error {
	if p.done == nil {
		return p.ID.Wait(ctx)
	}
	select {
	case <-p.done:
		p.removeLink()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for mysqld %d: %w", p.Pid, ctx.Err())
	}
}

// Stop ends mysqld with SIGTERM (a clean shutdown) and waits; when ctx ends
// first it is killed.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, proc.ErrGone) {
		return err
	}
	if p.Wait(ctx) == nil {
		return nil
	}
	return p.Kill()
}

// Kill ends mysqld with SIGKILL and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, proc.ErrGone) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return p.Wait(ctx)
}

func (p *Process) removeLink() {
	if p.link != "" {
		_ = os.Remove(p.link)
	}
}

func portTaken(log string) bool {
	t := logTail(log, 0)
	return strings.Contains(t, "Address already in use") || strings.Contains(t, "Bind on TCP/IP port")
}

func fileSize(name string) int64 {
	st, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return st.Size()
}

// logTail returns the last errors of a log, or its last lines.
func logTail(name string, from int64) string {
	b, err := os.ReadFile(name)
	if err != nil || int64(len(b)) < from {
		return "(no log)"
	}
	lines := strings.Split(strings.TrimSpace(string(b[from:])), "\n")
	var errs []string
	for _, l := range lines {
		if strings.Contains(l, "[ERROR]") {
			errs = append(errs, l)
		}
	}
	if len(errs) == 0 {
		errs = lines
	}
	if len(errs) > 5 {
		errs = errs[len(errs)-5:]
	}
	return strings.Join(errs, " | ")
}
