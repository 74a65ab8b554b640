package scripts_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cohort/scripts"
)

// script runs mysqld.sh as the program does, with an empty cache unless env
// says otherwise.
func script(t *testing.T, env []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{"-c", scripts.Mysqld, "mysqld.sh"}, args...)...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "COHORT_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(append(cmd.Env, "COHORT_CACHE="+t.TempDir()), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// program writes an executable that answers --version with text.
func program(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "mysqld")
	if err := os.WriteFile(p, []byte("#!/bin/sh\necho '"+text+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWhatIsNoUsableServerIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"mariadbd  Ver 11.8.1-MariaDB for debian-linux-gnu": "is not a MySQL server",
		"mysqld  Ver 8.0.29 for Linux on x86_64":            "8.0.30 or later is needed",
		"something else":                                    "is not a MySQL server",
	} {
		out, said, err := script(t, []string{"COHORT_MYSQLD=" + program(t, text)})
		if err == nil || out != "" || !strings.Contains(said, want) {
			t.Errorf("%s: %v\n%s%s", text, err, out, said)
		}
	}
	if _, said, err := script(t, []string{"COHORT_MYSQLD=/no/such/mysqld"}); err == nil || !strings.Contains(said, "no such program") {
		t.Errorf("%v %s", err, said)
	}
	ours := "COHORT_MYSQLD=" + program(t, "mysqld  Ver 8.0.30 for Linux on x86_64")
	if _, said, err := script(t, []string{ours}, "--with", "clock"); err == nil || !strings.Contains(said, "a fetched server only") {
		t.Errorf("%v %s", err, said)
	}
	if _, said, err := script(t, nil, "--with", "everything"); err == nil || !strings.Contains(said, "--with takes router, testsuite, sysbench or clock") {
		t.Errorf("%v %s", err, said)
	}
}

// Nothing listens at the mirror's address: as on a machine without a network.
func TestOfflineTheErrorSaysWhatToDo(t *testing.T) {
	_, said, err := script(t, []string{"COHORT_APT_MIRROR=http://127.0.0.1:1/debian"}, "--fetch")
	if err == nil || !strings.Contains(said, "error: cannot reach the package archive (http://127.0.0.1:1/debian") || !strings.Contains(said, "set COHORT_MYSQLD") {
		t.Errorf("%v\n%s", err, said)
	}
	// Also on a new machine, whose apt has no lists yet.
	dir := t.TempDir()
	conf, sources := filepath.Join(dir, "apt.conf"), filepath.Join(dir, "sources.list")
	release, err := exec.CommandContext(t.Context(), "sh", "-c", ". /etc/os-release && echo http://127.0.0.1:1/$ID $VERSION_CODENAME").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		sources: "deb " + strings.TrimSpace(string(release)) + " main\n",
		conf:    `Dir::State "` + dir + `"; Dir::Cache "` + dir + `"; Dir::Etc::sourcelist "` + sources + `"; Dir::Etc::sourceparts "-";`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, said, err := script(t, []string{"APT_CONFIG=" + conf}, "--fetch"); err == nil || !strings.Contains(said, "cannot reach the package archive (http://127.0.0.1:1/") {
		t.Errorf("%v\n%s", err, said)
	}
	if _, said, err := script(t, nil, "--fetch", "--no-fetch"); err == nil || !strings.Contains(said, "--no-fetch was given") {
		t.Errorf("%v\n%s", err, said)
	}
}

// A given server gets wrappers of its own, whose process is the server's.
func TestAGivenServerIsWrapped(t *testing.T) {
	bin, err := exec.CommandContext(t.Context(), "bash", "mysqld.sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimSpace(string(bin))
	out, said, err := script(t, []string{"COHORT_MYSQLD=" + filepath.Join(dir, "mysqld")}, "--json")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	var in struct {
		Bin, Version, Basedir string
		PluginDir             string `json:"plugin_dir"`
		Programs              map[string]string
	}
	if err := json.Unmarshal([]byte(out), &in); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if in.Version == "" || in.Basedir == "" || in.PluginDir == "" || in.Bin == dir {
		t.Errorf("%+v", in)
	}
	for _, p := range []string{"mysqld", "mysql", "mysqldump", "mysqladmin", "mysqlbinlog"} {
		b, err := exec.CommandContext(t.Context(), in.Programs[p], "--no-defaults", "--version").CombinedOutput()
		if err != nil || !bytes.Contains(b, []byte(in.Version)) {
			t.Errorf("%s: %v %s", p, err, b)
		}
	}
}

// The command's files are in memory or where they always are; its result is the
// script's. This test may run inside the script: that run's files stay.
func TestTemporaryFilesInMemory(t *testing.T) {
	mine := filepath.Join(t.TempDir(), "mine")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ram := range []string{"yes", "no"} {
		cmd := exec.CommandContext(t.Context(), "./ramtmp.sh", "sh", "-c", `d=$(mktemp -d) && echo "$TMPDIR" && ls -d "$d" && rmdir "$d"; exit 3`)
		usual := t.TempDir()
		cmd.Env = append(os.Environ(), "COHORT_TEST_RAM="+ram, "TMPDIR="+usual)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 3 {
			t.Fatalf("%v\n%s", err, out)
		}
		said := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(said) != 2 || !strings.HasPrefix(said[1], said[0]) || ram == "no" && said[0] != usual {
			t.Errorf("%s: %q", ram, said)
		}
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
}
