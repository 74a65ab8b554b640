package bench

import (
	"context"
	"fmt"
	"strings"

	"cohort/internal/loadgen"
)

// Durability is the pair of server settings that decide when a commit is on
// stable storage.
type Durability struct {
	SyncBinlog int // sync_binlog
	FlushLog   int // innodb_flush_log_at_trx_commit
}

// Both ends of what is compared.
var (
	Strict  = Durability{1, 1}
	Relaxed = Durability{0, 2}
)

// String is the short form of the tables: "1/1".
func (d Durability) String() string { return fmt.Sprintf("%d/%d", d.SyncBinlog, d.FlushLog) }

// Options are the settings as name=value.
func (d Durability) Options() []string {
	return []string{
		fmt.Sprintf("sync_binlog=%d", d.SyncBinlog),
		fmt.Sprintf("innodb_flush_log_at_trx_commit=%d", d.FlushLog),
	}
}

// Endpoint is one way into a system.
type Endpoint struct {
	Name   string
	Target loadgen.Target
}

// Member is one server of a system, reached for its counters only.
type Member struct {
	Name  string
	Admin loadgen.Target
}

// Process is a server process and the line of the CPU table it belongs to.
type Process struct {
	Group string
	Pid   int
}

// Running is a system that is up and serves.
type Running struct {
	Load      loadgen.Target // where tables are created and filled
	Endpoints []Endpoint
	Members   []Member
	GTIDKey   string // uuid under which its transactions are numbered
	Processes []Process
	Stop      func(context.Context) error
}

// System can be started anew for each workload.
type System struct {
	Name       string
	Durability Durability
	Start      func(ctx context.Context, dir string) (*Running, error)
}

// Label names a system and its settings.
func (s System) Label() string { return s.Name + " " + s.Durability.String() }

// slug is the label as a directory name.
func (s System) slug() string {
	return strings.NewReplacer(" ", "-", "/", "").Replace(strings.ToLower(s.Label()))
}
