package uptime_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cohort/internal/uptime"
)

// wallClock are the places that drop the monotonic reading of a time, or make a time
// without one, by file, each with why a clock that is set does no harm there.
var wallClock = map[string]string{
	"cmd/cohort/tables.go":            "shown in SHOW STATUS",
	"internal/binlog/feed/session.go": "SELECT UNIX_TIMESTAMP() of a receiver, which shows Seconds_Behind_Source with it",
	"internal/logging/logging.go":     "shown in the log",
	"internal/wire/client.go":         "a deadline long past: ends what waits",
	"internal/wire/tls.go":            "NotAfter of the certificate that a member makes for its clients",
	"proxy/relay/accept.go":           "a deadline long past: ends what waits",
	"router/lease.go":                 "a lease ends by the monotonic clock or the other one, whichever is sooner",
	"internal/e2e":                    "tests",
	"internal/battery":                "tests",
	"internal/bench":                  "tests",
	"internal/failover":               "tests",
	"internal/loadgen":                "tests",
	"internal/grouptls/tlstest":       "tests",
}

// Nothing that is decided depends on a clock that can be set: times are compared by
// their monotonic readings, and members send each other durations.
func TestNoDecisionTakesTheWallClock(t *testing.T) {
	root := filepath.Join("..", "..")
	// By name, of any value: nothing else in the tree has methods that are called so.
	methods := []string{"Unix", "UnixNano", "UnixMicro", "UnixMilli", "UTC", "Local", "AddDate", "GobEncode"}
	functions := []string{"Date", "Parse", "ParseInLocation"}
	used := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"time"` }) {
			return nil
		}
		for at := name; at != "."; at = filepath.ToSlash(filepath.Dir(at)) {
			if wallClock[at] != "" {
				used[at] = true
				return nil
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			s, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			from, _ := s.X.(*ast.Ident)
			if slices.Contains(methods, s.Sel.Name) || from != nil && from.Name == "time" && slices.Contains(functions, s.Sel.Name) {
				t.Errorf("%s: %s: a clock that is set must decide nothing: compare time.Time of time.Now, or take uptime.Now", files.Position(s.Pos()), s.Sel.Name)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(wallClock)) {
		if !used[name] {
			t.Errorf("%s is listed and there is no such file that knows the time", name)
		}
	}
}

func TestNow(t *testing.T) {
	a := uptime.Now()
	if b := uptime.Now(); a <= 0 || b < a {
		t.Errorf("%d, then %d", a, b)
	}
}
