package mysqld

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Initialize creates the data directory of o with mysqld --initialize-insecure:
// root@localhost without a password, nothing else. An existing non-empty data
// directory is an error.
func (in *Installation) Initialize(ctx context.Context, o Options) error {
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	if es, err := os.ReadDir(o.Datadir()); err == nil && len(es) > 0 {
		return fmt.Errorf("initialize: %s is not empty", o.Datadir())
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	if err := o.writeConfig(filepath.Join(o.Dir, "init.sock"), 0); err != nil {
		return err
	}
	from := fileSize(o.LogFile())
	// The server must be writable while it creates its tables.
	cmd, err := in.command(&o, "--defaults-file="+o.ConfigFile(), "--super-read-only=OFF", "--initialize-insecure")
	if err != nil {
		return err
	}
	if err := spawn(cmd, true); err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		<-done
		err = ctx.Err()
	}
	if err != nil {
		_ = os.RemoveAll(o.Datadir())
		return fmt.Errorf("initialize %s: %w: %s", o.Datadir(), err, logTail(o.LogFile(), from))
	}
	return nil
}

// settingsOfCreation can be chosen only when a data directory is created, or
// change its files: with one of them a shared template must not be used.
var settingsOfCreation = map[string]bool{
	"lower_case_table_names": true, "innodb_page_size": true, "innodb_data_file_path": true,
	"innodb_data_home_dir": true, "innodb_undo_directory": true, "innodb_log_group_home_dir": true,
	"innodb_directories": true, "innodb_doublewrite_dir": true, "innodb_temp_data_file_path": true,
	"innodb_checksum_algorithm": true, "character_set_server": true, "collation_server": true,
	"default_table_encryption": true, "table_encryption_privilege_check": true, "early_plugin_load": true,
}

// InitializeFromTemplate does what Initialize does, in a fraction of the time:
// it copies a data directory that is initialised once per server version and
// kept in the cache. Server uuid and TLS keys are not shared: mysqld makes its
// own when it starts.
func (in *Installation) InitializeFromTemplate(ctx context.Context, o Options) error {
	for _, s := range o.Settings {
		if settingsOfCreation[SettingName(s)] {
			return in.Initialize(ctx, o)
		}
	}
	tmpl, err := in.template(ctx)
	if err != nil {
		return err
	}
	if es, err := os.ReadDir(o.Datadir()); err == nil && len(es) > 0 {
		return fmt.Errorf("initialize: %s is not empty", o.Datadir())
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	_ = os.Remove(o.Datadir())
	out, err := exec.CommandContext(ctx, "cp", "-r", "--reflink=auto", "--sparse=always", tmpl, o.Datadir()).CombinedOutput()
	if err != nil {
		_ = os.RemoveAll(o.Datadir())
		return fmt.Errorf("copy template to %s: %w: %s", o.Datadir(), err, out)
	}
	return nil
}

// template returns the data directory to copy, creating it first if need be.
func (in *Installation) template(ctx context.Context) (string, error) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(in.Bin + "\x00" + in.Version))
	dir := filepath.Join(CacheDir(), "templates", fmt.Sprintf("%s-%016x", in.Version, h.Sum64()))
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	// Other processes may want the same one: the first creates, others wait.
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := flock(ctx, lock); err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	if _, err := os.Stat(data); err == nil {
		return data, nil
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	if err := in.Initialize(ctx, Options{Dir: part, Settings: []string{"innodb_redo_log_capacity=16M"}}); err != nil {
		return "", err
	}
	for _, f := range []string{"auto.cnf"} {
		if err := os.Remove(filepath.Join(part, "data", f)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("template: %w", err)
		}
	}
	pems, _ := filepath.Glob(filepath.Join(part, "data", "*.pem"))
	for _, f := range pems {
		if err := os.Remove(f); err != nil {
			return "", fmt.Errorf("template: %w", err)
		}
	}
	if err := os.Rename(part, dir); err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	return data, nil
}

// flock locks f exclusively; the lock ends when f is closed.
func flock(ctx context.Context, f *os.File) error {
	got := make(chan error, 1)
	go func() {
		for {
			err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
			if !errors.Is(err, syscall.EINTR) {
				got <- err
				return
			}
		}
	}()
	select {
	case err := <-got:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
