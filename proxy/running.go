package proxy

import (
	"bytes"
	"strings"

	"cohort/internal/mysqlversion"
	"cohort/internal/wire"
	"cohort/sqlparse"
)

const erGroupRunning = 3093

// ownChannel is the one by which a member feeds its mysqld.
const ownChannel = "cohort_applier"

// whileRunning is why MySQL refuses a statement on a member of a group that runs, nil
// where it does not.
func (s *session) whileRunning(q *stmt) *wire.ServerError {
	switch {
	case s.backend.Epoch == 0: // this member is out of the group
		return nil
	case q.st.Has(sqlparse.FlagForbidden):
		for _, a := range sqlparse.Assignments(q.text, s.mode) {
			if e := settingWhileRunning(strings.ToLower(a.Name), a.Value.Of(q.text)); e != nil {
				return e
			}
		}
		return nil
	case q.st.Class == sqlparse.Maintenance, q.st.Class == sqlparse.Read && len(q.text) > 4 && bytes.EqualFold(q.text[:4], []byte("SHOW")):
	default:
		return nil
	}
	words := upperWords(q.text, s.mode)
	switch words[0] {
	case "RESET":
		if word(words, 1) == "MASTER" || word(words, 1) == "BINARY" {
			return wire.NewError(erResetLogs, "HY000", "%s is not allowed because Group Replication is running.", mysqlversion.Version(s.mode.Version).ResetBinlogs())
		}
	case "INSTALL", "UNINSTALL":
		if word(words, 1) != "PLUGIN" || strings.Trim(word(words, 2), "`") != "GROUP_REPLICATION" {
			return nil
		}
		if words[0] == "INSTALL" {
			return wire.NewError(1125, "HY000", "Function 'group_replication' already exists")
		}
		return wire.NewError(1883, "HY000", "Plugin 'group_replication' cannot be uninstalled now. Plugin is busy, it cannot be uninstalled. To force a stop run STOP GROUP_REPLICATION and then UNINSTALL PLUGIN group_replication.")
	}
	return channelWhileRunning(words)
}

// settingWhileRunning is the same for an assignment that clients may never make.
func settingWhileRunning(name string, value []byte) *wire.ServerError {
	v := strings.ToUpper(strings.Trim(string(value), "'\""))
	switch name {
	case "gtid_purged":
		return wire.NewError(3911, "HY000", "Cannot update GTID_PURGED with the Group Replication plugin running")
	case "gtid_mode":
		switch v {
		case "ON_PERMISSIVE", "2":
			return wire.NewError(3111, "HY000", "SET @@GLOBAL.GTID_MODE = ON_PERMISSIVE is not allowed because group replication requires @@GLOBAL.GTID_MODE=ON.")
		case "OFF", "OFF_PERMISSIVE", "0", "1":
			return wire.NewError(1788, "HY000", "The value of @@GLOBAL.GTID_MODE can only be changed one step at a time: OFF <-> OFF_PERMISSIVE <-> ON_PERMISSIVE <-> ON. Also note that this value must be stepped up or down simultaneously on all servers. See the Manual for instructions.")
		}
	case "default_table_encryption":
		return wire.NewError(erGroupRunning, "HY000", "The default_table_encryption option cannot be changed when Group replication is running.")
	}
	return nil
}

// channelWhileRunning is the same for a statement about one of the group's two
// channels. What MySQL lets pass for group_replication_recovery, the credentials that
// a group of the plugin needs, passes.
func channelWhileRunning(words []string) *wire.ServerError {
	n := len(words)
	if n < 5 || words[n-3] != "FOR" || words[n-2] != "CHANNEL" {
		return nil
	}
	channel := strings.ToLower(strings.Trim(words[n-1], "'\""))
	applier := channel == "group_replication_applier" || channel == ownChannel
	if !applier && channel != "group_replication_recovery" {
		return nil
	}
	refused := func(what string) *wire.ServerError {
		return wire.NewError(3139, "HY000", "%s cannot be performed on channel '%s'.", what, channel)
	}
	verb, replica := words[0], words[1] == "REPLICA" || words[1] == "SLAVE"
	switch {
	case (verb == "START" || verb == "STOP") && replica:
		thread := strings.TrimSuffix(words[2], ",")
		switch {
		case thread == "SQL_THREAD" && applier:
			return refused(verb + " REPLICA FOR CHANNEL while Group Replication is running")
		case thread == "SQL_THREAD", thread == "IO_THREAD":
			return refused(verb + " REPLICA " + thread + " FOR CHANNEL")
		}
		return refused(verb + " REPLICA FOR CHANNEL")
	case !applier && verb != "CHANGE":
	case verb == "SHOW" && replica && words[2] == "STATUS":
		return refused("SHOW REPLICA STATUS")
	case verb == "RESET" && replica:
		return refused("RESET REPLICA [ALL] FOR CHANNEL")
	case verb == "CHANGE" && words[2] == "FILTER":
		return refused("CHANGE REPLICATION FILTER")
	case verb == "CHANGE" && applier && (words[2] == "SOURCE" || words[1] == "MASTER"):
		if o := words[4]; o != "PRIVILEGE_CHECKS_USER" && o != "REQUIRE_TABLE_PRIMARY_KEY_CHECK" {
			return refused("CHANGE REPLICATION SOURCE with the given parameters")
		}
		return wire.NewError(3960, "HY000", "This operation cannot be performed while Group Replication is running; run STOP GROUP_REPLICATION first")
	}
	return nil
}

// upperWords are the tokens of a statement that are no operators, in upper case; at
// least one.
func upperWords(text []byte, mode sqlparse.Mode) []string {
	sc := sqlparse.NewScanner(text, mode)
	var list []string
	for t := sc.Next(); t.Kind != sqlparse.EOF && t.Kind != sqlparse.Semi && t.Kind != sqlparse.Bad; t = sc.Next() {
		if t.Kind != sqlparse.Op {
			list = append(list, strings.ToUpper(string(sc.Text(t))))
		}
	}
	if len(list) == 0 {
		return []string{""}
	}
	return list
}

func word(words []string, i int) string {
	if i < len(words) {
		return words[i]
	}
	return ""
}
