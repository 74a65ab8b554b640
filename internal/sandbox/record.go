package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cohort/internal/proc"
)

// Part names one of a member's two processes.
type Part string

// The parts of a member; both for a whole member.
const (
	Mysqld Part = "mysqld"
	Proxy  Part = "proxy"
	Both   Part = ""
)

// parts returns the processes that a Part stands for, the one first that is to
// be stopped first.
func (p Part) parts() ([]Part, error) {
	switch p {
	case Both:
		return []Part{Proxy, Mysqld}, nil
	case Mysqld, Proxy:
		return []Part{p}, nil
	}
	return nil, fmt.Errorf("sandbox: %q is no part of a member: give mysqld or proxy", string(p))
}

// record is the content of a pid file: enough to never take another process for
// the recorded one, also after a restart of the machine.
type record struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start_time"`
	Boot  string `json:"boot_id"`
}

func (s *Sandbox) recordFile(m memberSpec, p Part) string {
	return filepath.Join(s.memberDir(m), string(p)+".pid.json")
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (s *Sandbox) writeRecord(m memberSpec, p Part, id proc.ID) error {
	b, err := json.Marshal(record{Pid: id.Pid, Start: id.Start, Boot: bootID()})
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	if err := os.WriteFile(s.recordFile(m, p), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	return nil
}

// running returns the living process of a part, if there is one.
func (s *Sandbox) running(m memberSpec, p Part) (proc.ID, bool) {
	b, err := os.ReadFile(s.recordFile(m, p))
	if err != nil {
		return proc.ID{}, false
	}
	var r record
	if json.Unmarshal(b, &r) != nil || r.Boot != bootID() {
		return proc.ID{}, false
	}
	id := proc.ID{Pid: r.Pid, Start: r.Start}
	return id, id.Alive()
}

// forget removes the record of a process that is gone.
func (s *Sandbox) forget(m memberSpec, p Part) error {
	if err := os.Remove(s.recordFile(m, p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sandbox: %w", err)
	}
	return nil
}

// end stops (or kills) one part and returns when it is gone.
func (s *Sandbox) end(ctx context.Context, m memberSpec, p Part, kill bool) error {
	if id, ok := s.running(m, p); ok {
		var err error
		if kill {
			err = id.Kill()
		} else {
			err = id.Stop(ctx)
		}
		if err != nil {
			return fmt.Errorf("sandbox: %s of %s: %w", p, m.Name, err)
		}
	}
	return s.forget(m, p)
}
