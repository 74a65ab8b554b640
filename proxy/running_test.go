package proxy

import (
	"fmt"
	"testing"

	"cohort/sqlparse"
)

// The refusals of a member of a group of the plugin's, 9.7.4.
func TestWhileRunning(t *testing.T) {
	const (
		applier  = " FOR CHANNEL 'group_replication_applier'"
		recovery = " FOR CHANNEL \"group_replication_recovery\""
	)
	cannot := func(what, channel string) string {
		return "3139 " + what + " cannot be performed on channel '" + channel + "'."
	}
	a := func(what string) string { return cannot(what, "group_replication_applier") }
	r := func(what string) string { return cannot(what, "group_replication_recovery") }
	const (
		purged    = "3911 Cannot update GTID_PURGED with the Group Replication plugin running"
		encrypted = "3093 The default_table_encryption option cannot be changed when Group replication is running."
		reset     = "3190 RESET BINARY LOGS AND GTIDS is not allowed because Group Replication is running."
		stopFirst = "3960 This operation cannot be performed while Group Replication is running; run STOP GROUP_REPLICATION first"
	)
	s := &session{backend: Backend{Epoch: 1}}
	for _, c := range []struct{ sql, want string }{
		{"STOP REPLICA" + applier, a("STOP REPLICA FOR CHANNEL")},
		{"start slave" + applier, a("START REPLICA FOR CHANNEL")},
		{"START REPLICA SQL_THREAD" + applier, a("START REPLICA FOR CHANNEL while Group Replication is running")},
		{"STOP REPLICA IO_THREAD, SQL_THREAD" + applier, a("STOP REPLICA IO_THREAD FOR CHANNEL")},
		{"START REPLICA UNTIL SQL_AFTER_GTIDS = 'x:1'" + applier, a("START REPLICA FOR CHANNEL")},
		{"STOP REPLICA SQL_THREAD" + recovery, r("STOP REPLICA SQL_THREAD FOR CHANNEL")},
		{"START REPLICA" + recovery, r("START REPLICA FOR CHANNEL")},
		{"SHOW REPLICA STATUS" + applier, a("SHOW REPLICA STATUS")},
		{"SHOW REPLICA STATUS" + recovery, ""},
		{"RESET REPLICA" + applier, a("RESET REPLICA [ALL] FOR CHANNEL")},
		{"RESET REPLICA ALL" + applier, a("RESET REPLICA [ALL] FOR CHANNEL")},
		{"RESET REPLICA ALL" + recovery, ""},
		{"CHANGE REPLICATION SOURCE TO SOURCE_HOST='x'" + applier, a("CHANGE REPLICATION SOURCE with the given parameters")},
		{"CHANGE REPLICATION SOURCE TO PRIVILEGE_CHECKS_USER=NULL" + applier, stopFirst},
		{"CHANGE REPLICATION SOURCE TO SOURCE_USER='x', SOURCE_PASSWORD='y'" + recovery, ""},
		{"CHANGE REPLICATION FILTER REPLICATE_DO_DB=(a)" + applier, a("CHANGE REPLICATION FILTER")},
		{"CHANGE REPLICATION FILTER REPLICATE_DO_DB=(a)" + recovery, r("CHANGE REPLICATION FILTER")},
		{"STOP REPLICA FOR CHANNEL 'other'", ""}, {"STOP REPLICA", ""}, {"SHOW TABLES", ""}, {"SHOW", ""}, {"CHANGE", ""}, {"FLUSH PRIVILEGES", ""},
		{"RESET MASTER", reset}, {"RESET BINARY LOGS AND GTIDS", reset}, {"RESET PERSIST", ""},
		{"SET GLOBAL gtid_purged = ''", purged},
		{"SET @a = 1, @@GLOBAL.GTID_PURGED = '+3e11fa47-71ca-11e1-9e33-c80aa9429562:1'", purged},
		{"SET PERSIST gtid_mode = on_permissive", "3111 SET @@GLOBAL.GTID_MODE = ON_PERMISSIVE is not allowed because group replication requires @@GLOBAL.GTID_MODE=ON."},
		{"SET GLOBAL gtid_mode = 'OFF'", "1788 The value of @@GLOBAL.GTID_MODE can only be changed one step at a time: OFF <-> OFF_PERMISSIVE <-> ON_PERMISSIVE <-> ON. Also note that this value must be stepped up or down simultaneously on all servers. See the Manual for instructions."},
		{"SET GLOBAL gtid_mode = ON", ""}, {"SET gtid_next = 'automatic'", ""}, {"SET sql_log_bin = 0", ""},
		{"SET GLOBAL default_table_encryption = 1", encrypted}, {"SET @@persist.default_table_encryption = ON", encrypted}, {"SET default_table_encryption = 1", ""},
		{"INSTALL PLUGIN group_replication SONAME 'group_replication.so'", "1125 Function 'group_replication' already exists"},
		{"UNINSTALL PLUGIN `Group_Replication`", "1883 Plugin 'group_replication' cannot be uninstalled now. Plugin is busy, it cannot be uninstalled. To force a stop run STOP GROUP_REPLICATION and then UNINSTALL PLUGIN group_replication."},
		{"INSTALL PLUGIN x SONAME 'y'", ""}, {"INSTALL COMPONENT 'x'", ""}, {"SELECT 1", ""},
	} {
		text := []byte(c.sql)
		got := ""
		if e := s.whileRunning(&stmt{st: sqlparse.Classify(text, s.mode), text: text}); e != nil {
			got = fmt.Sprint(e.Code, " ", e.Message)
		}
		if got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.sql, got, c.want)
		}
	}
	old := &session{backend: Backend{Epoch: 1}, mode: sqlparse.Mode{Version: 80036}}
	words := []byte("RESET MASTER")
	if e := old.whileRunning(&stmt{st: sqlparse.Classify(words, old.mode), text: words}); e == nil || e.Message != "RESET MASTER is not allowed because Group Replication is running." {
		t.Errorf("8.0: %v", e)
	}
	out := &session{}
	text := []byte("RESET MASTER")
	if e := out.whileRunning(&stmt{st: sqlparse.Classify(text, out.mode), text: text}); e != nil {
		t.Errorf("out of the group: %v", e)
	}
}
