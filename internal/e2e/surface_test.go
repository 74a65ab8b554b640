package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"cohort/internal/e2e/cluster"
)

// surface holds the group against what a group of the plugin's, 9.7.4, answered to the
// same statements.
func surface(t *testing.T, g *group) {
	for _, m := range []cluster.Member{g.Primary, g.Secondary} {
		db := open(t, m.Through("app", ""), "")
		admin := session(t, db)
		for _, row := range surfaceRows(g, m, version(t, admin)) {
			expect(t, admin, row[0], row[1])
		}
		namesOfVariables(t, admin)
	}
	timedChange(t, g)
	stoppedMember(t, g)
}

// surfaceRows are statements with what one session of an administrator, on m, is
// answered: the first column of the first row, and the error.
func surfaceRows(g *group, m cluster.Member, version string) [][2]string {
	const (
		weight  = "group_replication_member_weight"
		applier = " FOR CHANNEL 'group_replication_applier'"
		ps      = "performance_schema."
	)
	channel := func(what string) string {
		return "3139 (HY000) " + what + " cannot be performed on channel 'group_replication_applier'."
	}
	failed := func(f, why string) string {
		return "3910 (HY000) The function 'group_replication_" + f + "' failed. " + why
	}
	init := func(f, why string) string {
		return "1123 (HY000) Can't initialize function 'group_replication_" + f + "'; " + why
	}
	primary := func(there, elsewhere string) string {
		if m.UUID == g.Primary.UUID {
			return there
		}
		return elsewhere
	}
	const readOnly = "Server must have super_read_only=0."
	return [][2]string{
		// §6: the weight is clamped without a warning, and counts at once.
		{"SET GLOBAL " + weight + " = 70", ""},
		{"SELECT @@" + weight, "70"},
		{"SET GLOBAL " + weight + " = 101", ""},
		{"SHOW COUNT(*) WARNINGS", "0"},
		{"SELECT @@GLOBAL." + weight, "100"},
		{"SET GLOBAL " + weight + " = DEFAULT", ""},
		{"SET GLOBAL " + weight + " = NULL", "1232 (42000) Incorrect argument type to variable '" + weight + "'"},
		{"SET GLOBAL " + weight + " = 40.1", "1232 (42000) Incorrect argument type to variable '" + weight + "'"},
		{"SELECT @@SESSION." + weight, "1238 (HY000) Variable '" + weight + "' is a GLOBAL variable"},
		{"SET SESSION " + weight + " = 1", "1229 (HY000) Variable '" + weight + "' is a GLOBAL variable and should be set with SET GLOBAL"},
		// §16: what is stored.
		{"RESET PERSIST " + weight, "3615 (HY000) Variable " + weight + " does not exist in persisted config file"},
		{"RESET PERSIST IF EXISTS " + weight, ""},
		{"RESET PERSIST", "1105 (HY000) The member needs super_read_only and skip_replica_start persisted: name another variable that is to be reset"},
		{"RESET PERSIST IF EXISTS Super_Read_Only", "1105 (HY000) The member needs super_read_only and skip_replica_start persisted: name another variable that is to be reset"},
		{"SHOW COUNT(*) WARNINGS", "1"},
		{"SET PERSIST " + weight + " = 60", ""},
		{"SET PERSIST_ONLY " + weight + " = 61", ""},
		{"SELECT @@" + weight, "60"},
		{"RESET PERSIST " + weight, ""},
		{"SET GLOBAL " + weight + " = 50", ""},
		{"SET PERSIST group_replication_force_members = ''", "1238 (HY000) Variable 'group_replication_force_members' is a non persistent variable"},
		// §9, §13: ranges; what is fixed is refused before its range is looked at.
		{"SET GLOBAL group_replication_transaction_size_limit = -1", ""},
		{"SHOW COUNT(*) WARNINGS", "1"},
		{"SET GLOBAL group_replication_transaction_size_limit = DEFAULT", ""},
		{"SET GLOBAL group_replication_auto_increment_increment = 0", "3093 (HY000) The group group_replication_auto_increment_increment cannot be changed when Group Replication is running"},
		{"SET GLOBAL group_replication_compression_threshold = 4294967297", "3093 (HY000) The group_replication_compression_threshold cannot be set while Group Replication is running"},
		{"SET GLOBAL group_replication_gtid_assignment_block_size = 0", "3093 (HY000) The group_replication_gtid_assignment_block size cannot be set while Group Replication is running"},
		{"SET GLOBAL group_replication_single_primary_mode = NULL", "1231 (42000) Variable 'group_replication_single_primary_mode' can't be set to the value of 'NULL'"},
		{"SET GLOBAL group_replication_single_primary_mode = DEFAULT", "1231 (42000) Variable 'group_replication_single_primary_mode' can't be set to the value of 'DEFAULT'"},
		{"SET GLOBAL group_replication_ip_allowlist = 'AUTOMATIC,127.0.0.1'", "3092 (HY000) The group_replication_ip_allowlist is invalid. Make sure that when specifying \"AUTOMATIC\" the list contains no other values."},
		{"SET GLOBAL group_replication_recovery_zstd_compression_level = 23", "1231 (42000) The value '23' is invalid for group_replication_recovery_zstd_compression_level option."},
		{"SET GLOBAL group_replication_advertise_recovery_endpoints = '127.0.0.1:0'", "3976 (HY000) Variable 'group_replication_advertise_recovery_endpoints' cannot be set to the value of '127.0.0.1:0'. Invalid value on recovery endpoint '127.0.0.1:0'."},
		{"SET SESSION group_replication_consistency = on", "1231 (42000) Variable 'group_replication_consistency' can't be set to the value of 'ON'"},
		// §15, §16: what is refused while the group runs.
		{"RESET BINARY LOGS AND GTIDS", "3190 (HY000) RESET BINARY LOGS AND GTIDS is not allowed because Group Replication is running."},
		{"SET GLOBAL gtid_purged = ''", "3911 (HY000) Cannot update GTID_PURGED with the Group Replication plugin running"},
		{"SET GLOBAL gtid_mode = ON_PERMISSIVE", "3111 (HY000) SET @@GLOBAL.GTID_MODE = ON_PERMISSIVE is not allowed because group replication requires @@GLOBAL.GTID_MODE=ON."},
		{"SET GLOBAL gtid_mode = ON", ""},
		{"SET GLOBAL default_table_encryption = ON", "3093 (HY000) The default_table_encryption option cannot be changed when Group replication is running."},
		{"STOP REPLICA" + applier, channel("STOP REPLICA FOR CHANNEL")},
		{"RESET REPLICA ALL" + applier, channel("RESET REPLICA [ALL] FOR CHANNEL")},
		{"CHANGE REPLICATION SOURCE TO SOURCE_HOST='x'" + applier, channel("CHANGE REPLICATION SOURCE with the given parameters")},
		{"INSTALL PLUGIN group_replication SONAME 'group_replication.so'", "1125 (HY000) Function 'group_replication' already exists"},
		{"LOCK TABLES mysql.user READ", ""},
		{"STOP GROUP_REPLICATION", "1192 (HY000) Can't execute the given command because you have active locked tables or an active transaction"},
		{"UNLOCK TABLES", ""},
		// §5, §7, §18: functions.
		{"SELECT group_replication_switch_to_single_primary_mode('')", init("switch_to_single_primary_mode", "Wrong arguments: This function either takes no arguments or a single server uuid.")},
		{"SELECT group_replication_set_communication_protocol('x')", init("set_communication_protocol", "'x' is not version string argument with format major.minor.patch")},
		{"SELECT group_replication_set_communication_protocol('5.7.13')", init("set_communication_protocol", "5.7.13 is not between 5.7.14 and "+version)},
		{"SELECT group_replication_disable_member_action('', 'AFTER_PRIMARY_ELECTION')", init("disable_member_action", "UDF first argument must be a string.")},
		{"SELECT group_replication_enable_member_action('x', 'y')", primary(failed("enable_member_action", "Invalid event name."), init("enable_member_action", readOnly))},
		{"SELECT group_replication_reset_member_actions()", primary(failed("reset_member_actions", "Member must be OFFLINE to reset its member actions configuration."), init("reset_member_actions", readOnly))},
		// §14: tables and status variables.
		{"SELECT WRITE_CONSENSUS_LEADERS_PREFERRED FROM " + ps + "replication_group_communication_information", g.Primary.UUID},
		{"SELECT COUNT(*) FROM " + ps + "replication_group_member_actions WHERE enabled = 1", "1"},
		{"SELECT version FROM " + ps + "replication_group_configuration_version", "1"},
		{"SELECT SERVICE_STATE FROM " + ps + "replication_connection_status WHERE CHANNEL_NAME = 'group_replication_applier'", "ON"},
		{"SELECT COUNT(*) FROM " + ps + "replication_connection_status", "1"},
		{"SELECT COUNT(*) FROM " + ps + "events_stages_current WHERE EVENT_NAME LIKE 'stage/group_rpl/%'", "0"},
		{"SELECT COUNT(*) > 0 FROM " + ps + "replication_group_member_stats AS s JOIN " + ps + "replication_connection_status AS c ON c.CHANNEL_NAME = s.CHANNEL_NAME", "1"},
		{"SHOW GLOBAL STATUS LIKE 'Gr\\_data%'", "Gr_data_messages_sent_count"},
		{"SHOW STATUS WHERE Variable_name = 'Gr_transactions_consistency_before_begin_count'", "Gr_transactions_consistency_before_begin_count"},
		{"SHOW STATUS LIKE 'Threads_running'", "Threads_running"},
	}
}

// version is that of the servers, as the group shows it.
func version(t *testing.T, conn *sql.Conn) string {
	t.Helper()
	return answer(t, conn, "SELECT MEMBER_VERSION FROM performance_schema.replication_group_members WHERE MEMBER_ROLE = 'PRIMARY'")
}

// namesOfVariables: all of the plugin's variables are shown.
func namesOfVariables(t *testing.T, admin *sql.Conn) {
	rows, err := admin.QueryContext(t.Context(), "SHOW GLOBAL VARIABLES LIKE 'group_replication%'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		n++
	}
	if n != 60 || rows.Err() != nil {
		t.Errorf("%d variables (%v), the plugin has 60", n, rows.Err())
	}
}

// timedChange changes the primary with a limit for what runs: new transactions are
// refused at once, what the change is at is shown, and what still runs in the end is
// cut off.
func timedChange(t *testing.T, g *group) {
	const blocked = "4094 (HY000) All queries have been blocked while function 'group_replication_set_as_primary()' is executing. Please refer timeout parameter of function 'group_replication_set_as_primary()'."
	setup := open(t, g.Primary.Through("app", "plain"), "")
	execAll(t, setup, "CREATE TABLE timed (a INT PRIMARY KEY)")
	for i, limit := range []string{"3600", "0"} {
		from, to := g.Primary, g.Secondary
		if i > 0 {
			from, to = to, from
		}
		writer := session(t, open(t, to.Through("app", "plain"), ""))
		expect(t, writer, "BEGIN", "")
		expect(t, writer, fmt.Sprintf("INSERT INTO timed VALUES (%d)", i), "")
		done := make(chan string, 1)
		asker := session(t, open(t, to.Through("app", ""), ""))
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		go func() {
			var said string
			if err := asker.QueryRowContext(ctx, "SELECT group_replication_set_as_primary('"+to.UUID+"', "+limit+")").Scan(&said); err != nil {
				said = asText(err)
			}
			done <- said
		}()
		if limit != "0" {
			changing(t, g, from, to, blocked)
			expect(t, writer, "INSERT INTO timed VALUES (100)", "") // what runs goes on
			expect(t, writer, "COMMIT", "")
		}
		if said, want := <-done, "Primary server switched to: "+to.UUID; said != want {
			t.Errorf("with a limit of %s: %s", limit, said)
		}
		if limit == "0" {
			if _, err := writer.ExecContext(ctx, "COMMIT"); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a transaction that ran when the time was over: %v", err)
			}
		}
		if err := g.returned(ctx, from); err != nil {
			t.Fatal(err)
		}
	}
	check := session(t, open(t, g.Secondary.Through("app", "plain"), ""))
	expect(t, check, "SELECT GROUP_CONCAT(a ORDER BY a) FROM timed", "0,100")
	g.known(t)
}

// changing looks at a group whose primary is being changed.
func changing(t *testing.T, g *group, from, to cluster.Member, blocked string) {
	const stages = "SELECT CONCAT(EVENT_NAME, ' ', WORK_COMPLETED, '/', WORK_ESTIMATED) FROM performance_schema.events_stages_current WHERE EVENT_NAME LIKE 'stage/group_rpl/%'"
	for _, m := range g.Members {
		want := "stage/group_rpl/Primary Switch: waiting on another member step completion 0/1"
		if m.UUID == from.UUID {
			want = "stage/group_rpl/Primary Switch: waiting for pending transactions to finish 0/1"
		}
		c := session(t, open(t, m.Through("app", "plain"), ""))
		eventually(t, func() error {
			if got := answer(t, c, stages); got != want {
				return fmt.Errorf("%s shows %q", m.Name, got)
			}
			return nil
		})
		expect(t, c, "SELECT 1", "1")
		expect(t, c, "BEGIN", blocked)
		expect(t, c, "INSERT INTO timed VALUES (1)", blocked)
		expect(t, c, "CREATE TABLE refused (a INT PRIMARY KEY)", blocked)
		expect(t, c, "SET GLOBAL group_replication_member_weight = 60",
			"1231 (42000) The member weight for primary elections cannot be changed while group configuration operation 'Primary election change' is running initiated by 'SELECT group_replication_set_as_primary()'.")
		expect(t, c, "SELECT group_replication_set_as_primary('"+to.UUID+"')",
			"3910 (HY000) The function 'group_replication_set_as_primary' failed. There is already a configuration action being executed. Wait for it to finish.")
	}
}

// stoppedMember looks at a member that is OFFLINE.
func stoppedMember(t *testing.T, g *group) {
	db := open(t, g.Secondary.Through("app", "plain"), "")
	admin, writer := session(t, db), session(t, db)
	expect(t, writer, "BEGIN", "")
	expect(t, writer, "INSERT INTO timed VALUES (5)", "")
	expect(t, admin, "STOP GROUP_REPLICATION", "")
	expect(t, writer, "COMMIT", "3100 (HY000) Error on observer while running replication hook 'before_commit'.")
	const ps = "performance_schema."
	v := version(t, session(t, open(t, g.Primary.Through("app", ""), "")))
	for _, row := range [][2]string{
		{"SELECT @@GLOBAL.super_read_only", "1"},
		{"INSERT INTO timed VALUES (6)", "1290 (HY000) The MySQL server is running with the --super-read-only option so it cannot execute this statement"},
		{"SELECT CONCAT_WS(',', CHANNEL_NAME, MEMBER_STATE, MEMBER_ROLE, MEMBER_VERSION) FROM " + ps + "replication_group_members", "group_replication_applier,OFFLINE,," + v},
		{"SELECT CONCAT(COUNT(*), ' ', MAX(VIEW_ID)) FROM " + ps + "replication_group_member_stats", "1 "},
		{"SELECT COUNT(*) FROM " + ps + "replication_group_communication_information", "0"},
		{"SET GLOBAL group_replication_group_name = 'x'", "1231 (42000) The group_replication_group_name is not a valid UUID"},
		{"SET GLOBAL group_replication_force_members = '127.0.0.1:1'", "4118 (HY000) The 'SET GLOBAL group_replication_force_members=127.0.0.1:1' command encountered a failure. Member is not ONLINE, it is not possible to force a new group membership."},
		{"SELECT group_replication_set_as_primary('" + g.Primary.UUID + "')", "1123 (HY000) Can't initialize function 'group_replication_set_as_primary'; Member must be ONLINE and in the majority partition."},
		{"SELECT group_replication_reset_member_actions()", "1123 (HY000) Can't initialize function 'group_replication_reset_member_actions'; Server must have super_read_only=0."},
		// A weight that is set now counts from the next START on.
		{"SET GLOBAL group_replication_member_weight = 90", ""},
		{"START GROUP_REPLICATION", ""},
		{"SELECT @@group_replication_member_weight", "90"},
	} {
		expect(t, admin, row[0], row[1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := g.returned(ctx, g.Secondary); err != nil {
		t.Fatal(err)
	}
}
