// Package persist keeps what SET PERSIST stored of a member's settings, as
// mysqld-auto.cnf does for mysqld's. It knows neither names nor values.
package persist

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"cohort/internal/durable"
)

// FileName is the file in the member's directory.
const FileName = "persisted.json"

// Store is a set of settings on disk. It is safe for concurrent use.
type Store struct {
	path string
	mu   sync.Mutex
	all  map[string]string
}

// Open reads what a member's directory holds; there may be nothing yet.
func Open(dir string) (*Store, error) {
	s := &Store{path: filepath.Join(dir, FileName), all: make(map[string]string)}
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s.all)
	}
	if err != nil {
		return nil, fmt.Errorf("persist: %s: %w", s.path, err)
	}
	return s, nil
}

// All returns the settings.
func (s *Store) All() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.all)
}

// Set stores settings, all of them or none.
func (s *Store) Set(list map[string]string) error {
	return s.change(func(all map[string]string) { maps.Copy(all, list) })
}

// Remove forgets one setting and reports whether it was there.
func (s *Store) Remove(name string) (found bool, err error) {
	if _, found = s.All()[name]; found {
		err = s.change(func(all map[string]string) { delete(all, name) })
	}
	return found, err
}

func (s *Store) change(f func(map[string]string)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := maps.Clone(s.all)
	f(all)
	if maps.Equal(all, s.all) {
		return nil
	}
	b, err := json.MarshalIndent(all, "", "\t")
	if err == nil {
		err = durable.WriteFile(s.path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("persist: %w", err)
	}
	s.all = all
	return nil
}
