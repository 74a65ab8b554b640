package relay

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cohort/internal/mysqldtest"
)

// testCommandLineClients runs the server's own clients through relay.
func testCommandLineClients(t *testing.T, s *mysqldtest.Server) {
	p := startPassthrough(t, "tcp", Options{ClientTLS: testTLS(t), Compression: true, Secrets: NewSecrets(), DemandPassword: true}, dialTo("unix", s.Socket))
	in := mysqldtest.Installation(t)
	host, port, err := net.SplitHostPort(p.addr)
	must(t, err)
	run := func(t *testing.T, program string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		args = append([]string{"--no-defaults", "-h" + host, "-P" + port, "--protocol=TCP"}, args...)
		path, err := in.Program(program)
		must(t, err)
		c := exec.CommandContext(ctx, path, args...)
		c.Env = append(os.Environ(), "MYSQL_TEST_LOGIN_FILE=/dev/null")
		var stderr strings.Builder
		c.Stderr = &stderr
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s\n%s", program, args, err, out, stderr.String())
		}
		return string(out)
	}
	file := filepath.Join(t.TempDir(), "rows")
	must(t, os.WriteFile(file, []byte("500001\tfrom a file\n500002\tand another\n"), 0o644))
	accounts := [][2]string{{"csha", "secret one"}, {"sha", "secret two"}, {"nopw", ""}}
	modes := map[string][]string{
		"plain": {"--ssl-mode=DISABLED", "--get-server-public-key"},
		"tls":   {"--ssl-mode=REQUIRED"},
		"zlib":  {"--ssl-mode=DISABLED", "--get-server-public-key", "--compression-algorithms=zlib"},
		"zstd":  {"--ssl-mode=REQUIRED", "--compression-algorithms=zstd", "--zstd-compression-level=9"},
	}
	for mode, args := range modes {
		for _, a := range accounts {
			t.Run(mode+"/"+a[0], func(t *testing.T) {
				s.SQL(t, "FLUSH PRIVILEGES", "DELETE FROM d.t")
				base := append([]string{"-u" + a[0], "--password=" + a[1]}, args...)
				out := run(t, "mysql", append(base, "--local-infile=1", "-N", "-B", "d", "-e",
					"LOAD DATA LOCAL INFILE '"+file+"' INTO TABLE t; SELECT COUNT(*) FROM t; CALL p(); SELECT LENGTH(REPEAT('x',3000000)), CURRENT_USER(); SHOW STATUS LIKE 'Compression_algorithm'")...)
				if want := "2\n1\n2\tx\n3000000\t" + a[0] + "@%\n"; !strings.HasPrefix(out, want) {
					t.Errorf("got %q", out)
				}
				out = run(t, "mysql", append(base, "-N", "-B", "d", "-e", "SELECT REPEAT('y', 3000000)")...)
				if len(out) != 3000001 {
					t.Errorf("%d bytes", len(out))
				}
				p.noErrors(t)
			})
		}
	}
	t.Run("mysqldump", func(t *testing.T) {
		out := run(t, "mysqldump", "-ucsha", "--password=secret one", "--single-transaction", "--set-gtid-purged=OFF", "--routines", "d")
		if !strings.Contains(out, "from a file") || !strings.Contains(out, "PROCEDURE `p`") {
			t.Errorf("%d bytes", len(out))
		}
		p.noErrors(t)
	})
	t.Run("mysqlbinlog", func(t *testing.T) {
		files := s.BinlogFiles(t)
		log := filepath.Base(files[len(files)-1])
		out := run(t, "mysqlbinlog", "-ucsha", "--password=secret one", "--read-from-remote-server", "--base64-output=decode-rows", "-v", log)
		if !strings.Contains(out, "from a file") {
			t.Errorf("%d bytes", len(out))
		}
		p.noErrors(t)
	})
}
