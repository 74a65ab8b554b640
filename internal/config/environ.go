package config

import (
	"fmt"
	"strings"
)

// EnvName returns the environment variable that overrides k: the key in upper
// case behind COHORT_, which is not doubled.
func (k Key) EnvName() string {
	return "COHORT_" + strings.ToUpper(strings.TrimPrefix(k.Name, "cohort_"))
}

// ReadEnviron takes values from environ ("NAME=value", as os.Environ gives it).
//
// The name space is shared: container platforms and build scripts put variables
// of their own behind the same prefix. So an unknown name is an error when it
// surely was meant for us (COHORT_GROUP_REPLICATION_…, or at most two edits away
// from a known one), and otherwise a warning for the log.
func (c *Config) ReadEnviron(environ []string) (warnings []string, err error) {
	names := map[string]Key{}
	for _, k := range Keys() {
		names[k.EnvName()] = k
	}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "COHORT_") {
			continue
		}
		if k, ok := names[name]; ok {
			if err := c.Set(k.Name, value, FromEnvironment); err != nil {
				return warnings, fmt.Errorf("config: environment %s: %w", name, err)
			}
			continue
		}
		if len(name) > maxName {
			warnings = append(warnings, fmt.Sprintf("environment variable %.*s… is no key of the configuration and is ignored", maxName, name))
			continue
		}
		near, edits := nearestEnv(name, names)
		if edits <= 2 || strings.HasPrefix(name, "COHORT_GROUP_REPLICATION_") {
			return warnings, fmt.Errorf("config: environment: %w '%s'; did you mean '%s'?", ErrUnknownKey, name, near)
		}
		warnings = append(warnings, fmt.Sprintf("environment variable %s is no key of the configuration and is ignored", name))
	}
	return warnings, nil
}

func nearestEnv(name string, names map[string]Key) (string, int) {
	best, least := "", 1<<30
	for n := range names {
		if d := distance(name, n); d < least || d == least && n < best {
			best, least = n, d
		}
	}
	return best, least
}
