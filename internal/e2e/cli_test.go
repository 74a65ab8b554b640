package e2e

import (
	"net"
	"regexp"
	"strings"
	"testing"

	"cohort/internal/loadgen"
	"cohort/internal/mysqldtest"
)

// connectArgs are the options of MySQL's own programs for a target.
func connectArgs(t *testing.T, target loadgen.Target, tls bool) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(target.Addr)
	if err != nil {
		t.Fatal(err)
	}
	mode := "DISABLED"
	if tls {
		mode = "REQUIRED"
	}
	return []string{
		"--no-defaults", "--protocol=TCP", "--host=" + host, "--port=" + port,
		"--user=" + target.User, "--ssl-mode=" + mode, "--get-server-public-key",
	}
}

func passwordEnv(target loadgen.Target) []string { return []string{"MYSQL_PWD=" + target.Password} }

// commandLineSuite is the smoke suite of the mysql command-line client.
func commandLineSuite(t *testing.T, target loadgen.Target, tls bool) {
	mysql := program(t, "mysql")
	args := append(connectArgs(t, target, tls), "--batch", "--skip-column-names", "--database="+target.Schema)
	for name, more := range map[string][]string{
		"plain": nil, "zlib": {"--compression-algorithms=zlib"}, "zstd": {"--compression-algorithms=zstd"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, `
DROP TABLE IF EXISTS cli;
CREATE TABLE cli (id INT PRIMARY KEY, s TEXT);
INSERT INTO cli VALUES (1, 'one'), (2, 'two');
BEGIN; UPDATE cli SET s = 'uno' WHERE id = 1; ROLLBACK;
START TRANSACTION WITH CONSISTENT SNAPSHOT; UPDATE cli SET s = 'due' WHERE id = 2; COMMIT AND CHAIN; DELETE FROM cli WHERE id = 1; ROLLBACK RELEASE;
`, passwordEnv(target), mysql, append(args[:len(args):len(args)], more...)...)
			out := run(t, `
SELECT id, s FROM cli ORDER BY id;
DELIMITER //
DROP PROCEDURE IF EXISTS cli_proc//
CREATE PROCEDURE cli_proc (n INT) BEGIN SELECT n, n + 1; SELECT 'second'; INSERT INTO cli VALUES (n, 'proc'); END//
DELIMITER ;
CALL cli_proc(7);
SELECT COUNT(*) FROM cli;
PREPARE s FROM 'SELECT ? * 2'; SET @a = 21; EXECUTE s USING @a; DEALLOCATE PREPARE s;
SHOW TABLES LIKE 'cli';
DROP PROCEDURE cli_proc; DROP TABLE cli;
`, passwordEnv(target), mysql, append(args[:len(args):len(args)], more...)...)
			want := "1\tone\n2\tdue\n7\t8\nsecond\n3\n42\ncli\n"
			if out != want {
				t.Errorf("mysql printed\n%s\nwant\n%s", out, want)
			}
		})
	}
}

const dumpedTables = `
DROP TABLE IF EXISTS child, parent;
CREATE TABLE parent (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) UNIQUE, doc JSON, bits BIT(9), at TIMESTAMP(3) NULL);
CREATE TABLE child (id INT PRIMARY KEY, parent INT, price DECIMAL(10,2), total DECIMAL(12,2) AS (price * 2) STORED, body BLOB,
  FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE);
INSERT INTO parent (name, doc, bits, at) VALUES ('naïve', '{"a": [1, 2]}', b'101', '2024-02-29 01:02:03.456'), ('quote '' and \\ backslash', NULL, NULL, NULL);
INSERT INTO child (id, parent, price, body) VALUES (1, 1, 12.34, x'00ff0a0d27'), (2, NULL, NULL, NULL);
CREATE OR REPLACE VIEW both_of_them AS SELECT p.name, c.price FROM parent p LEFT JOIN child c ON c.parent = p.id;
DROP PROCEDURE IF EXISTS answer;
CREATE PROCEDURE answer () SELECT 42;
DROP TRIGGER IF EXISTS stamped;
CREATE TRIGGER stamped BEFORE INSERT ON child FOR EACH ROW SET NEW.price = IFNULL(NEW.price, 0);
`

// dump is mysqldump's text without what differs between two dumps of the same.
func dump(t *testing.T, target loadgen.Target, schema string, more ...string) string {
	t.Helper()
	args := append(connectArgs(t, target, false), "--single-transaction", "--routines", "--triggers",
		"--no-tablespaces", "--skip-dump-date", "--set-gtid-purged=OFF")
	text := run(t, "", passwordEnv(target), program(t, "mysqldump"), append(append(args, more...), schema)...)
	return regexp.MustCompile(`(?m)^--.*$`).ReplaceAllString(text, "")
}

// mysqldump both ways: a dump taken through a member equals one of the bare
// server that it came from, and it can be loaded through a member.
func TestDumpBothWays(t *testing.T) {
	bare := mysqldtest.Start(t)
	bare.SQL(t, "CREATE DATABASE plain", "CREATE USER plain@'%' IDENTIFIED BY 'plain'", "GRANT ALL ON plain.* TO plain@'%'",
		"SET GLOBAL log_bin_trust_function_creators = ON")
	g := sharedGroup(t)
	from := loadgen.Target{Network: "tcp", Addr: bare.Addr, User: "plain", Password: "plain"}
	mysql := program(t, "mysql")
	load := func(target loadgen.Target, text string) {
		run(t, text, passwordEnv(target), mysql, append(connectArgs(t, target, false), "plain")...)
	}
	load(from, dumpedTables)
	original := dump(t, from, "plain")
	if !strings.Contains(original, "CREATE TABLE `child`") {
		t.Fatalf("the dump is not one:\n%s", original)
	}
	for _, through := range []loadgen.Target{g.Primary.Through("plain", ""), g.Secondary.Through("plain", "")} {
		load(through, original)
		for _, more := range [][]string{nil, {"--hex-blob", "--extended-insert=FALSE"}, {"--skip-opt", "--create-options"}} {
			if got, want := dump(t, through, "plain", more...), dump(t, from, "plain", more...); got != want {
				t.Errorf("%v: dump through %s:\n%s\nwant\n%s", more, through.Addr, got, want)
			}
		}
		load(from, dump(t, through, "plain"))
		if got := dump(t, from, "plain"); got != original {
			t.Errorf("there and back again:\n%s\nwant\n%s", got, original)
		}
	}
	// As the privileged account, with locks instead of one snapshot.
	run(t, "", []string{"MYSQL_PWD=app"}, program(t, "mysqldump"),
		append(connectArgs(t, g.Secondary.Through("app", ""), true), "--lock-all-tables", "--set-gtid-purged=OFF", "--all-databases")...)
	g.check(t)
}
