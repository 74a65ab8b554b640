package main

import (
	"context"
	"strconv"
	"strings"

	"cohort/consensus/state"
	"cohort/internal/wire"
	"cohort/proxy"
	"cohort/sqlparse"
)

// applierChannel is what MySQL shows as the channel of a group's members.
const applierChannel = "group_replication_applier"

// Exec implements proxy.Admin.
func (s *statusSource) Exec(_ context.Context, _ proxy.SessionInfo, st proxy.AdminStatement) (bool, error) {
	switch st.Class {
	case sqlparse.StartGroup:
		// The member joins when its process starts, so it is running.
		return true, wire.NewError(3093, "HY000", "The START GROUP_REPLICATION command failed since the group is already running.")
	case sqlparse.StopGroup:
		return true, wire.NewError(3663, "HY000", "The STOP GROUP_REPLICATION command encountered a failure. This release leaves the group when the process stops: end cohort serve instead.")
	}
	if strings.HasPrefix(st.Variable, "group_replication_") {
		return true, wire.NewError(1238, "HY000", "Variable '%s' is a read only variable", st.Variable)
	}
	return false, nil
}

// Variable implements proxy.Admin.
func (s *statusSource) Variable(_ context.Context, _ proxy.SessionInfo, name string) (value string, numeric, ok bool) {
	if !strings.HasPrefix(name, "group_replication_") {
		return "", false, false
	}
	value, err := s.cfg.Get(name)
	if err != nil {
		return "", false, false
	}
	// MySQL shows its booleans as numbers.
	switch value {
	case "ON":
		return "1", true, true
	case "OFF":
		return "0", true, true
	}
	_, err = strconv.ParseUint(value, 10, 64)
	return value, err == nil, true
}

// Table implements proxy.Admin.
func (s *statusSource) Table(_ context.Context, _ proxy.SessionInfo, name string) (proxy.Table, bool) {
	switch name {
	case "replication_group_members":
		return membersTable(s.node.View()), true
	case "replication_group_member_stats":
		return s.statsTable(s.node.View()), true
	}
	return proxy.Table{}, false
}

// membersTable is performance_schema.replication_group_members.
func membersTable(v *state.View) proxy.Table {
	t := proxy.Table{Columns: []proxy.TableColumn{
		{Name: "CHANNEL_NAME", CastType: "CHAR(64)"}, {Name: "MEMBER_ID", CastType: "CHAR(36)"},
		{Name: "MEMBER_HOST", CastType: "CHAR(255)"}, {Name: "MEMBER_PORT", CastType: "SIGNED"},
		{Name: "MEMBER_STATE", CastType: "CHAR(64)"}, {Name: "MEMBER_ROLE", CastType: "CHAR(64)"},
		{Name: "MEMBER_VERSION", CastType: "CHAR(64)"}, {Name: "MEMBER_COMMUNICATION_STACK", CastType: "CHAR(64)"},
	}}
	for _, m := range v.Members {
		x := member(m, v.Primary)
		t.Rows = append(t.Rows, texts(applierChannel, x.MemberID, x.Host, strconv.Itoa(x.Port), x.State, x.Role, x.Version, "COHORT"))
	}
	return t
}

// statsTable is performance_schema.replication_group_member_stats, as far as
// the log and the members' own channel tell.
func (s *statusSource) statsTable(v *state.View) proxy.Table {
	t := proxy.Table{Columns: []proxy.TableColumn{
		{Name: "CHANNEL_NAME", CastType: "CHAR(64)"}, {Name: "VIEW_ID", CastType: "CHAR(60)"}, {Name: "MEMBER_ID", CastType: "CHAR(36)"},
		{Name: "TRANSACTIONS_COMMITTED_ALL_MEMBERS", CastType: "CHAR(255)"},
		{Name: "LAST_CONFLICT_FREE_TRANSACTION", CastType: "CHAR(255)"},
		{Name: "COUNT_TRANSACTIONS_REMOTE_IN_APPLIER_QUEUE", CastType: "UNSIGNED"},
		{Name: "COUNT_TRANSACTIONS_REMOTE_APPLIED", CastType: "UNSIGNED"},
	}}
	last := s.node.LastN()
	all := last
	for _, m := range v.Members {
		all = min(all, m.Applied)
	}
	for _, m := range v.Members {
		done := s.router.Tracker(m.ID).Low()
		behind := uint64(0)
		if last > done {
			behind = last - done
		}
		t.Rows = append(t.Rows, texts(applierChannel, v.ViewID(), m.Info.UUID, s.gtids(all), s.last(last),
			strconv.FormatUint(behind, 10), strconv.FormatUint(done, 10)))
	}
	return t
}

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
