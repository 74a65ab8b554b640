// Package config owns what one member can be told: the keys, their ranges and
// defaults, and where their values come from. Later sources override earlier
// ones: defaults, then the file (my.cnf syntax, section [cohort]), then the
// environment, then flags.
//
// It must never guess: an unknown key or a bad value is an error that says what
// would have been right. It opens no file but the ones it is given, and prints
// no secret.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Sentinel errors; test with errors.Is.
var (
	// ErrUnknownKey is wrapped by every error about a name that is no key.
	ErrUnknownKey = errors.New("unknown key")
	// ErrBadValue is wrapped by every error about a value a key cannot take.
	ErrBadValue = errors.New("bad value")
	// ErrSyntax is wrapped by every error about the shape of a file or flag.
	ErrSyntax = errors.New("syntax error")
	// ErrIncomplete is wrapped by Validate's errors about keys that are missing
	// or contradict each other.
	ErrIncomplete = errors.New("configuration is not usable")
)

// Origin tells where a value came from.
type Origin string

// The sources, from weakest to strongest.
const (
	FromDefault     Origin = "default"
	FromFile        Origin = "file"
	FromEnvironment Origin = "environment"
	FromFlag        Origin = "flag"
	FromPersisted   Origin = "SET PERSIST"
)

// Default returns a configuration that holds every key's default.
func Default() *Config {
	c := &Config{explicit: map[string]Origin{}}
	for _, k := range Keys() {
		if k.Default == "" {
			continue
		}
		if err := c.assign(k, k.Default); err != nil {
			panic(fmt.Sprintf("config: the default of %s: %v", k.Name, err)) // a mistake in keys.go; a test visits all
		}
	}
	return c
}

// Set gives key (dashes and underscores are alike) the value written as text,
// as coming from origin. Errors: ErrUnknownKey, ErrBadValue (a *ValueError).
func (c *Config) Set(key, value string, origin Origin) error {
	k, err := find(key)
	if err != nil {
		return err
	}
	if err := c.assign(k, value); err != nil {
		return err
	}
	if c.explicit == nil {
		c.explicit = map[string]Origin{}
	}
	c.explicit[k.Name] = origin
	return nil
}

// OriginOf tells which source key's present value came from.
func (c *Config) OriginOf(key string) Origin {
	if o, ok := c.explicit[canonical(key)]; ok {
		return o
	}
	return FromDefault
}

// Deferred lists the keys that were given a value other than their default and
// have no effect yet; the caller is to log them, so that nobody relies on them.
func (c *Config) Deferred() []Key {
	def := Default()
	var out []Key
	for _, k := range Keys() {
		if text := c.text(k); !k.HasEffect(text) && c.explicit[k.Name] != "" && text != def.text(k) {
			out = append(out, k)
		}
	}
	return out
}

// Loaded is what Load found besides the configuration itself.
type Loaded struct {
	*Config
	// File is the configuration file that was read, "" if none.
	File string
	// PrintConfig is set by --print-config: print the sample and stop.
	PrintConfig bool
	// Help is set by --help or -h.
	Help bool
	// Warnings are for the log: variables that look like ours and are not.
	Warnings []string
}

// Load reads all sources in order of precedence: the defaults, the file named by
// --config or --defaults-file, environ (as os.Environ), then the flags in args
// (without the program's and subcommand's names). It does not Validate, so that
// --print-config works on an empty machine. Arguments that are no flags are
// errors.
func Load(args, environ []string) (*Loaded, error) {
	l := &Loaded{Config: Default()}
	flags, err := l.scan(args)
	if err != nil {
		return nil, err
	}
	if l.File != "" {
		f, err := os.Open(l.File)
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		defer f.Close()
		if err := l.ReadFile(f, l.File); err != nil {
			return nil, err
		}
	}
	if l.Warnings, err = l.ReadEnviron(environ); err != nil {
		return nil, err
	}
	for _, f := range flags {
		if err := l.setOption(f.name, f.value, f.bare, FromFlag); err != nil {
			return nil, fmt.Errorf("config: --%s: %w", f.name, err)
		}
	}
	return l, nil
}

type flag struct {
	name, value string
	bare        bool
}

// scan splits args into the few that Load itself understands and the keys.
func (l *Loaded) scan(args []string) ([]flag, error) {
	var flags []flag
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "-h" {
			a = "--help"
		}
		name, ok := strings.CutPrefix(a, "--")
		if !ok || name == "" {
			return nil, fmt.Errorf("config: %w: unexpected argument %q; give --key=value", ErrSyntax, a)
		}
		name, value, valued := strings.Cut(name, "=")
		switch name {
		case "help":
			l.Help = true
		case "print-config":
			l.PrintConfig = true
		case "config", "defaults-file":
			if !valued {
				if i++; i == len(args) {
					return nil, fmt.Errorf("config: %w: --%s needs a file", ErrSyntax, name)
				}
				value = args[i]
			}
			l.File = value
		default:
			flags = append(flags, flag{name, value, !valued})
		}
	}
	return flags, nil
}

// setOption is Set with the freedoms MySQL's option syntax takes: a boolean
// without a value is ON, and skip-, disable- and enable- before its name.
func (c *Config) setOption(name, value string, bare bool, origin Origin) error {
	key := canonical(name)
	if strings.HasPrefix(key, "loose_") {
		return fmt.Errorf("%w '%s': loose- is not supported, since unknown keys are errors here; write '%s'", ErrUnknownKey, name, key[len("loose_"):])
	}
	if bare {
		for prefix, v := range map[string]string{"skip_": "OFF", "disable_": "OFF", "enable_": "ON"} {
			if rest, ok := strings.CutPrefix(key, prefix); ok {
				if k, err := find(rest); err == nil && k.kind == kindBool {
					return c.Set(rest, v, origin)
				}
			}
		}
		k, err := find(key)
		if err != nil {
			return err
		}
		if k.kind != kindBool {
			return fmt.Errorf("%w: '%s' needs a value", ErrSyntax, k.Name)
		}
		value = "ON"
	}
	return c.Set(key, value, origin)
}

// WriteTo prints every key with its present value in file syntax, secrets as
// asterisks. It implements io.WriterTo.
func (c *Config) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	b.WriteString("[cohort]\n")
	for _, k := range Keys() {
		fmt.Fprintf(&b, "%s=%s\n", k.Name, quote(c.text(k)))
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}
