package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cohort/internal/loadgen"
	"cohort/internal/mysqld"
	"cohort/internal/mysqldtest"
)

// mysql2Module pins what the suite for Node needs.
const mysql2Module = "mysql2@3.11.5"

var pythonPackages = []string{"python3-pymysql", "python3-cryptography", "python3-cffi-backend"}

// run runs a program and returns its output; its failure fails the test.
func run(t *testing.T, stdin string, env []string, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := osexec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", filepath.Base(program), strings.Join(args, " "), err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String()
}

// program is one of the programs that come with the server.
func program(t *testing.T, name string, with ...string) string {
	t.Helper()
	in, err := mysqld.Find(t.Context(), mysqld.FindOptions{With: with, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	path, err := in.Program(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// clientCache is a directory for the other languages' modules, kept between runs.
func clientCache(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(mysqld.CacheDir(), "clients", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pythonPath provides PyMySQL: the host's own, or the distribution's package
// unpacked into the cache.
func pythonPath(t *testing.T) []string {
	t.Helper()
	const probe = "import pymysql, cryptography"
	if osexec.CommandContext(t.Context(), "python3", "-c", probe).Run() == nil {
		return nil
	}
	dir := clientCache(t, "python")
	env := []string{"PYTHONPATH=" + filepath.Join(dir, "usr/lib/python3/dist-packages")}
	cmd := osexec.CommandContext(t.Context(), "python3", "-c", probe)
	cmd.Env = append(os.Environ(), env...)
	if cmd.Run() == nil {
		return env
	}
	for _, p := range pythonPackages {
		run(t, "", nil, "sh", "-c", `cd "$1" && rm -f "$2"_*.deb && apt-get -q download "$2" && dpkg-deb -x "$2"_*.deb .`, "sh", dir, p)
	}
	return env
}

// nodePath provides mysql2.
func nodePath(t *testing.T) []string {
	t.Helper()
	dir := clientCache(t, "node")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "mysql2")); err != nil {
		run(t, "", nil, "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--save-exact", mysql2Module)
	}
	return []string{"NODE_PATH=" + filepath.Join(dir, "node_modules")}
}

// suite is a smoke suite of one client: it runs against any server.
type suite struct {
	name string
	run  func(t *testing.T, target loadgen.Target, tls bool)
}

func suites() []suite {
	script := func(name, interpreter string, env func(*testing.T) []string) func(*testing.T, loadgen.Target, bool) {
		return func(t *testing.T, target loadgen.Target, tls bool) {
			host, port, err := net.SplitHostPort(target.Addr)
			if err != nil {
				t.Fatal(err)
			}
			flag := "0"
			if tls {
				flag = "1"
			}
			t.Log(run(t, "", env(t), interpreter, filepath.Join("testdata", name), host, port, target.User, target.Password, target.Schema, flag))
		}
	}
	return []suite{
		{"go-sql-driver", goSuite},
		{"mysql", commandLineSuite},
		{"PyMySQL", script("smoke.py", "python3", pythonPath)},
		{"mysql2", script("smoke.js", "node", nodePath)},
	}
}

func runSuites(t *testing.T, target loadgen.Target) {
	for _, s := range suites() {
		// With TLS first: it leaves the server's password cache warm or cold
		// as it may; without TLS both ways are met over the repetitions.
		for _, tls := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/tls=%v", s.name, tls), func(t *testing.T) { s.run(t, target, tls) })
		}
	}
}

// The suites hold on a bare server: what they demand is what mysqld does.
func TestSuitesOnBareServer(t *testing.T) {
	s := mysqldtest.Start(t, "local_infile=ON")
	s.SQL(t, "CREATE DATABASE plain", "CREATE USER plain@'%' IDENTIFIED BY 'plain'", "GRANT ALL ON plain.* TO plain@'%'")
	runSuites(t, loadgen.Target{Network: "tcp", Addr: s.Addr, User: "plain", Password: "plain", Schema: "plain"})
}

// Unmodified clients through the primary's and through a secondary's member.
func TestSuitesThroughGroup(t *testing.T) {
	g := sharedGroup(t)
	for name, m := range map[string]loadgen.Target{
		"primary": g.Primary.Through("plain", "plain"), "secondary": g.Secondary.Through("plain", "plain"),
	} {
		t.Run(name, func(t *testing.T) { runSuites(t, m) })
	}
	g.check(t)
}
