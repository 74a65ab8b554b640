package e2e

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"cohort/internal/loadgen"
	"cohort/internal/mysqld"
	"cohort/internal/mysqldtest"
)

// sysbench runs one command of a sysbench script on a target.
func sysbench(t *testing.T, target loadgen.Target, script, command string, options ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(target.Addr)
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{
		"--db-driver=mysql", "--mysql-host=" + host, "--mysql-port=" + port, "--mysql-user=" + target.User,
		"--mysql-password=" + target.Password, "--mysql-db=" + target.Schema, "--tables=2", "--table-size=2000",
	}, options...)
	return run(t, "", nil, program(t, "sysbench", mysqld.WithSysbench), append(append([]string{script}, args...), command)...)
}

var (
	transactionsLine = regexp.MustCompile(`transactions:\s+(\d+)`)
	errorsLine       = regexp.MustCompile(`ignored errors:\s+(\d+)`)
	reconnectsLine   = regexp.MustCompile(`reconnects:\s+(\d+)`)
)

func counted(t *testing.T, line *regexp.Regexp, report string) int {
	t.Helper()
	m := line.FindStringSubmatch(report)
	if m == nil {
		t.Fatalf("no %s in\n%s", line, report)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// runSysbench runs the three write scripts with both protocols and all numbers
// of threads. sysbench itself stops at any error but deadlocks, lock wait
// timeouts and the like, which it counts as ignored.
func runSysbench(t *testing.T, target loadgen.Target) {
	sysbench(t, target, "oltp_read_write", "prepare")
	defer sysbench(t, target, "oltp_read_write", "cleanup")
	length, threads := []string{"--time=3"}, []int{1, 16, 64}
	if testing.Short() {
		// So many transactions, however long they take.
		length, threads = []string{"--time=0", "--events=300"}, []int{1, 64}
	}
	for _, script := range []string{"oltp_read_write", "oltp_write_only", "oltp_insert"} {
		for _, protocol := range []string{"auto", "disable"} {
			for _, threads := range threads {
				t.Run(fmt.Sprintf("%s/ps=%s/%d", script, protocol, threads), func(t *testing.T) {
					report := sysbench(t, target, script, "run", append(length, "--db-ps-mode="+protocol,
						"--threads="+strconv.Itoa(threads), "--report-interval=0")...)
					if strings.Contains(report, "FATAL") {
						t.Errorf("%s", report)
					}
					n, ignored := counted(t, transactionsLine, report), counted(t, errorsLine, report)
					if n == 0 {
						t.Errorf("no transaction in\n%s", report)
					}
					if lost := counted(t, reconnectsLine, report); lost > 0 {
						t.Errorf("%d reconnects in\n%s", lost, report)
					}
					t.Logf("%d transactions, %d ignored errors", n, ignored)
				})
			}
		}
	}
}

func TestSysbenchOnBareServer(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "CREATE DATABASE plain", "CREATE USER plain@'%' IDENTIFIED BY 'plain'", "GRANT ALL ON plain.* TO plain@'%'")
	runSysbench(t, loadgen.Target{Network: "tcp", Addr: s.Addr, User: "plain", Password: "plain", Schema: "plain"})
}

func TestSysbenchThroughGroup(t *testing.T) {
	g := sharedGroup(t)
	t.Run("primary", func(t *testing.T) { runSysbench(t, g.Primary.Through("plain", "plain")) })
	t.Run("secondary", func(t *testing.T) { runSysbench(t, g.Secondary.Through("plain", "plain")) })
	g.check(t)
}
