package mysqld

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// maxSocketPath is kept below the 108 bytes of sockaddr_un.sun_path.
const maxSocketPath = 100

// Options describes one mysqld. Dir holds everything of it.
type Options struct {
	// Dir is the instance's directory: data/, my.cnf, mysqld.log, mysqld.pid
	// and, when its path is short enough, mysqld.sock.
	Dir string
	// Host is the address mysqld listens on; default 127.0.0.1.
	Host string
	// Port is mysqld's TCP port; 0: a free one, chosen by the kernel.
	Port int
	// ServerID must be unique in the group; default 1.
	ServerID uint32
	// ReadOnly starts the server with super_read_only=ON, as a member's must
	// be until cohort says otherwise.
	ReadOnly bool
	// KillWithParent has the kernel kill mysqld when this process ends in
	// whatever way. For tests; linux only.
	KillWithParent bool
	// Settings are further "name=value" lines of my.cnf; they win over the
	// defaults. "loose_" names and bare names are passed on as they are.
	Settings []string
}

// Datadir is the directory of the server's data.
func (o *Options) Datadir() string { return filepath.Join(o.Dir, "data") }

// ConfigFile is the path of my.cnf.
func (o *Options) ConfigFile() string { return filepath.Join(o.Dir, "my.cnf") }

// LogFile is the path of the server's error log.
func (o *Options) LogFile() string { return filepath.Join(o.Dir, "mysqld.log") }

// PidFile is the path of the file in which mysqld writes its process id.
func (o *Options) PidFile() string { return filepath.Join(o.Dir, "mysqld.pid") }

// SocketFile is the path to connect to. It is Dir/mysqld.sock; when that is too
// long for a socket's address, the directory is a symbolic link in the system's
// temporary directory whose name depends on Dir alone, so that every process
// finds the same one.
func (o *Options) SocketFile() string {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		dir = o.Dir
	}
	if s := filepath.Join(dir, "mysqld.sock"); len(s) <= maxSocketPath {
		return s
	}
	return filepath.Join(shortLink(dir), "mysqld.sock")
}

// requiredSettings are what cohort needs of a mysqld, as far as they are not
// the server's defaults already, and durability as MySQL's own defaults have
// it. binlog_format is left alone: ROW is the default, and naming it warns.
var requiredSettings = []string{
	"gtid_mode=ON",
	"enforce_gtid_consistency=ON",
	"log_bin=binlog",
	"relay_log=relay",
	"log_replica_updates=ON",
	"replica_preserve_commit_order=ON",
	"xa_detach_on_prepare=ON",
	"skip_replica_start=ON",
	"sync_binlog=1",
	"innodb_flush_log_at_trx_commit=1",
	"mysqlx=OFF",
	"performance_schema=ON",
}

// SettingName returns the name of a "name=value" setting in the spelling of
// system variables: lower case, underscores, without a loose_ prefix.
func SettingName(s string) string {
	name, _, _ := strings.Cut(s, "=")
	name = strings.ToLower(strings.TrimSpace(strings.TrimLeft(name, "-")))
	return strings.TrimPrefix(strings.ReplaceAll(name, "-", "_"), "loose_")
}

// configText renders my.cnf. A setting that the caller gives replaces the
// default of the same name instead of following it.
func (o *Options) configText(socket string, port int) string {
	host := o.Host
	if host == "" {
		host = "127.0.0.1"
	}
	id := o.ServerID
	if id == 0 {
		id = 1
	}
	lines := []string{
		"datadir=" + quote(o.Datadir()),
		"socket=" + quote(socket),
		"pid_file=" + quote(o.PidFile()),
		"log_error=" + quote(o.LogFile()),
		fmt.Sprintf("port=%d", port),
		"bind_address=" + host,
		fmt.Sprintf("server_id=%d", id),
	}
	lines = append(lines, requiredSettings...)
	if o.ReadOnly {
		lines = append(lines, "super_read_only=ON")
	}
	given := map[string]bool{}
	for _, s := range o.Settings {
		given[SettingName(s)] = true
	}
	var b strings.Builder
	b.WriteString("[mysqld]\n")
	for _, l := range lines {
		if !given[SettingName(l)] {
			b.WriteString(l + "\n")
		}
	}
	for _, s := range o.Settings {
		b.WriteString(strings.TrimLeft(s, "-") + "\n")
	}
	return b.String()
}

// quote protects a path in my.cnf syntax.
func quote(s string) string {
	r := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	return `"` + r.Replace(s) + `"`
}

func (o *Options) writeConfig(socket string, port int) error {
	if err := os.WriteFile(o.ConfigFile(), []byte(o.configText(socket, port)), 0o600); err != nil {
		return fmt.Errorf("write mysqld's configuration: %w", err)
	}
	return nil
}
