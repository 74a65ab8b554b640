package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cohort/internal/e2e/netlab"
	"cohort/internal/loadgen"
	"cohort/internal/sandbox"
)

// ErrNoPrimary means that no member has the role PRIMARY.
var ErrNoPrimary = errors.New("cluster: no primary")

// ErrNoProgram means that the program was not built.
var ErrNoProgram = errors.New("cluster: no cohort program: run `make build` or set COHORT_BIN")

// Member is one line of `cohort sandbox status --json`.
type Member struct {
	Name       string `json:"name"`
	UUID       string `json:"uuid"`
	Role       string `json:"role"`  // PRIMARY, SECONDARY or empty
	State      string `json:"state"` // ONLINE, RECOVERING, OFFLINE, ERROR, UNREACHABLE
	Host       string `json:"host"`  // of the address that clients connect to
	Port       int    `json:"port"`
	HTTP       string `json:"http"`
	Pid        int    `json:"pid"` // 0 when the process is not running
	MysqldPid  int    `json:"mysqld_pid"`
	Socket     string `json:"mysqld_socket"`
	MysqldPort int    `json:"mysqld_port"`
	Dir        string `json:"dir"`
	Datadir    string `json:"mysqld_datadir"`
}

// Through is the member's client address, with one of the sandbox's accounts.
func (m Member) Through(user, schema string) loadgen.Target {
	return loadgen.Target{
		Network: "tcp", Addr: m.Host + ":" + strconv.Itoa(m.Port),
		User: user, Password: user, Schema: schema,
	}
}

// Direct is root on the socket of the member's own mysqld, behind the proxy's
// back: for looking only.
func (m Member) Direct() loadgen.Target {
	return loadgen.Target{Network: "unix", Addr: m.Socket, User: "root"}
}

// Part is what of a member a fault hits.
type Part string

// The parts of a member. Both means the two at once.
const (
	Mysqld Part = "mysqld"
	Proxy  Part = "proxy"
	Both   Part = ""
)

// Options describe a group to start.
type Options struct {
	Program       string   // path of cohort; empty means $COHORT_BIN, or bin/cohort of this module
	Dir           string   // an empty or earlier sandbox directory
	Mysqld        string   // path of the mysqld to run; empty means the usual one
	Members       int      // 0 means 3
	MysqldOptions []string // name=value
	MemberOptions []string // name=value
	// Net, if given, has a host for each member, which then runs there. It must
	// outlive the cluster.
	Net *netlab.Lab
}

// Cluster is a sandbox that was started.
type Cluster struct {
	program string
	mysqld  string
	dir     string
	net     *netlab.Lab
}

// Program finds the cohort program: $COHORT_BIN, or bin/cohort beside go.mod.
func Program() (string, error) {
	if p := os.Getenv("COHORT_BIN"); p != "" {
		return p, nil
	}
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	p := filepath.Join(root, "bin", "cohort")
	if _, err := os.Stat(p); err != nil {
		return "", fmt.Errorf("%w (%w)", ErrNoProgram, err)
	}
	return p, nil
}

// ModuleRoot is the directory of go.mod above the working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("cluster: no go.mod above the working directory")
		}
		dir = up
	}
}

// Start starts a group and returns once all members are ONLINE.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	program := o.Program
	if program == "" {
		var err error
		if program, err = Program(); err != nil {
			return nil, err
		}
	}
	if o.Members == 0 {
		o.Members = 3
	}
	c := &Cluster{program: program, mysqld: o.Mysqld, dir: o.Dir, net: o.Net}
	if c.net != nil {
		if err := c.startOnNet(ctx, o); err != nil {
			return nil, err
		}
		return c, nil
	}
	args := []string{"start", "--dir", o.Dir, "--members", strconv.Itoa(o.Members), "--detach"}
	for _, v := range o.MysqldOptions {
		args = append(args, "--mysqld-option", v)
	}
	for _, v := range o.MemberOptions {
		args = append(args, "--member-option", v)
	}
	if _, err := c.sandbox(ctx, c.withMysqld(args)...); err != nil {
		return nil, errors.Join(err, c.giveUp(ctx))
	}
	return c, nil
}

// withMysqld adds the mysqld to run to a command that starts some.
func (c *Cluster) withMysqld(args []string) []string {
	if c.mysqld == "" {
		return args
	}
	return append(args, "--mysqld", c.mysqld)
}

// giveUp stops whatever came up: it is not to outlive the failure.
func (c *Cluster) giveUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return c.Stop(ctx, "", Both)
}

// startOnNet starts each member on its own host.
func (c *Cluster) startOnNet(ctx context.Context, o Options) error {
	s, err := sandbox.OpenOrCreate(ctx, o.Dir, sandbox.Settings{
		Members: o.Members, Hosts: o.Net.Hosts(), MysqldOptions: o.MysqldOptions, MemberOptions: o.MemberOptions,
	})
	if err != nil {
		return err
	}
	for _, part := range []Part{Mysqld, Proxy} {
		for _, name := range s.Names() {
			if err := c.Restart(ctx, name, part); err != nil {
				return errors.Join(err, c.giveUp(ctx))
			}
		}
	}
	if _, err := c.AwaitOnline(ctx); err != nil {
		return errors.Join(err, c.giveUp(ctx))
	}
	return nil
}

// Dir is the sandbox's directory.
func (c *Cluster) Dir() string { return c.dir }

func (c *Cluster) sandbox(ctx context.Context, args ...string) ([]byte, error) {
	return run(ctx, append([]string{c.program, "sandbox"}, args...))
}

func run(ctx context.Context, args []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// So that a command that is given up leaves no process behind that it was
	// about to record.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	// A detached child may inherit the pipes: do not wait for it to close them.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return nil, fmt.Errorf("cluster: %s: %w\n%s%s", strings.Join(args, " "), err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// Status asks for all members, in the order of their names.
func (c *Cluster) Status(ctx context.Context) ([]Member, error) {
	out, err := c.sandbox(ctx, "status", "--dir", c.dir, "--json")
	if err != nil {
		return nil, err
	}
	var status struct {
		Members []Member `json:"members"`
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return nil, fmt.Errorf("cluster: status: %w\n%s", err, out)
	}
	return status.Members, nil
}

// Primary picks the member whose role is PRIMARY.
func Primary(members []Member) (Member, error) {
	for _, m := range members {
		if m.Role == "PRIMARY" {
			return m, nil
		}
	}
	return Member{}, ErrNoPrimary
}

// Secondary picks the first member that is not the primary.
func Secondary(members []Member) (Member, error) {
	for _, m := range members {
		if m.Role == "SECONDARY" {
			return m, nil
		}
	}
	return Member{}, errors.New("cluster: no secondary")
}

// GroupName asks a running member for group_replication_group_name, the uuid
// under which the group numbers its transactions.
func GroupName(ctx context.Context, m Member) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.HTTP+"/status", nil)
	if err != nil {
		return "", fmt.Errorf("cluster: %s: %w", m.Name, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("cluster: %s: %w", m.Name, err)
	}
	defer resp.Body.Close()
	var status struct {
		GroupName string `json:"group_name"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return "", fmt.Errorf("cluster: %s: /status: %w", m.Name, err)
	}
	if status.GroupName == "" {
		return "", fmt.Errorf("cluster: %s: /status names no group", m.Name)
	}
	return strings.ToLower(status.GroupName), nil
}

// Kill sends SIGKILL to a part of one member; an empty name means all members.
func (c *Cluster) Kill(ctx context.Context, member string, part Part) error {
	return c.act(ctx, "kill", member, part)
}

// Restart starts what does not run (and stops cleanly first what does).
func (c *Cluster) Restart(ctx context.Context, member string, part Part) error {
	if c.net != nil {
		return c.restartOnNet(ctx, member, part)
	}
	return c.act(ctx, "restart", member, part)
}

// restartOnNet restarts a member, or every one, on its own host.
func (c *Cluster) restartOnNet(ctx context.Context, member string, part Part) error {
	for i := range c.net.Hosts() {
		name := "m" + strconv.Itoa(i+1)
		if member != "" && member != name {
			continue
		}
		args := c.withMysqld(append(c.net.Command(i), c.program, "sandbox", "restart", "--dir", c.dir, name))
		if part != Both {
			args = append(args, string(part))
		}
		if _, err := run(ctx, args); err != nil {
			return err
		}
	}
	return nil
}

// Add starts one more member and returns its name once it is ONLINE.
func (c *Cluster) Add(ctx context.Context) (string, error) {
	out, err := c.sandbox(ctx, c.withMysqld([]string{"add", "--dir", c.dir})...)
	return strings.TrimSpace(string(out)), err
}

// Stop ends cleanly; an empty name means all members.
func (c *Cluster) Stop(ctx context.Context, member string, part Part) error {
	return c.act(ctx, "stop", member, part)
}

// Destroy stops everything and removes the directory.
func (c *Cluster) Destroy(ctx context.Context) error {
	_, err := c.sandbox(ctx, "destroy", "--dir", c.dir)
	return err
}

func (c *Cluster) act(ctx context.Context, verb, member string, part Part) error {
	args := []string{verb, "--dir", c.dir}
	if verb == "restart" {
		args = c.withMysqld(args)
	}
	if member != "" {
		args = append(args, member)
		if part != Both {
			args = append(args, string(part))
		}
	}
	_, err := c.sandbox(ctx, args...)
	return err
}

// AwaitOnline returns once every member is ONLINE and exactly one is PRIMARY. The
// error of a deadline says what each member still was.
func (c *Cluster) AwaitOnline(ctx context.Context) ([]Member, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var last []Member
	var lastErr error
	for {
		members, err := c.Status(ctx)
		if err == nil {
			last, lastErr = members, nil
			if online(members) {
				return members, nil
			}
		} else {
			lastErr = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return last, fmt.Errorf("cluster: not all members are ONLINE: %s: %w", describe(last), errors.Join(ctx.Err(), lastErr))
		}
	}
}

// online wants one primary: one that was replaced may take itself for the
// primary until it hears of it.
func online(members []Member) bool {
	primaries := 0
	for _, m := range members {
		if m.State != "ONLINE" {
			return false
		}
		if m.Role == "PRIMARY" {
			primaries++
		}
	}
	return primaries == 1
}

func describe(members []Member) string {
	var parts []string
	for _, m := range members {
		parts = append(parts, fmt.Sprintf("%s=%s/%s pid=%d mysqld=%d", m.Name, m.State, m.Role, m.Pid, m.MysqldPid))
	}
	return strings.Join(parts, ", ")
}
