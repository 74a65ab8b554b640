// Package sandbox runs a whole group on one machine, for trying out and for
// tests: it initialises and starts N stock mysqlds and N members in one
// directory, and stops, kills, restarts and shows them. It owns that directory
// and the processes it started, which it finds again by id and start time; it
// must never touch another process, nor decide anything about the group.
package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"cohort/internal/mysqld"
	"cohort/internal/pause"
)

// Errors of this package.
var (
	// ErrNoSandbox says that a directory holds no sandbox.
	ErrNoSandbox = errors.New("no sandbox")
	// ErrNoMember says that the sandbox has no member of that name.
	ErrNoMember = errors.New("no such member")
	// ErrNotOnline says that members did not come ONLINE in time.
	ErrNotOnline = errors.New("not all members are ONLINE")
)

// MaxMembers is the size limit of a group; DefaultMembers its usual size.
const (
	MaxMembers     = 9
	DefaultMembers = 3
)

const (
	specFile = "sandbox.json"
	host     = "127.0.0.1"
)

// spec is what sandbox.json keeps between runs. Ports stay, so that DSNs and
// the members' addresses in each other's configuration do.
type spec struct {
	Group         string       `json:"group_name"`
	Members       []memberSpec `json:"members"`
	MysqldOptions []string     `json:"mysqld_options"`
	MemberOptions []string     `json:"member_options"`
}

type memberSpec struct {
	Name       string `json:"name"`
	Host       string `json:"host,omitempty"` // "": the loopback interface
	ServerID   uint32 `json:"server_id"`
	MysqldPort int    `json:"mysqld_port"`
	Port       int    `json:"port"`       // clients
	HTTPPort   int    `json:"http_port"`  // status
	LocalPort  int    `json:"local_port"` // the ordered log
}

// Sandbox is a directory with a group. Its methods may be called by several
// processes at a time: those that change something wait for one another.
type Sandbox struct {
	dir  string
	spec spec
}

// Open returns the sandbox in dir, or an error that wraps ErrNoSandbox.
func Open(dir string) (*Sandbox, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, specFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNoSandbox, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	s := &Sandbox{dir: dir}
	if err := json.Unmarshal(b, &s.spec); err != nil {
		return nil, fmt.Errorf("sandbox: %s: %w", specFile, err)
	}
	return s, nil
}

// Settings are what a sandbox is created with, or an existing one is changed to.
type Settings struct {
	// Members is the number of members; 0: what the directory has, or 3.
	Members int
	// MysqldOptions and MemberOptions are "name=value" lines for every
	// mysqld's my.cnf and every member's configuration. On an existing
	// sandbox they replace earlier ones of the same names.
	MysqldOptions, MemberOptions []string
	// Hosts are the members' addresses, one for each, where the members do not
	// share the loopback interface: a new sandbox's only. Whoever gives them
	// starts each member where its address is.
	Hosts []string
}

// OpenOrCreate opens the sandbox in dir; if dir does not exist or is empty, it
// makes one there. A directory with other contents is refused.
func OpenOrCreate(ctx context.Context, dir string, o Settings) (*Sandbox, error) {
	if o.Members < 0 || o.Members > MaxMembers {
		return nil, fmt.Errorf("sandbox: %d members: 1 to %d are possible", o.Members, MaxMembers)
	}
	if len(o.Hosts) > 0 && len(o.Hosts) != o.Members {
		return nil, fmt.Errorf("sandbox: %d hosts for %d members", len(o.Hosts), o.Members)
	}
	for _, l := range slices.Concat(o.MysqldOptions, o.MemberOptions) {
		if strings.ContainsAny(l, "\n\r") || mysqld.SettingName(l) == "" {
			return nil, fmt.Errorf("sandbox: %q is no option: give name=value", l)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	unlock, err := lock(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := Open(dir)
	switch {
	case errors.Is(err, ErrNoSandbox):
		if s, err = create(dir, o.Members, o.Hosts); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case o.Members != 0 && o.Members != len(s.spec.Members):
		return nil, fmt.Errorf("sandbox: %s has %d members; destroy it first to have %d", dir, len(s.spec.Members), o.Members)
	}
	s.spec.MysqldOptions = mergeOptions(s.spec.MysqldOptions, o.MysqldOptions)
	s.spec.MemberOptions = mergeOptions(s.spec.MemberOptions, o.MemberOptions)
	return s, s.save()
}

func create(dir string, n int, hosts []string) (*Sandbox, error) {
	if n == 0 {
		n = DefaultMembers
	}
	es, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	for _, e := range es {
		if e.Name() != lockFile {
			return nil, fmt.Errorf("sandbox: %s holds other things (%s): choose an empty directory", dir, e.Name())
		}
	}
	s := &Sandbox{dir: dir, spec: spec{Group: uuid.NewString()}}
	for i := range n {
		at := ""
		if len(hosts) > 0 {
			at = hosts[i]
		}
		if err := s.grow(at); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// grow adds one member to the spec, with ports that nobody has; at is its host,
// "" for the usual one.
func (s *Sandbox) grow(at string) (err error) {
	taken := map[int]bool{}
	for _, m := range s.spec.Members {
		taken[m.MysqldPort], taken[m.Port], taken[m.HTTPPort], taken[m.LocalPort] = true, true, true, true
	}
	port := func() int {
		for err == nil {
			var p int
			if p, err = mysqld.FreePort(host); err == nil && !taken[p] {
				taken[p] = true
				return p
			}
		}
		return 0
	}
	i := len(s.spec.Members) + 1
	m := memberSpec{
		Host: at,
		Name: "m" + strconv.Itoa(i), ServerID: uint32(i),
		MysqldPort: port(), Port: port(), HTTPPort: port(), LocalPort: port(),
	}
	s.spec.Members = append(s.spec.Members, m)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	return nil
}

// Add makes one more member and returns its name; Start starts it.
func (s *Sandbox) Add(ctx context.Context) (string, error) {
	unlock, err := lock(ctx, s.dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	now, err := Open(s.dir) // another command may have added one
	if err != nil {
		return "", err
	}
	s.spec = now.spec
	if len(s.spec.Members) >= MaxMembers {
		return "", fmt.Errorf("sandbox: %s has %d members, a group has no more", s.dir, MaxMembers)
	}
	if err := s.grow(""); err != nil {
		return "", err
	}
	return s.spec.Members[len(s.spec.Members)-1].Name, s.save()
}

func mergeOptions(old, more []string) []string {
	given := map[string]bool{}
	for _, o := range more {
		given[mysqld.SettingName(o)] = true
	}
	kept := slices.DeleteFunc(slices.Clone(old), func(o string) bool { return given[mysqld.SettingName(o)] })
	return append(kept, more...)
}

// save replaces sandbox.json in one step.
func (s *Sandbox) save() error {
	b, err := json.MarshalIndent(s.spec, "", "  ")
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	name := filepath.Join(s.dir, specFile)
	if err := os.WriteFile(name+".new", append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	return nil
}

const lockFile = ".lock"

// lock keeps other sandbox commands off the directory until unlock is called.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("sandbox: lock %s: %w", dir, err)
		}
		if pause.For(ctx, 50*time.Millisecond) != nil {
			_ = f.Close()
			return nil, fmt.Errorf("sandbox: another command works on %s: %w", dir, ctx.Err())
		}
	}
}

// Dir is the sandbox's directory.
func (s *Sandbox) Dir() string { return s.dir }

// Names are the members' names in order.
func (s *Sandbox) Names() []string {
	var names []string
	for _, m := range s.spec.Members {
		names = append(names, m.Name)
	}
	return names
}

// pick returns the member called name, or all of them for "".
func (s *Sandbox) pick(name string) ([]memberSpec, error) {
	if name == "" {
		return s.spec.Members, nil
	}
	for _, m := range s.spec.Members {
		if m.Name == name {
			return []memberSpec{m}, nil
		}
	}
	return nil, fmt.Errorf("%w as %q in %s: there are %s", ErrNoMember, name, s.dir, strings.Join(s.Names(), ", "))
}

func (s *Sandbox) memberDir(m memberSpec) string { return filepath.Join(s.dir, m.Name) }

func (m memberSpec) host() string { return cmp.Or(m.Host, host) }

func (m memberSpec) addr(port int) string { return net.JoinHostPort(m.host(), strconv.Itoa(port)) }

// mysqldSettings are the sandbox's own; --mysqld-option replaces them.
var mysqldSettings = []string{
	"innodb_buffer_pool_size=128M",
	"max_connections=2000",
}

func (s *Sandbox) mysqldOptions(m memberSpec) mysqld.Options {
	return mysqld.Options{
		Dir: s.memberDir(m), Host: m.host(), Port: m.MysqldPort, ServerID: m.ServerID, ReadOnly: true,
		Settings: mergeOptions(append(slices.Clone(mysqldSettings), "report_host="+m.host()), s.spec.MysqldOptions),
	}
}

func (s *Sandbox) memberConfigFile(m memberSpec) string {
	return filepath.Join(s.memberDir(m), "cohort.cnf")
}

// memberLog is the path of a member's log.
func (s *Sandbox) memberLog(m memberSpec) string {
	return filepath.Join(s.memberDir(m), "cohort.log")
}

// writeMemberConfig writes cohort.cnf. The first member founds the group, the
// others ask all there are to be let in; the key does nothing once the group exists.
func (s *Sandbox) writeMemberConfig(m memberSpec) error {
	var seeds []string
	for _, o := range s.spec.Members {
		seeds = append(seeds, o.addr(o.LocalPort))
	}
	bootstrap := "OFF"
	if m.Name == s.spec.Members[0].Name {
		bootstrap = "ON"
	}
	o := s.mysqldOptions(m)
	lines := mergeOptions([]string{
		"group_replication_group_name=" + s.spec.Group,
		"group_replication_local_address=" + m.addr(m.LocalPort),
		"group_replication_group_seeds=" + strings.Join(seeds, ","),
		"group_replication_bootstrap_group=" + bootstrap,
		"cohort_bind_address=" + m.addr(m.Port),
		"cohort_advertise_address=" + m.addr(m.Port),
		"cohort_http_address=" + m.addr(m.HTTPPort),
		"cohort_mysqld_socket=" + quote(o.SocketFile()),
		"cohort_mysqld_address=" + m.addr(m.MysqldPort),
		"cohort_data_dir=" + quote(filepath.Join(s.memberDir(m), "cohort")),
		"cohort_admin_user=root",
	}, s.spec.MemberOptions)
	text := "# written by cohort sandbox; use --member-option to change it\n[cohort]\n" + strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(s.memberConfigFile(m), []byte(text), 0o600); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	return nil
}

func quote(v string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
}
