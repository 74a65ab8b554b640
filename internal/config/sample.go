package config

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"strings"
	"sync"
)

// The descriptions of the keys are the comments of Config itself, read from its
// source, so that file, manual and code cannot say different things.
//
//go:embed keys.go
var keysSource string

var descriptions = sync.OnceValue(func() map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "keys.go", keysSource, parser.ParseComments)
	if err != nil {
		panic("config: " + err.Error()) // it compiled, so it parses
	}
	out := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if f, ok := n.(*ast.Field); ok && f.Doc != nil && len(f.Names) == 1 {
			text := strings.Join(strings.Fields(f.Doc.Text()), " ")
			out[f.Names[0].Name] = strings.TrimPrefix(text, f.Names[0].Name+": ")
		}
		return true
	})
	return out
})

// Description is the key's description, one paragraph.
func (k Key) Description() string { return descriptions()[k.Field] }

func (k Key) facts() string {
	unit := ""
	if k.Unit != "" {
		unit = " " + k.Unit
	}
	live := "needs a restart of the member"
	if k.Live {
		live = "may change at run time"
	}
	return fmt.Sprintf("Accepts: %s%s. Default: %s. Change: %s.", k.Range(), unit, k.defaultText(), live)
}

func (k Key) defaultText() string {
	if k.Default == "" {
		return "empty"
	}
	return k.Default
}

func (k Key) laterText() string {
	switch {
	case k.Later == "":
		return ""
	case strings.HasPrefix(k.Later, "nothing"):
		return "Has no effect (accepted so that a file can be moved over)."
	}
	if k.Effective != nil {
		return "Of these values " + strings.Join(k.Effective, " and ") + " have an effect; the others are checked, and come with " + k.Later + "."
	}
	return "Checked, but without effect yet: it comes with " + k.Later + "."
}

// WriteSample prints a configuration file with every key, its description and
// its default. Keys that must be given are shown with example values, commented
// out like the rest, so that the sample as printed changes nothing.
func WriteSample(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# A member's configuration, with every key at its default.\n" +
		"# The environment (COHORT_KEY) overrides this file, and flags (--key=value)\n" +
		"# override both.\n[cohort]\n")
	for _, k := range Keys() {
		b.WriteString("\n")
		for _, part := range []string{k.Description(), k.facts(), k.laterText()} {
			wrap(&b, "# ", part, 78)
		}
		value := k.Default
		if e := examples[k.Name]; e != "" {
			value = e
		}
		b.WriteString(strings.TrimRight("#"+k.Name+" = "+quote(value), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var examples = map[string]string{
	"group_replication_group_name":    "7a1e2a4c-5d2f-4f0f-9a53-0c6f1d9b8e11",
	"group_replication_local_address": "db1.example.com:33061",
	"group_replication_group_seeds":   "db1.example.com:33061,db2.example.com:33061,db3.example.com:33061",
	"cohort_mysqld_socket":            "/run/mysqld/mysqld.sock",
	"cohort_data_dir":                 "/var/lib/cohort",
}

// WriteTable prints the keys as a Markdown table for the manual.
func WriteTable(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| key | accepts | default | run time | meaning |\n|---|---|---|---|---|\n")
	for _, k := range Keys() {
		accepts, live := k.Range(), "no"
		if k.Unit != "" {
			accepts += " " + k.Unit
		}
		if k.Live {
			live = "yes"
		}
		meaning := k.Description()
		if t := k.laterText(); t != "" {
			meaning += " *" + t + "*"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.Name, accepts, k.defaultText(), live, meaning)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap writes text as lines of at most width columns, each behind prefix.
func wrap(b *strings.Builder, prefix, text string, width int) {
	col := 0
	for _, word := range strings.Fields(text) {
		if col > 0 && col+1+len(word) > width {
			b.WriteString("\n")
			col = 0
		}
		if col == 0 {
			b.WriteString(prefix)
			col = len(prefix)
		} else {
			b.WriteString(" ")
			col++
		}
		b.WriteString(word)
		col += len(word)
	}
	if col > 0 {
		b.WriteString("\n")
	}
}
