package config

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// maxInclude bounds !include nesting, as MySQL's programs do, so that a file
// that includes itself ends in an error.
const maxInclude = 10

// ReadFile reads r in my.cnf syntax: [sections], key=value, # and ; comments,
// quotes, escapes, !include and !includedir. Only [cohort] is read; other
// sections belong to other programs. name is used in errors and to resolve
// nothing: included paths are taken as written. A file without a [cohort]
// section is an error, since it is surely the wrong one.
func (c *Config) ReadFile(r io.Reader, name string) error {
	found, err := c.readFile(r, name, 0)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("config: %s: %w: no section [cohort]", name, ErrSyntax)
	}
	return nil
}

func (c *Config) readFile(r io.Reader, name string, depth int) (found bool, err error) {
	at := func(line int, err error) error { return fmt.Errorf("config: %s:%d: %w", name, line, err) }
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), 64<<10)
	section, number := "", 0
	for sc.Scan() {
		number++
		text := sc.Text()
		if number == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		line := strings.TrimSpace(text)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '!':
			ok, err := c.include(line, depth)
			if err != nil {
				return found, at(number, err)
			}
			found = found || ok
		case line[0] == '[':
			end := strings.IndexByte(line, ']')
			if end < 0 {
				return found, at(number, fmt.Errorf("%w: '[' without ']'", ErrSyntax))
			}
			section = strings.TrimSpace(line[1:end])
			found = found || section == "cohort"
		case section == "":
			return found, at(number, fmt.Errorf("%w: option before the first section; write [cohort] above it", ErrSyntax))
		case section == "cohort":
			key, value, bare, err := splitOption(line)
			if err != nil {
				return found, at(number, err)
			}
			if err := c.setOption(key, value, bare, FromFile); err != nil {
				return found, at(number, err)
			}
		}
	}
	if err := sc.Err(); err != nil {
		return found, at(number+1, fmt.Errorf("%w: %w", ErrSyntax, err))
	}
	return found, nil
}

// include follows one !include or !includedir line.
func (c *Config) include(line string, depth int) (found bool, err error) {
	word, path, _ := strings.Cut(line[1:], " ")
	path = strings.TrimSpace(path)
	if path == "" || word != "include" && word != "includedir" {
		return false, fmt.Errorf("%w: %q is neither !include FILE nor !includedir DIRECTORY", ErrSyntax, line)
	}
	if depth == maxInclude {
		return false, fmt.Errorf("%w: more than %d files include each other", ErrSyntax, maxInclude)
	}
	paths := []string{path}
	if word == "includedir" {
		if paths, err = filepath.Glob(filepath.Join(path, "*.cnf")); err != nil {
			return false, fmt.Errorf("%w: %w", ErrSyntax, err)
		}
		sort.Strings(paths)
	}
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return found, err
		}
		ok, err := c.readFile(f, p, depth+1)
		f.Close()
		if err != nil {
			return found, err
		}
		found = found || ok
	}
	return found, nil
}

// splitOption takes "key = value  # comment" apart.
func splitOption(line string) (key, value string, bare bool, err error) {
	i := strings.IndexAny(line, "=#")
	if i < 0 || line[i] == '#' {
		if i >= 0 {
			line = line[:i]
		}
		return strings.TrimSpace(line), "", true, nil
	}
	key = strings.TrimSpace(line[:i])
	value, err = unquote(strings.TrimSpace(line[i+1:]))
	return key, value, false, err
}

// unquote removes an end-of-line comment, then quotes, then resolves the
// escapes that option files know (\b \t \n \r \\ \s and a quote). A '#' begins
// a comment only outside quotes and after white space.
func unquote(s string) (string, error) {
	var quoteChar byte
	if s != "" && (s[0] == '\'' || s[0] == '"') {
		quoteChar, s = s[0], s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		ch := s[i]
		switch {
		case ch == '\\' && i+1 < len(s):
			i++
			if e := strings.IndexByte(`btnr\s'"`, s[i]); e >= 0 {
				b.WriteByte("\b\t\n\r\\ '\""[e])
			} else {
				b.WriteByte('\\')
				b.WriteByte(s[i])
			}
		case quoteChar != 0 && ch == quoteChar:
			rest := strings.TrimSpace(s[i+1:])
			if rest != "" && rest[0] != '#' {
				return "", fmt.Errorf("%w: text after the closing quote", ErrSyntax)
			}
			return b.String(), nil
		case quoteChar == 0 && ch == '#' && (i == 0 || s[i-1] == ' ' || s[i-1] == '\t'):
			return strings.TrimRight(b.String(), " \t"), nil
		default:
			b.WriteByte(ch)
		}
	}
	if quoteChar != 0 {
		return "", fmt.Errorf("%w: the closing quote is missing", ErrSyntax)
	}
	return b.String(), nil
}

// quote writes s so that unquote gives it back.
func quote(s string) string {
	if s == "" || strings.Trim(s, " \t") == s && !strings.ContainsAny(s, "\\#'\"\b\n\r") {
		return s
	}
	return `"` + strings.NewReplacer("\\", `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\b", `\b`).Replace(s) + `"`
}
