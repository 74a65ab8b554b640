package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const good = `
# a comment
; another
[mysqld]
whatever = ignored by us
[cohort]
group-replication-group-name = "7a1e2a4c-5d2f-4f0f-9a53-0c6f1d9b8e11"  # quoted
group_replication_local_address=127.0.0.1:33061
group_replication_group_seeds= 127.0.0.1:33061, 127.0.0.1:33062 ,[::1]:33063
group_replication_bootstrap_group
group_replication_transaction_size_limit=1M
group_replication_member_expel_timeout = 7
skip-group_replication_start_on_boot
cohort_mysqld_socket='/tmp/my sock'
cohort_data_dir=/var/lib/co#hort
cohort_admin_password="a\"b#c\sd"
GROUP_REPLICATION_CONSISTENCY=before
`

func read(t *testing.T, text string) (*Config, error) {
	t.Helper()
	c := Default()
	return c, c.ReadFile(strings.NewReader(text), "test.cnf")
}

func TestFile(t *testing.T) {
	c, err := read(t, good)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ got, want any }{
		{c.GroupName, "7a1e2a4c-5d2f-4f0f-9a53-0c6f1d9b8e11"},
		{c.GroupSeeds, []string{"127.0.0.1:33061", "127.0.0.1:33062", "[::1]:33063"}},
		{c.BootstrapGroup, true}, {c.StartOnBoot, false},
		{c.TransactionSizeLimit, uint64(1 << 20)},
		{c.MemberExpelTimeout, 7 * time.Second},
		{c.MysqldSocket, "/tmp/my sock"}, {c.DataDir, "/var/lib/co#hort"},
		{c.AdminPassword, `a"b#c d`}, {c.Consistency, "BEFORE"},
		{c.CompressionThreshold, uint64(1000000)}, {c.ExitStateAction, "OFFLINE_MODE"},
		{c.PeerListenAddress(), "127.0.0.1:0"},
		{c.Advertised(6446), "127.0.0.1:6446"}, {c.MysqldAdvertised(3306), "127.0.0.1:3306"},
		{c.OriginOf("group_replication_consistency"), FromFile}, {c.OriginOf("cohort_log_level"), FromDefault},
	} {
		if !reflect.DeepEqual(x.got, x.want) {
			t.Errorf("got %v, want %v", x.got, x.want)
		}
	}
}

func TestSyntaxErrorsNameTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"a=1\n[cohort]":                   "test.cnf:1: syntax error: option before the first section",
		"[cohort]\n[oops":                 "test.cnf:2",
		"[cohort]\n\ncohort_data_dir='x":  "test.cnf:3: syntax error: the closing quote is missing",
		"[cohort]\ncohort_data_dir='x' y": "text after the closing quote",
		"[cohort]\ncohort_data_dir":       "'cohort_data_dir' needs a value",
		"[mysqld]\na=1":                   "no section [cohort]",
		"":                                "no section [cohort]",
		"[cohort]\n!includes x":           "neither !include",
		"[cohort]\n" + strings.Repeat("a", 70000): "token too long",
	} {
		if _, err := read(t, text); !errors.Is(err, ErrSyntax) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func TestUnknownKeysNameTheNearest(t *testing.T) {
	for name, want := range map[string]string{
		"group_replication_group_nam":        "group_replication_group_name",
		"member_weight":                      "group_replication_member_weight",
		"data_dir":                           "cohort_data_dir",
		"cohort-wait-timout":                 "cohort_wait_timeout",
		"loose_group_replication_group_name": "loose- is not supported",
	} {
		_, err := read(t, "[cohort]\n"+name+"=1\n")
		if !errors.Is(err, ErrUnknownKey) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestBadValuesSpeakMySQL(t *testing.T) {
	for _, tc := range []struct {
		key, value string
		number     uint16
		text       string
	}{
		{"group_replication_consistency", "ON", 1231, "Variable 'group_replication_consistency' can't be set to the value of 'ON'"},
		{"group_replication_consistency", "5", 1231, ""},
		{"group_replication_exit_state_action", "abort", 1231, ""},
		{"group_replication_member_weight", "101", 1231, "The value 101 is not within the range of accepted values for the option group_replication_member_weight. The value must be between 0 and 100 inclusive."},
		{"group_replication_member_weight", "40.1", 1232, "Incorrect argument type to variable 'group_replication_member_weight'"},
		{"group_replication_member_weight", "x", 1232, ""},
		{"group_replication_member_expel_timeout", "3601", 1231, ""},
		{"group_replication_member_expel_timeout", "-1", 1231, ""},
		{"group_replication_member_expel_timeout", "0.5", 1232, ""},
		{"group_replication_compression_threshold", "4294967297", 1231, "The value 4294967297 is not within the range of accepted values for the option group_replication_compression_threshold!"},
		{"group_replication_transaction_size_limit", "2G", 1231, ""},
		{"group_replication_transaction_size_limit", "99999999999999999999", 1231, ""},
		{"group_replication_transaction_size_limit", "16777216E", 1231, ""},
		{"group_replication_group_name", strings.Repeat("a", 37), 1231, "The group_replication_group_name is not a valid UUID, its length is too big"},
		{"group_replication_group_name", "7a1e2a4c-5d2f-4f0f-9a53+0c6f1d9b8e11", 1231, ""},
		{"group_replication_local_address", "nohost", 1231, ""},
		{"group_replication_local_address", "h:0", 1231, ""},
		{"group_replication_local_address", "::1:33061", 1231, ""},
		{"group_replication_group_seeds", "h:1,h:99999", 1231, ""},
		{"group_replication_ip_allowlist", "AUTOMATIC,10.0.0.0/8", 3092, `Make sure that when specifying "AUTOMATIC" the list contains no other values.`},
		{"group_replication_ip_allowlist", "10.0.0.300", 3092, ""},
		{"group_replication_recovery_compression_algorithms", "foo", 1231, "The value 'foo' is invalid for group_replication_recovery_compression_algorithms option."},
		{"group_replication_recovery_compression_algorithms", "ZLIB", 1231, ""},
		{"group_replication_clone_threshold", "0", 1231, "must be between 1 and 9223372036854775807 inclusive."},
		{"group_replication_bootstrap_group", "maybe", 1231, ""},
		{"cohort_durability", "GROUP", 1231, ""},
		{"cohort_committer_connections", "", 1232, ""},
		{"cohort_log_level", "2", 1231, ""},
	} {
		err := Default().Set(tc.key, tc.value, FromFlag)
		var v *ValueError
		if !errors.As(err, &v) || !errors.Is(err, ErrBadValue) || v.Number != tc.number || v.State != map[bool]string{true: "HY000", false: "42000"}[tc.number == 3092] || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s=%s: %#v", tc.key, tc.value, err)
		}
	}
}

func TestGoodValues(t *testing.T) {
	for _, tc := range [][3]string{
		{"group_replication_consistency", "3", "AFTER"},
		{"group_replication_bootstrap_group", "true", "ON"},
		{"group_replication_bootstrap_group", "0", "OFF"},
		{"group_replication_ip_allowlist", "10.0.0.0/8,::1,db1.example.com/24", "10.0.0.0/8,::1,db1.example.com/24"},
		{"group_replication_message_cache_size", "18446744073709551615", "18446744073709551615"},
		{"group_replication_transaction_size_limit", "100k", "102400"},
		{"cohort_bind_address", "[::]:0", "[::]:0"},
		{"cohort_http_address", "", ""},
		{"group_replication_group_seeds", "", ""},
	} {
		c := Default()
		if err := c.Set(tc[0], tc[1], FromFlag); err != nil {
			t.Errorf("%v: %v", tc, err)
		}
		if got, _ := c.Get(tc[0]); got != tc[2] {
			t.Errorf("%v: got %s", tc, got)
		}
	}
}

func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.cnf")
	if err := os.WriteFile(file, []byte("[cohort]\ncohort_log_level=warn\ncohort_log_format=json\ncohort_wait_timeout=5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"COHORT_LOG_LEVEL=error", "COHORT_LOG_FORMAT=console", "PATH=x", "COHORT_GROUP_REPLICATION_MEMBER_WEIGHT=9", "COHORT_GROUP_REPLICATION_CLONE_THRESHOLD=7", "COHORT_PORT=tcp://x"}
	for _, args := range [][]string{
		{"--config=" + file, "--cohort-log-level=trace"},
		{"--cohort_log_level=trace", "--defaults-file", file},
	} {
		l, err := Load(args, env)
		if err != nil {
			t.Fatal(err)
		}
		if l.LogLevel != "trace" || l.LogFormat != "console" || l.WaitTimeout != 5*time.Second || l.MemberWeight != 9 || l.MaxConnections != 1000 {
			t.Errorf("%v: %+v", args, l.Config)
		}
		if len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "COHORT_PORT") {
			t.Errorf("warnings %q", l.Warnings)
		}
		if d := l.Deferred(); len(d) != 1 || d[0].Name != "group_replication_clone_threshold" {
			t.Errorf("deferred %v", d)
		}
	}
}

// Of a key that comes later some values may have their effect already.
func TestEffective(t *testing.T) {
	for level, deferred := range map[string]bool{"EVENTUAL": false, "BEFORE_ON_PRIMARY_FAILOVER": false, "BEFORE": true, "AFTER": true, "BEFORE_AND_AFTER": true} {
		c := Default()
		if err := c.Set("group_replication_consistency", level, FromFlag); err != nil {
			t.Fatal(err)
		}
		if got := len(c.Deferred()) == 1; got != deferred {
			t.Errorf("%s: deferred %t", level, got)
		}
	}
	for _, k := range Keys() {
		for _, v := range k.Effective {
			if k.Later == "" || !slices.Contains(k.Words, v) {
				t.Errorf("%s: %s", k.Name, v)
			}
		}
	}
}

func TestLoadErrors(t *testing.T) {
	for _, tc := range []struct {
		args, env []string
		want      error
	}{
		{[]string{"file"}, nil, ErrSyntax},
		{[]string{"--config"}, nil, ErrSyntax},
		{[]string{"--config=/does/not/exist"}, nil, os.ErrNotExist},
		{[]string{"--cohort_log_leve=info"}, nil, ErrUnknownKey},
		{[]string{"--cohort_log_level=loud"}, nil, ErrBadValue},
		{nil, []string{"COHORT_LOG_LEVE=info"}, ErrUnknownKey},
		{nil, []string{"COHORT_GROUP_REPLICATION_NEW_THING=1"}, ErrUnknownKey},
		{nil, []string{"COHORT_LOG_LEVEL=loud"}, ErrBadValue},
	} {
		if _, err := Load(tc.args, tc.env); !errors.Is(err, tc.want) {
			t.Errorf("%v %v: %v", tc.args, tc.env, err)
		}
	}
	l, err := Load([]string{"--print-config", "-h"}, nil)
	if err != nil || !l.PrintConfig || !l.Help {
		t.Errorf("%+v %v", l, err)
	}
}

func TestValidate(t *testing.T) {
	if err := Default().Validate(); !errors.Is(err, ErrIncomplete) || strings.Count(err.Error(), "is not set") != 4 {
		t.Errorf("empty: %v", err)
	}
	for line, want := range map[string]string{
		"cohort_peer_address=:7000":                             "can reach",
		"cohort_peer_address=[::]:7000":                         "can reach",
		"group_replication_group_seeds=127.0.0.1:33061,h:1,h:1": "names h:1 twice",
		"cohort_ssl_cert=/x":                                    "given together",
		"cohort_member_ssl_key=/x":                              "given together",
		"group_replication_ssl_mode=VERIFY_CA":                  "needs cohort_member_ssl_ca",
		"group_replication_single_primary_mode=OFF":             "not there yet",
		"group_replication_enforce_update_everywhere_checks=ON": "Cannot enable",
	} {
		c, err := read(t, good+line+"\n")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
	for size, want := range map[uint64]int{0: 1 << 20, 1: 1 << 10, 5000: 5000, 10485760: 1 << 20} {
		if got := (&Config{CommunicationMaxMessageSize: size}).FragmentSize(1 << 20); got != want {
			t.Errorf("fragments of %d: %d", size, got)
		}
	}
	for line, want := range map[string][3]string{
		"": {},
		"cohort_ssl_ca=/a\ncohort_ssl_cert=/b\ncohort_ssl_key=/c\ngroup_replication_ssl_mode=VERIFY_IDENTITY":            {"/a", "/b", "/c"},
		"cohort_ssl_cert=/b\ncohort_ssl_key=/c\ncohort_member_ssl_ca=/d\ngroup_replication_ssl_mode=verify_ca":           {"/d", "/b", "/c"},
		"cohort_ssl_ca=/a\ncohort_ssl_cert=/b\ncohort_ssl_key=/c\ncohort_member_ssl_cert=/e\ncohort_member_ssl_key=/f\n": {"/a", "/e", "/f"},
	} {
		c, err := read(t, good+line+"\n")
		if err != nil {
			t.Fatal(err)
		}
		ca, cert, key := c.MemberTLS()
		if err := c.Validate(); err != nil || [3]string{ca, cert, key} != want {
			t.Errorf("%q: %s %s %s, %v", line, ca, cert, key, err)
		}
	}
	one := Default()
	one.LocalAddress = "[::1]:33061"
	if one.LocalHost() != "::1" || one.Advertised(1) != "[::1]:1" {
		t.Errorf("%s, %s", one.LocalHost(), one.Advertised(1))
	}
}

func TestInclude(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	put("b.cnf", "[cohort]\ncohort_log_level=error\n")
	put("a.cnf", "[cohort]\ncohort_log_level=warn\ncohort_wait_timeout=9\n")
	put("c.txt", "not read")
	c, err := read(t, "!includedir "+dir+"\n")
	if err != nil || c.LogLevel != "error" || c.WaitTimeout != 9*time.Second {
		t.Errorf("%v %+v", err, c)
	}
	loop := put("loop", "")
	put("loop", "!include "+loop+"\n")
	if _, err := read(t, "!include "+loop+"\n"); !errors.Is(err, ErrSyntax) {
		t.Errorf("loop: %v", err)
	}
	if _, err := read(t, "!include "+dir+"/none\n"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// Every key is described, has a default that Set takes, and is in the sample;
// the sample with all its lines made active is a valid configuration that, but
// for the examples, changes nothing.
func TestSampleFromTheStruct(t *testing.T) {
	var b bytes.Buffer
	if err := WriteSample(&b); err != nil {
		t.Fatal(err)
	}
	plain, err := read(t, b.String())
	if err != nil {
		t.Fatalf("the sample as printed: %v", err)
	}
	if !sameValues(plain, Default()) {
		t.Error("the sample as printed changes something")
	}
	active := b.String()
	for _, k := range Keys() {
		if k.Description() == "" || k.Name == "" || !strings.HasSuffix(k.Description(), ".") {
			t.Errorf("%s is not described", k.Field)
		}
		if (k.kind == kindUint || k.kind == kindSeconds) && (k.Unit == "" || k.Max == 0 || k.Default == "") {
			t.Errorf("%s lacks its unit, range or default", k.Name)
		}
		if k.kind == kindSeconds && k.Unit != "seconds" {
			t.Errorf("%s counts %s", k.Name, k.Unit)
		}
		if strings.Count(active, "\n#"+k.Name+" =") != 1 {
			t.Errorf("%s is not in the sample", k.Name)
		}
		active = strings.Replace(active, "\n#"+k.Name+" =", "\n"+k.Name+" =", 1)
	}
	c, err := read(t, active)
	if err != nil {
		t.Fatalf("the sample made active: %v", err)
	}
	if err := c.Validate(); err != nil {
		t.Errorf("the sample made active: %v", err)
	}
	for _, k := range Keys() {
		if examples[k.Name] == "" && c.text(k) != Default().text(k) {
			t.Errorf("the sample changes %s to %s", k.Name, c.text(k))
		}
	}
}

func TestEveryFieldIsAKeyAndTagged(t *testing.T) {
	typ := reflect.TypeFor[Config]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		if !f.IsExported() {
			continue
		}
		if f.Tag.Get("key") == "" || f.Tag.Get("live") == "" {
			t.Errorf("%s lacks tags", f.Name)
		}
	}
	seen := map[string]bool{}
	for _, k := range Keys() {
		if seen[k.EnvName()] {
			t.Errorf("two keys have %s", k.EnvName())
		}
		seen[k.EnvName()] = true
	}
}

// The manual's table is generated: UPDATE_DOCS=1 go test rewrites it.
func TestManualTableIsCurrent(t *testing.T) {
	const path = "../../docs/configuration.md"
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- keys: generated -->\n", "<!-- end of keys -->"
	head, rest, ok1 := strings.Cut(string(old), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("the markers are gone")
	}
	var b strings.Builder
	if err := WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	if want := head + begin + b.String() + end + tail; want != string(old) {
		if os.Getenv("UPDATE_DOCS") == "" {
			t.Fatal("docs/configuration.md is out of date: run UPDATE_DOCS=1 go test ./internal/config")
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	c := Default()
	if err := c.Set("cohort_admin_password", "hunter2", FromFlag); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil || strings.Contains(b.String(), "hunter2") || !strings.Contains(b.String(), "cohort_admin_password=********") {
		t.Errorf("%v: %s", err, b.String())
	}
	if err := c.Set("cohort_admin_password", "hunter2\x00", FromFlag); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}

func sameValues(a, b *Config) bool {
	for _, k := range Keys() {
		if a.text(k) != b.text(k) {
			return false
		}
	}
	return true
}

func TestQuoteRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := rapid.StringMatching(`[a-z \\#'"\t=;\[\]!\n]{0,12}`).Draw(r, "s")
		c := Default()
		if err := c.ReadFile(strings.NewReader("[cohort]\ncohort_admin_password = "+quote(s)+"\n"), "t"); err != nil || c.AdminPassword != s {
			r.Fatalf("%q became %q: %v", s, c.AdminPassword, err)
		}
	})
}

func FuzzFile(f *testing.F) {
	f.Add(good)
	f.Add("[cohort]\ncohort_data_dir=\"\\")
	f.Add("[cohort]\ngroup_replication_transaction_size_limit=-1E")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "!include") {
			t.Skip("no files but the one given")
		}
		c := Default()
		if c.ReadFile(strings.NewReader(text), "f") != nil {
			return
		}
		c.Validate()
		if c.AdminPassword != "" {
			return // is printed as asterisks
		}
		var b bytes.Buffer
		c.WriteTo(&b)
		again := Default()
		if err := again.ReadFile(&b, "again"); err != nil || !sameValues(c, again) {
			t.Fatalf("printed and read again: %v", err)
		}
	})
}
