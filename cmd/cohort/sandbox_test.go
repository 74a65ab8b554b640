package main

import (
	"bytes"
	"errors"
	"flag"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cohort/internal/sandbox"
)

func TestSandboxArguments(t *testing.T) {
	f, err := parseSandbox("start", strings.Fields("--dir d --members 5 --detach --mysqld-option a=1 --mysqld-option b=2 --member-option c=3 --timeout 9s"))
	if err != nil || f.dir != "d" || f.settings.Members != 5 || !f.detach || f.timeout != 9*time.Second ||
		!slices.Equal(f.settings.MysqldOptions, []string{"a=1", "b=2"}) || !slices.Equal(f.settings.MemberOptions, []string{"c=3"}) {
		t.Errorf("%+v %v", f, err)
	}
	// The member's name may stand anywhere among the flags.
	for _, line := range []string{"--dir d m2 mysqld", "m2 mysqld --dir d", "m2 --dir d mysqld"} {
		for _, verb := range []string{"stop", "kill", "restart"} {
			f, err := parseSandbox(verb, strings.Fields(line))
			if err != nil || f.dir != "d" || f.member != "m2" || f.part != sandbox.Mysqld {
				t.Errorf("%s %s: %+v %v", verb, line, f, err)
			}
		}
	}
	if f, err := parseSandbox("status", []string{"--json"}); err != nil || !f.jsonOut || f.dir != "sandbox" {
		t.Errorf("%+v %v", f, err)
	}
	for verb, line := range map[string]string{
		"start": "m1", "status": "m1", "destroy": "m1", "kill": "m1 server", "stop": "m1 proxy x",
		"restart": "--members 3", "launch": "",
	} {
		if _, err := parseSandbox(verb, strings.Fields(line)); !errors.Is(err, errUsage) {
			t.Errorf("%s %s: %v", verb, line, err)
		}
	}
	if _, err := parseSandbox("kill", []string{"--help"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v", err)
	}
}

func TestSandboxExitStatus(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		args         []string
		status       int
		out, problem string
	}{
		{[]string{"--help"}, 0, "usage:", ""},
		{[]string{"bogus"}, 2, "", "see cohort sandbox --help"},
		{[]string{"status", "--dir", none}, 1, "", "no sandbox in " + none},
		{[]string{"stop", "--dir", none, "m1"}, 1, "", "no sandbox in " + none},
	} {
		var out, problem bytes.Buffer
		status := sandboxCommand(c.args, &out, &problem)
		if status != c.status || !strings.Contains(out.String(), c.out) || !strings.Contains(problem.String(), c.problem) {
			t.Errorf("%v: status %d\n%s%s", c.args, status, out.String(), problem.String())
		}
	}
}
