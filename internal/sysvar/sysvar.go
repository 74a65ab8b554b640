// Package sysvar owns what a SET of a group_replication variable may assign
// while the member runs: types, ranges and errors as MySQL has them. It never
// changes anything itself.
package sysvar

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"

	"cohort/internal/config"
	"cohort/internal/wire"
)

// Kind is the type of a Value as MySQL tells types apart when it checks
// arguments and assignments.
type Kind uint8

// Kinds of values.
const (
	Null Kind = iota
	Default
	Int
	Decimal
	String
)

// Value is an argument of a function or what a variable is set to.
type Value struct {
	Kind Kind
	// Text is the value, "NULL" for NULL.
	Text string
}

// Var is one variable.
type Var struct{ key config.Key }

// Prefix is that of all variables of the group.
const Prefix = "group_replication_"

// Find returns the variable called name (lower case).
func Find(name string) (Var, bool) {
	if !strings.HasPrefix(name, Prefix) {
		return Var{}, false
	}
	i := slices.IndexFunc(config.Keys(), func(k config.Key) bool { return k.Name == name })
	if i < 0 {
		return Var{}, false
	}
	return Var{config.Keys()[i]}, true
}

// Names are all variables, sorted.
func Names() []string {
	var names []string
	for _, k := range config.Keys() {
		if strings.HasPrefix(k.Name, Prefix) {
			names = append(names, k.Name)
		}
	}
	slices.Sort(names)
	return names
}

// HasSession reports whether sessions have a value of their own.
func (v Var) HasSession() bool { return v.key.Name == "group_replication_consistency" }

// Persistent reports whether MySQL lets SET PERSIST store it.
func (v Var) Persistent() bool { return v.key.Name != "group_replication_force_members" }

// Later says what must exist before a value has an effect, "" if it has one.
func (v Var) Later() string { return v.key.Later }

// HasEffect reports whether a value that Check returned has an effect.
func (v Var) HasEffect(text string) bool { return v.key.HasEffect(text) }

func (v Var) number() bool { return v.key.Max > 0 }

func (v Var) boolean() bool {
	return v.key.Words == nil && !v.number() && (v.key.Default == "ON" || v.key.Default == "OFF")
}

func wrongType(name string) error {
	return wire.NewError(1232, "42000", "Incorrect argument type to variable '%s'", name)
}

func cannot(name, value string) error {
	return wire.NewError(1231, "42000", "Variable '%s' can't be set to the value of '%s'", name, value)
}

// Check returns the text of the value that x stands for, or MySQL's error.
// Numbers that MySQL clamps are clamped.
func (v Var) Check(x Value) (string, error) {
	name := v.key.Name
	switch {
	case x.Kind == Default && (name == "group_replication_single_primary_mode" || name == "group_replication_enforce_update_everywhere_checks"):
		return "", cannot(name, "DEFAULT")
	case x.Kind == Default:
		return v.key.Default, nil
	case v.number():
		if x.Kind != Int {
			return "", wrongType(name)
		}
		return v.checkNumber(x.Text)
	case v.boolean() || v.key.Words != nil:
		switch x.Kind {
		case Null:
			return "", cannot(name, "NULL")
		case Decimal:
			return "", wrongType(name)
		}
	case x.Kind == Null:
		x.Text = ""
	case x.Kind != String:
		return "", wrongType(name)
	}
	if name == "group_replication_advertise_recovery_endpoints" {
		if err := badEndpoint(x.Text); err != nil {
			return "", err
		}
	}
	return v.parse(x.Text)
}

// parse has the configuration check a text.
func (v Var) parse(text string) (string, error) {
	c := config.Default()
	if err := c.Set(v.key.Name, text, config.FromFlag); err != nil {
		if bad, ok := errors.AsType[*config.ValueError](err); ok {
			return "", wire.NewError(bad.Number, bad.State, "%s", bad.Text)
		}
		return "", err
	}
	return c.Get(v.key.Name)
}

// ranged are the numbers outside of whose range the plugin refuses, with a text
// of its own (true) or the usual one; others are clamped.
var ranged = map[string]bool{
	"group_replication_member_expel_timeout":            false,
	"group_replication_autorejoin_tries":                false,
	"group_replication_clone_threshold":                 true,
	"group_replication_compression_threshold":           true,
	"group_replication_communication_max_message_size":  true,
	"group_replication_gtid_assignment_block_size":      true,
	"group_replication_message_cache_size":              true,
	"group_replication_auto_increment_increment":        true,
	"group_replication_recovery_zstd_compression_level": true,
}

// silent are the numbers that the plugin clamps without a warning.
var silent = map[string]bool{
	"group_replication_member_weight":                true,
	"group_replication_unreachable_majority_timeout": true,
	"group_replication_recovery_retry_count":         true,
	"group_replication_recovery_reconnect_interval":  true,
	"group_replication_components_stop_timeout":      true,
}

// Truncated is the text of MySQL's warning 1292 that comes with a number which Check
// has clamped to text, "" for none.
func (v Var) Truncated(x Value, text string) string {
	if !v.number() || x.Kind != Int || silent[v.key.Name] || strings.TrimLeft(x.Text, "0") == strings.TrimLeft(text, "0") {
		return ""
	}
	return "Truncated incorrect " + v.key.Name + " value: '" + x.Text + "'"
}

func (v Var) checkNumber(text string) (string, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err == nil && n >= v.key.Min && n <= v.key.Max {
		return strconv.FormatUint(n, 10), nil
	}
	own, refuses := ranged[v.key.Name]
	switch {
	case refuses && own:
		return v.parse(text)
	case refuses:
		return "", cannot(v.key.Name, text)
	case strings.HasPrefix(text, "-") || n < v.key.Min && err == nil:
		return strconv.FormatUint(v.key.Min, 10), nil
	}
	return strconv.FormatUint(v.key.Max, 10), nil
}

// erRunning is ER_GROUP_REPLICATION_RUNNING, which the plugin uses with texts of
// its own.
const erRunning = 3093

// running are the texts with which the plugin refuses a change while it runs.
var running = map[string]string{
	"group_replication_group_name":                       "The group_replication_group_name cannot be changed when Group Replication is running",
	"group_replication_auto_increment_increment":         "The group group_replication_auto_increment_increment cannot be changed when Group Replication is running",
	"group_replication_compression_threshold":            "The group_replication_compression_threshold cannot be set while Group Replication is running",
	"group_replication_communication_max_message_size":   "The group_replication_communication_max_message_size option cannot be set while Group Replication is running",
	"group_replication_gtid_assignment_block_size":       "The group_replication_gtid_assignment_block size cannot be set while Group Replication is running",
	"group_replication_preemptive_garbage_collection":    "The group_replication_preemptive_garbage_collection cannot be changed when Group Replication is running",
	"group_replication_view_change_uuid":                 "The group_replication_view_change_uuid cannot be changed when Group Replication is running",
	"group_replication_single_primary_mode":              "Cannot modify group replication mode by changing group_replication_single_primary_mode system variable. Please use the group_replication_switch_to_single_primary_mode([member_uuid]) OR group_replication_switch_to_multi_primary_mode() UDF.",
	"group_replication_enforce_update_everywhere_checks": "Cannot turn ON/OFF group_replication_enforce_update_everywhere_checks mode while Group Replication is running.",
}

// Fixed is the plugin's refusal of any change while it runs, nil if it has none.
func (v Var) Fixed() error {
	if refusal, ok := running[v.key.Name]; ok {
		return wire.NewError(erRunning, "HY000", "%s", refusal)
	}
	return nil
}

// Unchangeable is why a new value of the variable cannot take effect in a process that
// runs.
func (v Var) Unchangeable(text string) error {
	name := v.key.Name
	switch {
	case strings.HasPrefix(v.key.Later, "nothing"):
		return Unsupported("SET of %s: it has no meaning in a group of cohort members", name)
	case v.key.Later != "":
		return Unsupported("SET of %s: it has no effect before there is: %s", name, v.key.Later)
	}
	return Unsupported("SET of %s while the member's process runs: SET PERSIST_ONLY, or change its configuration, and start it again", name)
}

// badEndpoint is the plugin's refusal of a list of recovery endpoints, nil for one that
// it takes.
func badEndpoint(list string) error {
	if strings.EqualFold(list, "DEFAULT") {
		return nil
	}
	for e := range strings.SplitSeq(list, ",") {
		_, port, err := net.SplitHostPort(e)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 {
			return wire.NewError(3976, "HY000", "Variable 'group_replication_advertise_recovery_endpoints' cannot be set to the value of '%s'. Invalid value on recovery endpoint '%s'.", list, e)
		}
	}
	return nil
}

// Unsupported is the error for what MySQL can do and cohort cannot.
func Unsupported(format string, args ...any) error {
	what := wire.NewError(0, "", format, args...).Message
	return wire.NewError(1235, "42000", "This version of MySQL doesn't yet support '%s'", what)
}
