package mysqld

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
)

// shortLink is a short name for a directory with a long path.
func shortLink(dir string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(dir))
	return filepath.Join(os.TempDir(), fmt.Sprintf("cohort-%d-%016x", os.Getuid(), h.Sum64()))
}

// prepareSocket makes the socket's directory reachable by its short name.
// It returns the socket's path and what to remove when the server has ended.
func (o *Options) prepareSocket() (socket, link string, err error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return "", "", fmt.Errorf("socket directory: %w", err)
	}
	socket = o.SocketFile()
	if filepath.Dir(socket) == dir {
		return socket, "", nil
	}
	link = filepath.Dir(socket)
	if to, err := os.Readlink(link); err == nil && to == dir {
		return socket, link, nil
	}
	// Never replaces what is there: another's link must not be taken over.
	if err := os.Symlink(dir, link); err != nil {
		return "", "", fmt.Errorf("short name for the socket directory: %w", err)
	}
	return socket, link, nil
}

// RemoveSocketLink removes what SocketFile needs outside of Dir, if anything.
// It is for an instance that is given up; the server must not run.
func (o *Options) RemoveSocketLink() error {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("socket directory: %w", err)
	}
	link := shortLink(dir)
	if to, err := os.Readlink(link); err != nil || to != dir {
		return nil // none, or not this instance's
	}
	if err := os.Remove(link); err != nil {
		return fmt.Errorf("socket directory: %w", err)
	}
	return nil
}
