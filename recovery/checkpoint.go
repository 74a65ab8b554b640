package recovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"cohort/internal/binlog/capture"
	"cohort/internal/durable"
)

// checkpoint is the place in the local mysqld's binary log before which every
// direct statement is ordered and its empty group transaction is written. What
// lies behind it is read again at start-up to find direct statements that never
// reached the log. It may lag, never lead: reading twice is harmless, since the
// log knows each statement by its local GTID.
type checkpoint struct {
	// ServerUUID is whose binary log File and Pos are about: after mysqld's data
	// were replaced, the place means nothing.
	ServerUUID string `json:"server_uuid"`
	File       string `json:"file"`
	Pos        uint64 `json:"pos"`
	// Primary: what follows was run on the primary, where clients may wait for it.
	Primary bool `json:"primary,omitempty"`
}

const checkpointFile = "capture.json"

// loadCheckpoint returns the zero checkpoint when there is none.
func loadCheckpoint(dir string) (checkpoint, error) {
	var c checkpoint
	b, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("recovery: read the capture checkpoint: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("recovery: %s is damaged: %w", checkpointFile, err)
	}
	return c, nil
}

// save replaces the file durably: a checkpoint that was read is one that was
// written whole.
func (c checkpoint) save(dir string) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("recovery: encode the capture checkpoint: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, checkpointFile), b, 0o600); err != nil {
		return fmt.Errorf("recovery: write the capture checkpoint: %w", err)
	}
	return nil
}

// progress derives the checkpoint from the stream of captured things: it
// stands before the oldest direct statement that is not settled.
type progress struct {
	mu   sync.Mutex
	at   capture.StartAt            // everything before it was captured
	open map[string]capture.StartAt // by local GTID: where the capture stood before it
}

func newProgress(at capture.StartAt) *progress {
	return &progress{at: at, open: make(map[string]capture.StartAt)}
}

// captured notes that everything up to c is read; direct statements stay open
// until settled.
func (p *progress) captured(c *capture.Captured) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Kind == capture.KindDirect {
		p.open[c.LocalGTID] = p.at
	}
	p.at = capture.StartAt{File: c.File, Pos: c.Pos}
}

// settled notes that the empty group transaction of a direct statement is
// written.
func (p *progress) settled(localGTID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, localGTID)
}

// quiet says that no direct statement is open.
func (p *progress) quiet() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open) == 0
}

// place is where a later start-up has to begin to read.
func (p *progress) place() capture.StartAt {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.at
	for _, s := range p.open {
		if s.Before(at) {
			at = s
		}
	}
	return at
}
