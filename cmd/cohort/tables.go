package main

import (
	"context"
	"strconv"
	"time"

	"cohort/consensus/state"
	"cohort/internal/httpapi"
	"cohort/internal/mysqld"
	"cohort/proxy"
	"cohort/recovery"
)

// applierChannel is what MySQL shows as the channel of a group's members.
const applierChannel = "group_replication_applier"

// Table implements proxy.Admin.
func (s *statusSource) Table(_ context.Context, _ proxy.SessionInfo, name string) (proxy.Table, bool) {
	switch name {
	case "replication_group_members":
		v := s.node.View()
		return membersTable(v, s.self(v), s.info.MysqldVersion, s.member.Unreachable), true
	case "replication_group_member_stats":
		return s.statsTable(s.node.View()), true
	case "replication_group_communication_information":
		v := s.node.View()
		return communicationTable(v, s.self(v), s.node.LeaderID()), true
	case "replication_group_member_actions":
		return actionsTable(), true
	case "replication_group_configuration_version":
		return proxy.Table{Columns: []proxy.TableColumn{{Name: "name"}, {Name: "version", CastType: "UNSIGNED"}},
			Rows: [][]*string{texts("replication_group_member_actions", "1")}}, true
	case "replication_connection_status":
		v := s.node.View()
		return connectionTable(s.cfg.GroupName, s.self(v), s.gtids(s.node.LastN()), s.last(s.node.LastN()))
	case "events_stages_current":
		return stagesTable(s.member.Stages(), time.Now())
	}
	return proxy.Table{}, false
}

// stagesTable is performance_schema.events_stages_current with what this member is at.
// No thread of mysqld's does that, so THREAD_ID is 0, and there is no timer of mysqld's
// to take times from; TIMER_WAIT is how long it has taken, in its unit. While there is
// nothing to show mysqld is asked alone.
func stagesTable(stages []recovery.Stage, now time.Time) (t proxy.Table, ok bool) {
	t = proxy.Table{Beside: true, Columns: []proxy.TableColumn{
		{Name: "THREAD_ID", CastType: "UNSIGNED"}, {Name: "EVENT_ID", CastType: "UNSIGNED"}, {Name: "END_EVENT_ID", CastType: "UNSIGNED"},
		{Name: "EVENT_NAME", CastType: "CHAR(128)"}, {Name: "SOURCE", CastType: "CHAR(64)"},
		{Name: "TIMER_START", CastType: "UNSIGNED"}, {Name: "TIMER_END", CastType: "UNSIGNED"}, {Name: "TIMER_WAIT", CastType: "UNSIGNED"},
		{Name: "WORK_COMPLETED", CastType: "UNSIGNED"}, {Name: "WORK_ESTIMATED", CastType: "UNSIGNED"},
		{Name: "NESTING_EVENT_ID", CastType: "UNSIGNED"}, {Name: "NESTING_EVENT_TYPE", CastType: "CHAR(16)"},
	}}
	for i, x := range stages {
		picoseconds := uint64(max(now.Sub(x.Since).Microseconds(), 0)) * 1e6
		row := texts("0", number(uint64(i+1)), "", "stage/group_rpl/"+x.Name, "", "", "", number(picoseconds), number(x.Completed), number(x.Estimated), "", "")
		for j := range row {
			if *row[j] == "" {
				row[j] = nil
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t, len(t.Rows) > 0
}

// communicationTable is performance_schema.replication_group_communication_information,
// as far as it means something here: the ordered log has one leader, which follows the
// primary.
func communicationTable(v *state.View, self httpapi.Self, leader uint64) proxy.Table {
	t := proxy.Table{Columns: []proxy.TableColumn{
		{Name: "WRITE_CONCURRENCY", CastType: "UNSIGNED"}, {Name: "PROTOCOL_VERSION"},
		{Name: "WRITE_CONSENSUS_LEADERS_PREFERRED"}, {Name: "WRITE_CONSENSUS_LEADERS_ACTUAL"},
		{Name: "WRITE_CONSENSUS_SINGLE_LEADER_CAPABLE", CastType: "SIGNED"}, {Name: "MEMBER_FAILURE_SUSPICIONS_COUNT"},
	}}
	if out(self) {
		return t
	}
	uuid := func(id uint64) string { m, _ := v.Member(id); return m.Info.UUID }
	row := texts("", "", uuid(v.Primary), uuid(leader), "1", "")
	row[0], row[1], row[5] = nil, nil, nil // the plugin's own
	t.Rows = append(t.Rows, row)
	return t
}

// actionsTable is performance_schema.replication_group_member_actions.
func actionsTable() proxy.Table {
	return proxy.Table{Columns: []proxy.TableColumn{{Name: "name"}, {Name: "event", CastType: "CHAR(64)"}, {Name: "enabled", CastType: "SIGNED"},
		{Name: "type", CastType: "CHAR(64)"}, {Name: "priority", CastType: "UNSIGNED"}, {Name: "error_handling", CastType: "CHAR(64)"}},
		Rows: [][]*string{texts(theAction, theEvent, "1", "INTERNAL", "1", "IGNORE")}}
}

// connectionTable is performance_schema.replication_connection_status with what this
// member has received in place of what the primary's mysqld says of the channel by
// which its own member feeds it. Out of the group mysqld is asked alone.
func connectionTable(group string, self httpapi.Self, received, last string) (proxy.Table, bool) {
	t := proxy.Table{Beside: true, Instead: "CHANNEL_NAME IN ('" + applierChannel + "', '" + mysqld.FeedChannel + "')"}
	row := texts()
	add := func(name, cast, value string) {
		t.Columns = append(t.Columns, proxy.TableColumn{Name: name, CastType: cast})
		row = append(row, &value)
	}
	const never = "0000-00-00 00:00:00.000000"
	add("CHANNEL_NAME", "CHAR(64)", applierChannel)
	add("GROUP_NAME", "CHAR(36)", group)
	add("SOURCE_UUID", "CHAR(36)", group)
	add("THREAD_ID", "UNSIGNED", "")
	row[3] = nil
	add("SERVICE_STATE", "CHAR(16)", "ON")
	add("COUNT_RECEIVED_HEARTBEATS", "UNSIGNED", "0")
	add("LAST_HEARTBEAT_TIMESTAMP", "CHAR(26)", never)
	add("RECEIVED_TRANSACTION_SET", "CHAR(255)", received)
	add("LAST_ERROR_NUMBER", "SIGNED", "0")
	add("LAST_ERROR_MESSAGE", "CHAR(255)", "")
	add("LAST_ERROR_TIMESTAMP", "CHAR(26)", never)
	for _, which := range []string{"LAST_QUEUED", "QUEUEING"} {
		add(which+"_TRANSACTION", "CHAR(90)", last)
		last = "" // none is being received
		for _, when := range []string{"ORIGINAL_COMMIT", "IMMEDIATE_COMMIT", "START_QUEUE", "END_QUEUE"} {
			if which == "LAST_QUEUED" || when != "END_QUEUE" {
				add(which+"_TRANSACTION_"+when+"_TIMESTAMP", "CHAR(26)", never)
			}
		}
	}
	t.Rows = [][]*string{row}
	return t, !out(self)
}

// Status implements proxy.Admin: those of the plugin's status variables for which there
// is a true number. No transaction waits for its consistency level.
func (s *statusSource) Status(context.Context, proxy.SessionInfo) []proxy.NamedValue {
	at := ""
	if t := s.stats.Latest(); !t.IsZero() {
		at = t.UTC().Format("2006-01-02 15:04:05.000000")
	}
	list := []proxy.NamedValue{
		{Name: "Gr_data_messages_sent_count", Value: number(s.stats.Of(s.id, 0).Proposed)},
		{Name: "Gr_last_consensus_end_timestamp", Value: at},
	}
	for _, what := range []string{"after_sync", "after_termination", "before_begin"} {
		for _, of := range []string{"count", "time_sum"} {
			list = append(list, proxy.NamedValue{Name: "Gr_transactions_consistency_" + what + "_" + of, Value: "0"})
		}
	}
	return list
}

// membersTable is performance_schema.replication_group_members: the members that
// are in the group, or this one alone while it is not, or not any more.
func membersTable(v *state.View, self httpapi.Self, version string, unreachable func(state.Member) bool) proxy.Table {
	t := proxy.Table{Columns: []proxy.TableColumn{
		{Name: "CHANNEL_NAME", CastType: "CHAR(64)"}, {Name: "MEMBER_ID", CastType: "CHAR(36)"},
		{Name: "MEMBER_HOST", CastType: "CHAR(255)"}, {Name: "MEMBER_PORT", CastType: "SIGNED"},
		{Name: "MEMBER_STATE", CastType: "CHAR(64)"}, {Name: "MEMBER_ROLE", CastType: "CHAR(64)"},
		{Name: "MEMBER_VERSION", CastType: "CHAR(64)"}, {Name: "MEMBER_COMMUNICATION_STACK", CastType: "CHAR(64)"},
	}}
	if out(self) {
		t.Rows = append(t.Rows, texts(applierChannel, self.MemberID, self.Host, strconv.Itoa(self.Port), self.State, "", version, "COHORT"))
		return t
	}
	for _, m := range v.Members {
		if !shown(&m, self.MemberID) {
			continue
		}
		x := member(m, v.Primary, unreachable)
		if x.MemberID == self.MemberID {
			x.State, x.Role = self.State, self.Role // it knows more of itself
		}
		t.Rows = append(t.Rows, texts(applierChannel, x.MemberID, x.Host, strconv.Itoa(x.Port), x.State, x.Role, x.Version, "COHORT"))
	}
	return t
}

// out reports whether this member shows itself alone.
func out(self httpapi.Self) bool {
	return self.State == state.StateOffline.String() || self.State == state.StateError.String()
}

// shown reports whether a member is one of the group's, as the others show it.
// One that was taken out shows itself.
func shown(m *state.Member, self string) bool {
	return m.State != state.StateOffline && (m.Replica != 0 || m.Info.UUID == self)
}

// statsTable is performance_schema.replication_group_member_stats. Counts are
// those since this process began, as MySQL's are since START GROUP_REPLICATION.
// Nothing waits for certification, since that is part of ordering; how many rows
// the certifier knows is not told.
func (s *statusSource) statsTable(v *state.View) proxy.Table {
	t := proxy.Table{Columns: []proxy.TableColumn{
		{Name: "CHANNEL_NAME", CastType: "CHAR(64)"}, {Name: "VIEW_ID", CastType: "CHAR(60)"}, {Name: "MEMBER_ID", CastType: "CHAR(36)"},
		{Name: "COUNT_TRANSACTIONS_IN_QUEUE", CastType: "UNSIGNED"},
		{Name: "COUNT_TRANSACTIONS_CHECKED", CastType: "UNSIGNED"},
		{Name: "COUNT_CONFLICTS_DETECTED", CastType: "UNSIGNED"},
		{Name: "COUNT_TRANSACTIONS_ROWS_VALIDATING", CastType: "UNSIGNED"},
		{Name: "TRANSACTIONS_COMMITTED_ALL_MEMBERS", CastType: "CHAR(255)"},
		{Name: "LAST_CONFLICT_FREE_TRANSACTION", CastType: "CHAR(255)"},
		{Name: "COUNT_TRANSACTIONS_REMOTE_IN_APPLIER_QUEUE", CastType: "UNSIGNED"},
		{Name: "COUNT_TRANSACTIONS_REMOTE_APPLIED", CastType: "UNSIGNED"},
		{Name: "COUNT_TRANSACTIONS_LOCAL_PROPOSED", CastType: "UNSIGNED"},
		{Name: "COUNT_TRANSACTIONS_LOCAL_ROLLBACK", CastType: "UNSIGNED"},
	}}
	if self := s.self(v); out(self) {
		t.Rows = append(t.Rows, texts(applierChannel, "", self.MemberID, "0", "0", "0", "0", "", "", "0", "0", "0", "0"))
		return t
	}
	last := s.node.LastN()
	all := last
	for _, m := range v.Members {
		if !shown(&m, s.info.UUID) {
			continue
		}
		all = min(all, m.Applied)
	}
	checked, conflicts := s.stats.Checked()
	for _, m := range v.Members {
		if !shown(&m, s.info.UUID) {
			continue
		}
		c := s.stats.Of(m.ID, s.router.Tracker(m.ID).Low())
		t.Rows = append(t.Rows, texts(applierChannel, v.ViewID(), m.Info.UUID, "0", number(checked), number(conflicts), "0",
			s.gtids(all), s.last(last), number(c.RemoteQueued), number(c.RemoteApplied), number(c.Proposed), number(c.RolledBack)))
	}
	return t
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

func (s *statusSource) gtids(upto uint64) string {
	switch upto {
	case 0:
		return ""
	case 1:
		return s.cfg.GroupName + ":1"
	}
	return s.cfg.GroupName + ":1-" + strconv.FormatUint(upto, 10)
}

func (s *statusSource) last(n uint64) string {
	if n == 0 {
		return ""
	}
	return s.cfg.GroupName + ":" + strconv.FormatUint(n, 10)
}

func texts(values ...string) []*string {
	row := make([]*string, len(values))
	for i := range values {
		row[i] = &values[i]
	}
	return row
}
