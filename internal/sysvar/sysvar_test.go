package sysvar

import (
	"errors"
	"fmt"
	"testing"

	"cohort/internal/config"
	"cohort/internal/wire"
)

func say(text string, err error) string {
	if e, ok := errors.AsType[*wire.ServerError](err); ok {
		return fmt.Sprintf("%d/%s %s", e.Code, e.State, e.Message)
	}
	if err != nil {
		return err.Error()
	}
	return text
}

// The answers of the group_replication plugin of 9.7.4, the prefix left out.
func TestCheck(t *testing.T) {
	cannot := func(name, v string) string {
		return "1231/42000 Variable 'group_replication_" + name + "' can't be set to the value of '" + v + "'"
	}
	typ := func(name string) string {
		return "1232/42000 Incorrect argument type to variable 'group_replication_" + name + "'"
	}
	for _, c := range []struct {
		name string
		v    Value
		want string
	}{
		{"member_weight", Value{Int, "70"}, "70"},
		{"member_weight", Value{Int, "101"}, "100"},
		{"member_weight", Value{Int, "-1"}, "0"},
		{"member_weight", Value{Int, "99999999999999999999999"}, "100"},
		{"member_weight", Value{Default, ""}, "50"},
		{"member_weight", Value{String, "x"}, typ("member_weight")},
		{"member_weight", Value{Null, "NULL"}, typ("member_weight")},
		{"member_weight", Value{Decimal, "40.1"}, typ("member_weight")},
		{"member_expel_timeout", Value{Int, "3600"}, "3600"},
		{"member_expel_timeout", Value{Int, "3601"}, cannot("member_expel_timeout", "3601")},
		{"member_expel_timeout", Value{Int, "-1"}, cannot("member_expel_timeout", "-1")},
		{"member_expel_timeout", Value{String, "1"}, typ("member_expel_timeout")},
		{"autorejoin_tries", Value{Int, "2017"}, cannot("autorejoin_tries", "2017")},
		{"unreachable_majority_timeout", Value{Int, "31536001"}, "31536000"},
		{"exit_state_action", Value{String, "abort_server"}, "ABORT_SERVER"},
		{"exit_state_action", Value{Int, "0"}, "READ_ONLY"},
		{"exit_state_action", Value{String, "abort"}, cannot("exit_state_action", "abort")},
		{"exit_state_action", Value{Int, "42"}, cannot("exit_state_action", "42")},
		{"exit_state_action", Value{Decimal, "1.0"}, typ("exit_state_action")},
		{"exit_state_action", Value{Null, "NULL"}, cannot("exit_state_action", "NULL")},
		{"consistency", Value{Int, "4"}, "BEFORE_AND_AFTER"},
		{"consistency", Value{Int, "5"}, cannot("consistency", "5")},
		{"consistency", Value{String, "B"}, cannot("consistency", "B")},
		{"consistency", Value{String, ""}, cannot("consistency", "")},
		{"consistency", Value{Decimal, "1.0"}, typ("consistency")},
		{"flow_control_mode", Value{Int, "5"}, cannot("flow_control_mode", "5")},
		{"start_on_boot", Value{String, "on"}, "ON"},
		{"start_on_boot", Value{Int, "0"}, "OFF"},
		{"start_on_boot", Value{Int, "2"}, cannot("start_on_boot", "2")},
		{"recovery_use_ssl", Value{Null, "NULL"}, cannot("recovery_use_ssl", "NULL")},
		{"group_name", Value{Int, "5"}, typ("group_name")},
		{"transaction_size_limit", Value{Int, "2147483648"}, "2147483647"},
		{"clone_threshold", Value{Int, "0"}, "1231/42000 The value 0 is not within the range of accepted values for the option group_replication_clone_threshold. The value must be between 1 and 9223372036854775807 inclusive."},
		{"message_cache_size", Value{Int, "1"}, "1231/42000 The value 1 is not within the range of accepted values for the option group_replication_message_cache_size. The value must be between 134217728 and 18446744073709551615 inclusive."},
	} {
		v, ok := Find(Prefix + c.name)
		if !ok {
			t.Errorf("no variable %s", c.name)
			continue
		}
		if got := say(v.Check(c.v)); got != c.want {
			t.Errorf("%s = %+v\n got %s\nwant %s", c.name, c.v, got, c.want)
		}
	}
	if _, ok := Find(Prefix + "nosuch"); ok {
		t.Error("found nosuch")
	}
}

// Every variable takes its default, and every refusal is an error for clients.
func TestAllVariables(t *testing.T) {
	def := config.Default()
	for _, name := range Names() {
		v, ok := Find(name)
		if !ok {
			t.Errorf("%s is not found", name)
			continue
		}
		text, err := v.Check(Value{Kind: Default})
		want, _ := def.Get(name)
		if name == "group_replication_single_primary_mode" || name == "group_replication_enforce_update_everywhere_checks" {
			// The plugin takes no DEFAULT for these.
			text, err, want = say(text, err), nil, "1231/42000 Variable '"+name+"' can't be set to the value of 'DEFAULT'"
		}
		if err != nil || text != want {
			t.Errorf("%s: default %q, want %q (%v)", name, text, want, err)
		}
		if _, ok := errors.AsType[*wire.ServerError](v.Unchangeable("x")); !ok {
			t.Errorf("%s: %v", name, v.Unchangeable("x"))
		}
	}
	if n := len(Names()); n != 60 {
		t.Errorf("%d variables; the plugin has 60", n)
	}
}

// The plugin clamps most numbers with a warning, and some without.
func TestTruncated(t *testing.T) {
	for _, c := range []struct{ name, given, text, want string }{
		{"flow_control_period", "61", "60", "Truncated incorrect group_replication_flow_control_period value: '61'"},
		{"flow_control_applier_threshold", "-1", "0", "Truncated incorrect group_replication_flow_control_applier_threshold value: '-1'"},
		{"flow_control_period", "060", "60", ""},
		{"flow_control_applier_threshold", "0", "0", ""},
		{"member_weight", "101", "100", ""},
		{"unreachable_majority_timeout", "-1", "0", ""},
	} {
		v, _ := Find(Prefix + c.name)
		x := Value{Int, c.given}
		if text, err := v.Check(x); err != nil || text != c.text || v.Truncated(x, text) != c.want {
			t.Errorf("%s = %s: %s, %q (%v)", c.name, c.given, text, v.Truncated(x, text), err)
		}
	}
}

func TestEndpoints(t *testing.T) {
	v, _ := Find(Prefix + "advertise_recovery_endpoints")
	for list, ok := range map[string]bool{"DEFAULT": true, "a:1,[::1]:65535": true, "127.0.0.1:0": false, "a": false, "a:1,": false, "a:65536": false} {
		_, err := v.Check(Value{String, list})
		if (err == nil) != ok || err != nil && wire.ErrorCode(err) != 3976 {
			t.Errorf("%s: %v", list, err)
		}
	}
}
