package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Key describes one key, as read from Config's tags.
type Key struct {
	// Name is the key as written in the file, with underscores.
	Name string
	// Field is the name of its field in Config.
	Field string
	// Default is the default as text; "" means empty.
	Default string
	// Min and Max bound a number, inclusive, counted in Unit.
	Min, Max uint64
	// Unit is what a number counts ("bytes", "seconds", …); "" for the rest.
	Unit string
	// Words are the accepted words of an enumeration.
	Words []string
	// Live is whether the value may change while the member is in a group.
	Live bool
	// Later names what must arrive before the key has an effect; "" if it has one.
	// Effective are the values that have theirs all the same.
	Later     string
	Effective []string
	// Secret values are never printed.
	Secret bool

	kind  kind
	check string
	index int
}

type kind int

const (
	kindString kind = iota
	kindBool
	kindUint
	kindSeconds
	kindList
	kindEnum
)

// Keys returns all keys in the order of the struct. Callers must not change it.
func Keys() []Key { return keys() }

var keys = sync.OnceValue(func() []Key {
	t := reflect.TypeFor[Config]()
	var out []Key
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("key")
		if name == "" {
			continue
		}
		k := Key{
			Name: name, Field: f.Name, Default: f.Tag.Get("def"), Unit: f.Tag.Get("unit"),
			Live: f.Tag.Get("live") == "yes", Later: f.Tag.Get("later"), Secret: f.Tag.Get("secret") == "yes",
			check: f.Tag.Get("kind"), index: i,
		}
		k.Min, _ = strconv.ParseUint(f.Tag.Get("min"), 10, 64)
		k.Max, _ = strconv.ParseUint(f.Tag.Get("max"), 10, 64)
		if e := f.Tag.Get("enum"); e != "" {
			k.Words = strings.Split(e, ",")
		}
		if e := f.Tag.Get("effective"); e != "" {
			k.Effective = strings.Split(e, ",")
		}
		switch {
		case f.Type == reflect.TypeFor[time.Duration]():
			k.kind = kindSeconds
		case f.Type.Kind() == reflect.Bool:
			k.kind = kindBool
		case f.Type.Kind() == reflect.Uint64:
			k.kind = kindUint
		case f.Type.Kind() == reflect.Slice:
			k.kind = kindList
		case k.Words != nil:
			k.kind = kindEnum
		}
		out = append(out, k)
	}
	return out
})

// HasEffect reports whether a value of the key, as Get returns it, has an effect.
func (k Key) HasEffect(value string) bool {
	return k.Later == "" || slices.Contains(k.Effective, value)
}

// Range describes the accepted values for people.
func (k Key) Range() string {
	switch k.kind {
	case kindBool:
		return "ON or OFF"
	case kindUint, kindSeconds:
		return fmt.Sprintf("%d to %d", k.Min, k.Max)
	case kindEnum:
		return strings.Join(k.Words, ", ")
	}
	switch k.check {
	case "uuid":
		return "a UUID"
	case "hostport", "listen":
		return "host:port"
	case "hostports":
		return "host:port,host:port,…"
	case "path":
		return "a path"
	case "allowlist":
		return "AUTOMATIC, or addresses and networks"
	case "compression":
		return "zlib, zstd, uncompressed"
	}
	return "text"
}

// Get returns key's present value as text; a secret is returned as asterisks.
func (c *Config) Get(key string) (string, error) {
	k, err := find(key)
	if err != nil {
		return "", err
	}
	return c.text(k), nil
}

func (c *Config) text(k Key) string {
	v := reflect.ValueOf(c).Elem().Field(k.index)
	switch k.kind {
	case kindBool:
		if v.Bool() {
			return "ON"
		}
		return "OFF"
	case kindUint:
		return strconv.FormatUint(v.Uint(), 10)
	case kindSeconds:
		return strconv.FormatInt(int64(time.Duration(v.Int())/time.Second), 10)
	case kindList:
		return strings.Join(v.Interface().([]string), ",")
	}
	if k.Secret && v.String() != "" {
		return "********"
	}
	return v.String()
}

// canonical is how a key is compared: lower case, underscores.
func canonical(name string) string {
	return strings.ToLower(strings.ReplaceAll(name, "-", "_"))
}

// maxName is the longest name, in bytes, for which a nearest key is looked for.
const maxName = 100

// find looks a key up; for an unknown one the error names the nearest.
func find(name string) (Key, error) {
	c := canonical(name)
	i := slices.IndexFunc(keys(), func(k Key) bool { return k.Name == c })
	if i >= 0 {
		return keys()[i], nil
	}
	if len(name) > maxName { // no slip of a finger, and costly to compare
		return Key{}, fmt.Errorf("%w '%.*s…'", ErrUnknownKey, maxName, name)
	}
	near, _ := nearest(c)
	return Key{}, fmt.Errorf("%w '%s'; did you mean '%s'?", ErrUnknownKey, name, near)
}

// nearest returns the key that takes the fewest edits from name, and how many.
// Names given without their prefix are compared without it too.
func nearest(name string) (string, int) {
	best, least := "", 1<<30
	for _, k := range keys() {
		for _, prefix := range []string{"", "cohort_", "group_replication_"} {
			short, ok := strings.CutPrefix(k.Name, prefix)
			if !ok {
				continue
			}
			if d := distance(name, short); d < least {
				best, least = k.Name, d
			}
		}
	}
	return best, least
}

// distance is Levenshtein's edit distance (V. Levenshtein, 1966), over bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
