package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"cohort/internal/e2e/cluster"
)

// answer is the first column of a statement's first row, or its error as
// number (state) text.
func answer(t *testing.T, conn *sql.Conn, query string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return asText(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil || len(columns) == 0 {
		return asText(err)
	}
	values := make([]sql.NullString, len(columns))
	into := make([]any, len(values))
	for i := range values {
		into[i] = &values[i]
	}
	got := ""
	if rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return asText(err)
		}
		got = values[0].String
	}
	return got + asText(rows.Err())
}

func asText(err error) string {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return fmt.Sprintf("%d (%s) %s", e.Number, e.SQLState[:], e.Message)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// session is one connection through a member.
func session(t *testing.T, db *sql.DB) *sql.Conn {
	t.Helper()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Administration through SQL answers like Group Replication, on any member.
func TestAdministration(t *testing.T) {
	g := sharedGroup(t)
	for _, m := range []cluster.Member{g.Primary, g.Secondary} {
		t.Run(m.Role, func(t *testing.T) {
			admin := session(t, open(t, m.Through("app", ""), ""))
			plain := session(t, open(t, m.Through("plain", "plain"), ""))
			functionAnswers(t, g, admin, plain)
			variableAnswers(t, admin, plain)
			startStopAnswers(t, admin, plain)
			tableAnswers(t, g, admin)
		})
	}
	surface(t, g)
	g.check(t)
}

func expect(t *testing.T, conn *sql.Conn, query, want string) {
	t.Helper()
	if got := answer(t, conn, query); got != want {
		t.Errorf("%s\n got %s\nwant %s", query, got, want)
	}
}

func functionAnswers(t *testing.T, g *group, admin, plain *sql.Conn) {
	init := func(name, why string) string {
		return "1123 (HY000) Can't initialize function 'group_replication_" + name + "'; " + why
	}
	const sap = "set_as_primary"
	for query, want := range map[string]string{
		"set_as_primary('" + g.Primary.UUID + "')":                                                                           "The requested member is already the current group primary.",
		"set_as_primary('" + strings.ToUpper(g.Primary.UUID) + "')":                                                          "The requested member is already the current group primary.",
		"set_as_primary('" + g.Primary.UUID + "', 10)":                                                                       "The requested member is already the current group primary.",
		"set_as_primary((SELECT MEMBER_ID FROM performance_schema.replication_group_members WHERE MEMBER_ROLE = 'PRIMARY'))": "The requested member is already the current group primary.",
		"set_as_primary('x')": init(sap, "Wrong arguments: The server uuid is not valid."),
		"set_as_primary('3e11fa47-71ca-11e1-9e33-c80aa9429562')": init(sap, "The requested uuid is not a member of the group."),
		"set_as_primary()":                                        init(sap, "Wrong arguments: You need to specify a server uuid."),
		"set_as_primary(NULL)":                                    init(sap, "Wrong arguments: You need to specify a server uuid."),
		"set_as_primary('a', 1, 2)":                               init(sap, "Wrong arguments: UDF accepts maximum of 2 parameters."),
		"set_as_primary('a', 'b')":                                init(sap, "Wrong arguments: Second parameter `running_transactions_timeout` must be type integer between 0 - 3600 (seconds)."),
		"set_as_primary('" + g.Primary.UUID + "', 3601)":          "3910 (HY000) The function 'group_replication_set_as_primary' failed. Valid range for running_transactions_timeout is 0 to 3600.",
		"switch_to_single_primary_mode()":                         "The group is already on single-primary mode.",
		"switch_to_single_primary_mode('" + g.Primary.UUID + "')": "Already in single-primary mode. Did you mean to use group_replication_set_as_primary?",
		"switch_to_multi_primary_mode()":                          "3910 (HY000) The function 'group_replication_switch_to_multi_primary_mode' failed. Multi-primary mode is not supported by this release.",
		"switch_to_multi_primary_mode(1)":                         init("switch_to_multi_primary_mode", "Wrong arguments: This function takes no arguments."),
		"set_write_concurrency(5)":                                init("set_write_concurrency", "Argument must be between 10 and 200."),
	} {
		expect(t, admin, "SELECT group_replication_"+query, want)
	}
	denied := init(sap, "User 'plain'@'%' needs SUPER or GROUP_REPLICATION_ADMIN privileges.")
	expect(t, plain, "SELECT group_replication_set_as_primary('"+g.Primary.UUID+"')", denied)
	expect(t, admin, "LOCK TABLES mysql.user READ", "")
	expect(t, admin, "SELECT group_replication_set_as_primary('"+g.Primary.UUID+"')", init(sap, "Can't execute the given operation because you have active locked tables."))
	expect(t, admin, "UNLOCK TABLES", "")
	expect(t, admin, "BEGIN", "")
	expect(t, admin, "SELECT group_replication_set_as_primary('"+g.Primary.UUID+"')", init(sap, "Can't execute the given operation because you have an active transaction."))
	expect(t, admin, "ROLLBACK", "")
}

func variableAnswers(t *testing.T, admin, plain *sql.Conn) {
	for query, want := range map[string]string{
		"SET GLOBAL group_replication_member_weight = 'x'":                                 "1232 (42000) Incorrect argument type to variable 'group_replication_member_weight'",
		"SET GLOBAL group_replication_member_expel_timeout = 3601":                         "1231 (42000) Variable 'group_replication_member_expel_timeout' can't be set to the value of '3601'",
		"SET @@GLOBAL.group_replication_consistency = 'B'":                                 "1231 (42000) Variable 'group_replication_consistency' can't be set to the value of 'B'",
		"SET group_replication_member_weight = 1":                                          "1229 (HY000) Variable 'group_replication_member_weight' is a GLOBAL variable and should be set with SET GLOBAL",
		"SET GLOBAL group_replication_nosuch = 1":                                          "1193 (HY000) Unknown system variable 'group_replication_nosuch'",
		"SET PERSIST group_replication_force_members = ''":                                 "1238 (HY000) Variable 'group_replication_force_members' is a non persistent variable",
		"SET GLOBAL group_replication_force_members = '127.0.0.1:1'":                       "4118 (HY000) The 'SET GLOBAL group_replication_force_members=127.0.0.1:1' command encountered a failure. The group_replication_force_members can only be updated when Group Replication is running and majority of the members are unreachable.",
		"SET GLOBAL group_replication_exit_state_action = DEFAULT":                         "",
		"SET SESSION group_replication_consistency = @@group_replication_consistency":      "",
		"SET GLOBAL group_replication_exit_state_action = 'READ'":                          "1231 (42000) Variable 'group_replication_exit_state_action' can't be set to the value of 'READ'",
		"SET GLOBAL group_replication_flow_control_period = 7":                             "1235 (42000) This version of MySQL doesn't yet support 'SET of group_replication_flow_control_period: it has no effect before there is: flow control'",
		"SET GLOBAL group_replication_group_name = '3e11fa47-71ca-11e1-9e33-c80aa9429562'": "3093 (HY000) The group_replication_group_name cannot be changed when Group Replication is running",
		"SHOW VARIABLES LIKE 'group_replication_exit%'":                                    "group_replication_exit_state_action",
		"SELECT @@group_replication_exit_state_action":                                     "OFFLINE_MODE",
	} {
		expect(t, admin, query, want)
	}
	expect(t, plain, "SET GLOBAL group_replication_member_weight = 1",
		"1227 (42000) Access denied; you need (at least one of) the SUPER or SYSTEM_VARIABLES_ADMIN privilege(s) for this operation")
	// The session's own level, which needs no privilege and is nobody else's.
	expect(t, plain, "SET SESSION group_replication_consistency = 'EVENTUAL'", "")
	expect(t, plain, "SELECT CONCAT(@@group_replication_consistency, ' ', @@GLOBAL.group_replication_consistency)", "EVENTUAL BEFORE_ON_PRIMARY_FAILOVER")
	expect(t, plain, "SHOW VARIABLES WHERE Variable_name = 'group_replication_consistency' AND Value = 'EVENTUAL'", "group_replication_consistency")
	expect(t, plain, "SHOW GLOBAL VARIABLES WHERE Variable_name = 'group_replication_consistency' AND Value <> 'EVENTUAL'", "group_replication_consistency")
	expect(t, admin, "SELECT @@group_replication_consistency", "BEFORE_ON_PRIMARY_FAILOVER")
	expect(t, plain, "SET SESSION group_replication_consistency = DEFAULT", "")
}

func startStopAnswers(t *testing.T, admin, plain *sql.Conn) {
	const failed = " (HY000) The START GROUP_REPLICATION command failed since "
	for query, want := range map[string]string{
		"START GROUP_REPLICATION": "3093 (HY000) The START GROUP_REPLICATION command failed since the group is already running.",
		"START GROUP_REPLICATION USER='a', PASSWORD='b', DEFAULT_AUTH='c'":             "3093 (HY000) The START GROUP_REPLICATION command failed since the group is already running.",
		"START GROUP_REPLICATION USER=''":                                              "3970" + failed + "the username provided for recovery channel is empty.",
		"START GROUP_REPLICATION PASSWORD='x'":                                         "3971" + failed + "the USER option was not provided with PASSWORD for recovery channel.",
		"START GROUP_REPLICATION USER='a', PASSWORD='" + strings.Repeat("x", 33) + "'": "3972" + failed + "the password provided for the recovery channel exceeds the maximum length of 32 characters.",
		"START GROUP_REPLICATION FOO":                                                  "1064 (42000) You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right syntax to use near 'FOO' at line 1",
	} {
		expect(t, admin, query, want)
	}
	denied := "1227 (42000) Access denied; you need (at least one of) the SUPER or GROUP_REPLICATION_ADMIN privilege(s) for this operation"
	expect(t, plain, "START GROUP_REPLICATION", denied)
	expect(t, plain, "STOP GROUP_REPLICATION", denied)
	expect(t, admin, "BEGIN", "")
	expect(t, admin, "STOP GROUP_REPLICATION", "1192 (HY000) Can't execute the given command because you have active locked tables or an active transaction")
	expect(t, admin, "ROLLBACK", "")
}

func tableAnswers(t *testing.T, g *group, admin *sql.Conn) {
	rows, err := admin.QueryContext(t.Context(), "SELECT * FROM performance_schema.replication_group_member_stats")
	if err != nil {
		t.Fatal(err)
	}
	columns, err := rows.Columns()
	_ = rows.Close()
	want := []string{"CHANNEL_NAME", "VIEW_ID", "MEMBER_ID", "COUNT_TRANSACTIONS_IN_QUEUE", "COUNT_TRANSACTIONS_CHECKED", "COUNT_CONFLICTS_DETECTED",
		"COUNT_TRANSACTIONS_ROWS_VALIDATING", "TRANSACTIONS_COMMITTED_ALL_MEMBERS", "LAST_CONFLICT_FREE_TRANSACTION",
		"COUNT_TRANSACTIONS_REMOTE_IN_APPLIER_QUEUE", "COUNT_TRANSACTIONS_REMOTE_APPLIED", "COUNT_TRANSACTIONS_LOCAL_PROPOSED", "COUNT_TRANSACTIONS_LOCAL_ROLLBACK"}
	if err != nil || !slices.Equal(columns, want) {
		t.Errorf("columns %q (%v)", columns, err)
	}
	const join = "FROM performance_schema.replication_group_members AS m JOIN performance_schema.replication_group_member_stats AS s USING (MEMBER_ID) "
	proposed := "SELECT s.COUNT_TRANSACTIONS_LOCAL_PROPOSED " + join + "WHERE m.MEMBER_ROLE = 'PRIMARY'"
	before := answer(t, admin, proposed)
	failures := "SELECT SUM(COUNT_CONFLICTS_DETECTED) + SUM(COUNT_TRANSACTIONS_LOCAL_ROLLBACK) FROM performance_schema.replication_group_member_stats"
	failed := answer(t, admin, failures)
	expect(t, admin, "CREATE DATABASE counted", "")
	expect(t, admin, "CREATE TABLE counted.t (a INT PRIMARY KEY)", "")
	expect(t, admin, "INSERT INTO counted.t VALUES (1)", "")
	expect(t, admin, "DROP DATABASE counted", "")
	expect(t, admin, "SELECT s.COUNT_TRANSACTIONS_LOCAL_PROPOSED - "+before+" "+join+"WHERE m.MEMBER_ROLE = 'PRIMARY'", "4")
	expect(t, admin, "SELECT SUM(s.COUNT_TRANSACTIONS_LOCAL_PROPOSED) "+join+"WHERE m.MEMBER_ROLE <> 'PRIMARY'", "0")
	// Every secondary comes to have applied what the primary proposed.
	eventually(t, func() error {
		query := "SELECT COUNT(*) " + join + "WHERE s.COUNT_TRANSACTIONS_REMOTE_IN_APPLIER_QUEUE = 0 AND s.COUNT_TRANSACTIONS_REMOTE_APPLIED = " +
			"IF(m.MEMBER_ROLE = 'PRIMARY', 0, s.COUNT_TRANSACTIONS_CHECKED)"
		if got, all := answer(t, admin, query), fmt.Sprint(len(g.Members)); got != all {
			return fmt.Errorf("%s of %s members have applied all", got, all)
		}
		return nil
	})
	expect(t, admin, failures, failed)
}
