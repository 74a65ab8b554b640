package consensus

import (
	"crypto/md5"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lni/dragonboat/v4/raftpb"

	"cohort/internal/durable"
)

const flagFile = "dragonboat.ds"

// adoptHostname lets a member keep its log when its host is renamed or its
// container is made anew. Dragonboat keeps its files in a folder named for the
// host, and the name in a flag file, and refuses to start on another host.
func adoptHostname(dir string) error {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var old string
	for _, e := range list {
		switch {
		case !e.IsDir():
		case e.Name() == host:
			return nil
		case old != "":
			return fmt.Errorf("%w: %s has logs of the hosts %s and %s", ErrCorrupt, dir, old, e.Name())
		default:
			old = e.Name()
		}
	}
	if old == "" {
		return nil
	}
	// The flag first: a crash in between leaves what comes here again.
	if err := renameInFlag(filepath.Join(dir, flagFile), host); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, old), filepath.Join(dir, host)); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// renameInFlag rewrites dragonboat's flag file: the last 8 bytes of the MD5 of
// the rest, then a RaftDataStatus.
func renameInFlag(path, host string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(b) < 8 {
		return fmt.Errorf("%w: %s", ErrCorrupt, path)
	}
	if sum := md5.Sum(b[8:]); string(sum[8:]) != string(b[:8]) {
		return fmt.Errorf("%w: %s", ErrCorrupt, path)
	}
	var st raftpb.RaftDataStatus
	if err := st.Unmarshal(b[8:]); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	st.Hostname = host
	data, err := st.Marshal()
	if err != nil {
		return err
	}
	sum := md5.Sum(data)
	return durable.WriteFile(path, append(sum[8:16:16], data...), 0o640)
}
